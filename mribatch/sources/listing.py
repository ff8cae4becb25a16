"""List the files at some inputs that may be scans: all but excluded ones and those that this package has written."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from mribatch import schema
from mribatch.errors import InputError, StorageDenied
from mribatch.junk import is_junk
from mribatch.scans.limits import MAX_BYTES
from mribatch.sources.outputs import OwnOutputs
from mribatch.stores import uris
from mribatch.stores.uris import Entry, Exclusion, Scope

__all__ = ["Listing", "archive", "content_digests", "keys_of", "list_inputs", "list_scans", "with_digests"]

log = logging.getLogger("mribatch.listing")

_INPUTS_SHOWN = 3  # in messages

_READERS = 16  # scans read at once to digest their bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The files at some inputs. versions: of each possible scan, by URI. own: files that this package has written."""

    versions: dict[str, str]
    own: frozenset[str]
    scopes: Sequence[Scope]
    exclusion: Exclusion

    def entries(self) -> Iterator[Entry]:
        """Return the possible scans, in the order in which they were listed."""
        return (Entry(uri, version, uris.size(uri, version)) for uri, version in self.versions.items())

    def covers(self, uri: str) -> bool:
        """Return whether a file of this URI would be listed as a scan if it existed."""
        names = [scope.name_of(uri) for scope in self.scopes if scope.covers(uri)]
        return uri not in self.own and not all(is_junk(name) or self.exclusion.fits(name) for name in names)


def list_inputs(inputs: Sequence[str], exclude: Sequence[str] | None = None) -> Listing:
    """List the files at some folders, files, globs or prefixes, each once, except those that this package has written.

    exclude: globs relative to each input (if that is a glob, to the folder where it begins); None for a command that
    has no such flag. Raises what `uris.walk` raises.
    """
    exclusion = Exclusion(exclude or ())
    versions: dict[str, str] = {}
    for uri in inputs:
        entries = uris.walk(uri, None if exclude is None else exclusion)
        versions.update((entry.uri, entry.version) for entry in entries)
    outputs = OwnOutputs(map(uris.plain, versions))
    own = frozenset(uri for uri in versions if outputs.hold(uris.plain(uri)))
    for uri in own:
        del versions[uri]
    if own:
        folders = f"{outputs.folders} folder{'' if outputs.folders == 1 else 's'}"
        log.info("ignored %s of mribatch's own output (%d files)", folders, len(own))
    for pattern in exclusion.unused:
        log.warning("--exclude %s matches nothing: give a glob relative to each input, such as 'cache/**'", pattern)
    return Listing(versions=versions, own=own, scopes=[uris.scope(uri) for uri in inputs], exclusion=exclusion)


def list_scans(inputs: Sequence[str], exclude: Sequence[str] | None = None) -> pa.Table:
    """Return the scans at some folders, files, globs or prefixes, sorted, each once (schema PLAN).

    Files that this package has written are ignored, wherever they are. exclude: globs, relative to each input, of what
    to leave out. Raises StorageMissing, StorageDenied, StorageUnavailable; InputError if there are no scans.
    """
    return archive(inputs, exclude)[0]


def archive(inputs: Sequence[str], exclude: Sequence[str] | None = None) -> tuple[pa.Table, Callable[[str], bool]]:
    """Return `list_scans`, and a function that tells whether a URI would be in the listing if it existed."""
    log.info("listing %s …", _shown(inputs))
    listing = list_inputs(inputs, exclude)
    if not listing.versions:
        no_scans = ["mribatch's own output"] * bool(listing.own) + ["excluded"] * bool(exclude)
        which = f" that is not {' and not '.join(no_scans)}" if no_scans else ""
        raise InputError(f"no scans in {_shown(inputs)}: expected a folder or prefix with at least one file{which}")
    names = sorted(listing.versions)
    return pa.table([names, [listing.versions[name] for name in names]], schema=schema.PLAN), listing.covers


def _shown(inputs: Sequence[str]) -> str:
    """Return the first inputs, and how many more there are: a glob that the shell expands gives thousands."""
    more = len(inputs) - _INPUTS_SHOWN
    return ", ".join(inputs[:_INPUTS_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def content_digests(listing: pa.Table) -> set[str]:
    """Return the SHA-256 of the bytes of each scan of a listing. Raises as `with_digests`."""
    return set(with_digests(listing)["content_sha256"].drop_null().to_pylist())


def with_digests(listing: pa.Table) -> pa.Table:
    """Return a listing with the column `content_sha256`, the SHA-256 of the bytes of each scan.

    It is null for scans above the size cap, and for those that cannot be read, which are counted in a warning. Raises
    InputError if none can be read, and StorageDenied if S3 denies access to one.
    """
    with ThreadPoolExecutor(_READERS) as threads:
        digests = list(threads.map(_digest, keys_of(listing)))
    tried = [digest for digest in digests if digest is not None]
    unread = [digest for digest in tried if isinstance(digest, Exception)]
    causes = ", ".join(sorted({type(err).__name__ for err in unread}))
    if unread and len(unread) == len(tried):
        message = f"none of the {len(tried)} scans to compare with can be read ({causes}): check their storage"
        raise InputError(message) from unread[0]
    if unread:
        message = "%d of %d scans could not be read (%s): copies of them are not recognized"
        log.warning(message, len(unread), len(tried), causes)
    column = [digest if isinstance(digest, str) else None for digest in digests]
    return listing.append_column("content_sha256", pa.array(column, pa.string()))


def _digest(key: tuple[str, str]) -> str | Exception | None:
    if uris.size(*key) > MAX_BYTES:
        return None
    try:
        return hashlib.sha256(uris.read(key[0])).hexdigest()
    except Exception as err:
        if isinstance(err, StorageDenied) and uris.is_s3(key[0]):
            raise
        return err


def keys_of(table: pa.Table) -> list[tuple[str, str]]:
    """Return the URI and version of each row."""
    return list(zip(table["scan_uri"].to_pylist(), table["scan_version"].to_pylist(), strict=True))
