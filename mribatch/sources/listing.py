"""The files at some inputs that may be scans: without what is excluded and what this package has written itself.

What labels they have is `_labels`'; what is read of them is `source`'s. Not for use outside this folder.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from mribatch import schema
from mribatch.errors import (
    InputError,
    StorageDenied,
)
from mribatch.scans.limits import MAX_BYTES
from mribatch.sources.outputs import Outputs
from mribatch.stores import uris
from mribatch.stores.junk import is_junk
from mribatch.stores.uris import Entry, Exclusion, Scope

__all__ = ["Listing", "archive", "content_digests", "keys_of", "list_scans", "listed"]

log = logging.getLogger("mribatch.listing")


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """What was listed. versions: of each file that may be a scan, by its URI. own: files that this package has written."""

    versions: dict[str, str]
    own: frozenset[str]
    scopes: Sequence[Scope]
    exclusion: Exclusion

    def entries(self) -> Iterator[Entry]:
        """The files that may be scans, in the order in which they were listed."""
        return (Entry(uri, version, uris.size(uri, version)) for uri, version in self.versions.items())

    def covers(self, uri: str) -> bool:
        """Would a file of this URI be listed as a scan if it were there?"""
        names = [scope.name_of(uri) for scope in self.scopes if scope.covers(uri)]
        return uri not in self.own and not all(is_junk(name) or self.exclusion.fits(name) for name in names)


def listed(inputs: Sequence[str], exclude: Sequence[str] | None = None) -> Listing:
    """List the files at some folders, files, globs or prefixes, each once, without those that this package has written.

    exclude: globs relative to each input (to the folder where its own glob begins); None for a caller without that flag.
    Raises what `uris.walk` raises.
    """
    exclusion = Exclusion(exclude or ())
    versions: dict[str, str] = {}
    for uri in inputs:
        entries = uris.walk(uri, None if exclude is None else exclusion)
        versions.update((entry.uri, entry.version) for entry in entries)
    outputs = Outputs(map(uris.plain, versions))
    own = frozenset(uri for uri in versions if outputs.hold(uris.plain(uri)))
    for uri in own:
        del versions[uri]
    _log(outputs, own, exclusion)
    return Listing(versions=versions, own=own, scopes=[uris.scope(uri) for uri in inputs], exclusion=exclusion)


def _log(outputs: Outputs, own: frozenset[str], exclusion: Exclusion) -> None:
    if own:
        folders = f"{outputs.folders} folder{'' if outputs.folders == 1 else 's'}"
        log.info("passed over %s of mribatch's own output (%d files)", folders, len(own))
    for pattern in exclusion.unused:
        log.warning("--exclude %s matches nothing: give a glob relative to each input, such as 'cache/**'", pattern)


_READERS = 16  # scans read at once where only their bytes count


def list_scans(inputs: Sequence[str], exclude: Sequence[str] | None = None) -> pa.Table:
    """The scans at some folders, files, globs or prefixes, as the schema `PLAN`, sorted, each once.

    What this package has written itself is passed over, wherever it lies. exclude: globs, relative to each input, of
    what to leave out. Raises StorageMissing, StorageDenied, StorageUnavailable; InputError where there is no scan at all.
    """
    return archive(inputs, exclude)[0]


def archive(inputs: Sequence[str], exclude: Sequence[str] | None = None) -> tuple[pa.Table, Callable[[str], bool]]:
    """As `list_scans`, and a function that says of a URI whether the listing would have it if it were there."""
    found = listed(inputs, exclude)
    if not found.versions:
        no_scans = ["mribatch's own output"] * bool(found.own) + ["excluded"] * bool(exclude)
        which = f" that is not {' and not '.join(no_scans)}" if no_scans else ""
        raise InputError(f"no scans in {', '.join(inputs)}: expected a folder or prefix with at least one file{which}")
    names = sorted(found.versions)
    return pa.table([names, [found.versions[name] for name in names]], schema=schema.PLAN), found.covers


def content_digests(listed: pa.Table) -> set[str]:
    """The SHA-256 of the bytes of each scan of a listing, as `content_sha256` has it.

    Scans above the size cap are left out: they have no `content_sha256`. Scans that cannot be read are counted in a
    warning. Raises InputError where none can be read, and StorageDenied where S3 refuses one.
    """
    keys = [(uri, version) for uri, version in keys_of(listed) if uris.size(uri, version) <= MAX_BYTES]
    with ThreadPoolExecutor(_READERS) as threads:
        digests = list(threads.map(_digest, keys))
    unread = [digest for digest in digests if isinstance(digest, Exception)]
    causes = ", ".join(sorted({type(err).__name__ for err in unread}))
    if unread and len(unread) == len(keys):
        raise InputError(
            f"none of the {len(keys)} scans to compare with can be read ({causes}): check their storage"
        ) from unread[0]
    if unread:
        log.warning(
            "%d of %d scans could not be read (%s): copies of them are not recognized", len(unread), len(keys), causes
        )
    return {digest for digest in digests if isinstance(digest, str)}


def _digest(key: tuple[str, str]) -> str | Exception:
    try:
        return hashlib.sha256(uris.read(key[0])).hexdigest()
    except Exception as err:
        if isinstance(err, StorageDenied) and uris.is_s3(key[0]):
            raise
        return err


def keys_of(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["scan_uri"].to_pylist(), table["scan_version"].to_pylist(), strict=True))
