"""The files at some inputs that may be scans: without what is excluded and what this package has written itself.

What labels they have is `_labels`'; what is read of them is `source`'s. Not for use outside this folder.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mribatch.storage import uris
from mribatch.storage._junk import is_junk
from mribatch.storage._outputs import Outputs
from mribatch.storage.uris import Entry, Exclusion, Scope

__all__ = ["Listing", "listed"]

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
