"""Is one scan closed to this run, or everything? Counts denials in this process. Not for use outside this folder."""

from collections.abc import Sequence

import pyarrow as pa

from mribatch.errors import MribatchError, StorageDenied
from mribatch.stores import uris

__all__ = ["Access", "Witness", "witnesses"]

Witness = tuple[str, str]
"""The URI and the version of a scan from anywhere in the listing."""

_IN_A_ROW = 8  # a closed folder is as likely as a policy that changed: time to look elsewhere
_LONGEST_ROW = 1024  # what is read in vain at most, by each process, when everything is closed in the end
_WITNESSES = 16


def witnesses(listing: pa.Table) -> tuple[Witness, ...]:
    """Some scans from all over a listing."""
    count = min(_WITNESSES, listing.num_rows)
    chosen = listing.take(pa.array([number * listing.num_rows // count for number in range(count)], pa.int64()))
    return tuple(zip(chosen["scan_uri"].to_pylist(), chosen["scan_version"].to_pylist(), strict=True))


class Access:
    """Scans that are denied are failed scans, as long as anything in the listing can be read."""

    def __init__(self) -> None:
        self._denied, self._limit = 0, _IN_A_ROW

    def granted(self) -> None:
        self._denied = 0

    def denied(self, err: StorageDenied, witnesses: Sequence[Witness]) -> None:
        """Count a denial. After some in a row, read scans from all over the listing; raise StorageDenied where these are
        denied, too. Where one is not, the next such look comes after twice as many."""
        self._denied += 1
        if self._denied < self._limit:
            return
        if _all_denied(witnesses):
            raise StorageDenied(
                f"{err}: the last {self._denied} scans were refused, and so were {len(witnesses)} from all over the input; "
                "the rows written so far stay, and the same command completes them",
                detail=err.detail,
            ) from err
        self._denied, self._limit = 0, min(2 * self._limit, _LONGEST_ROW)


def _all_denied(witnesses: Sequence[Witness]) -> bool:
    denied = 0
    for uri, version in witnesses:
        try:
            uris.read_version(uri, version)
        except StorageDenied:
            denied += 1
        except MribatchError:
            continue  # gone, or without an answer: it says nothing of permissions
        else:
            return False
    return denied > 0
