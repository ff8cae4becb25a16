"""Tell a denied scan from a denied input: count refusals in this process and end the run when nothing can be read."""

from collections.abc import Sequence

import pyarrow as pa

from mribatch.errors import MribatchError, StorageDenied
from mribatch.stores import uris

__all__ = ["Access", "Witness", "witnesses"]

Witness = tuple[str, str]
"""The URI and the version of one of the scans sampled from the whole listing."""

_FIRST_LIMIT = 8  # denials in a row: a single closed folder is as likely as a changed policy, so probe the rest
_LARGEST_LIMIT = 1024  # the most scans that each process tries in vain before the run ends
_WITNESSES = 16


def witnesses(listing: pa.Table) -> tuple[Witness, ...]:
    """Return up to 16 scans, spread evenly over a listing."""
    count = min(_WITNESSES, listing.num_rows)
    chosen = listing.take(pa.array([number * listing.num_rows // count for number in range(count)], pa.int64()))
    return tuple(zip(chosen["scan_uri"].to_pylist(), chosen["scan_version"].to_pylist(), strict=True))


class Access:
    """Count denied scans. They are failed scans as long as something else in the listing can be read."""

    def __init__(self) -> None:
        self._denied, self._limit = 0, _FIRST_LIMIT

    def granted(self) -> None:
        """Start counting anew: a scan could be read."""
        self._denied = 0

    def denied(self, err: StorageDenied, witnesses: Sequence[Witness]) -> None:
        """Count a denial. At the limit, read the witnesses, and raise StorageDenied if they are denied too.

        If one of them can be read, the limit doubles.
        """
        self._denied += 1
        if self._denied < self._limit:
            return
        if _all_denied(witnesses):
            raise StorageDenied(
                f"{err}: the last {self._denied} scans were denied, and so were {len(witnesses)} sampled from the whole "
                "input; the rows written so far are kept, and the same command resumes from them",
                detail=err.detail,
            ) from err
        self._denied, self._limit = 0, min(2 * self._limit, _LARGEST_LIMIT)


def _all_denied(witnesses: Sequence[Witness]) -> bool:
    denied = 0
    for uri, version in witnesses:
        try:
            uris.read_version(uri, version)
        except StorageDenied:
            denied += 1
        except MribatchError:
            continue  # vanished or unavailable, which says nothing about permissions
        else:
            return False
    return denied > 0
