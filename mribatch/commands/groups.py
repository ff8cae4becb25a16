"""Put scans into clusters of near copies: from an audit's file, from an earlier run of the command, or by comparing them."""

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import pyarrow as pa

from mribatch.cluster.session import session
from mribatch.cluster.thumbnails import Thumbnails, thumbnails_of
from mribatch.commands.screen import progress
from mribatch.sources import clusters
from mribatch.statistics import near_copies
from mribatch.version import __version__

__all__ = ["Grouping", "clusters_of", "compared", "given_clusters", "grouped", "with_clusters"]

log = logging.getLogger("mribatch.groups")


class Grouping(Protocol):
    """Settings of a command that keeps near copies together."""

    @property
    def data(self) -> str: ...
    @property
    def groups(self) -> str | None: ...


def given_clusters(config: Grouping) -> Mapping[str, int] | None:
    """Return the clusters of --groups; None without that flag. Call it before Ray starts. Raises what `clusters.read` does."""
    return None if config.groups is None else clusters.read(config.groups)


def grouped(
    config: Grouping,
    scans: pa.Table,
    given: Mapping[str, int] | None,
    kept: str | None,
    thumbnails: Callable[[], Thumbnails],
) -> pa.Table:
    """Return scans with the column `cluster`: by the given clusters, or by `clusters_of`.

    given: from `given_clusters`. kept, thumbnails: as for `clusters_of`. Raises InputError if --groups lacks some scans.
    """
    if given is None:
        return with_clusters(scans, clusters_of(scans["content_sha256"].to_pylist(), kept, thumbnails))
    clusters.check_covered(given, scans, str(config.groups), config.data)
    return with_clusters(scans, given)


def clusters_of(contents: Collection[str], kept: str | None, thumbnails: Callable[[], Thumbnails]) -> Mapping[str, int]:
    """Return the cluster of each scan that can be decoded, by the SHA-256 of its bytes.

    contents: those SHA-256. kept: the URI of the file that the clusters are kept in, or None; if it has those of exactly
    these scans, nothing is compared. thumbnails: returns the decoded scans.
    """
    if kept is None:
        return _compared(thumbnails())
    data = _digest(contents)
    known = clusters.kept(kept, data)
    if known is None:
        known = _compared(thumbnails())
        clusters.keep(kept, known, data)
    return known


def compared(listing: pa.Table) -> Thumbnails:
    """Decode the scans of a listing (schema PLAN) into thumbnails, in a session, and show the progress."""
    log.info("reading %s scans to look for near copies …", f"{listing.num_rows:,}")
    with session(), progress("reading", listing.num_rows, "scans") as bar:
        return thumbnails_of(listing, advance=bar.advance)


def with_clusters(scans: pa.Table, known: Mapping[str, int]) -> pa.Table:
    """Return scans with the column `cluster`, which is null for those without one."""
    numbers = [known.get(content) for content in scans["content_sha256"].to_pylist()]
    return scans.append_column("cluster", pa.array(numbers, pa.int64()))


def _compared(decoded: Thumbnails) -> dict[str, int]:
    contents = decoded.scans["content_sha256"].to_pylist()
    log.info("looking for near copies among %s scans …", f"{len(contents):,}")
    copies = near_copies.near_copies(decoded.pictures, decoded.scans["pixels_sha256"].to_pylist())
    numbers = near_copies.clusters(len(contents), copies.first, copies.second)
    log.info("%s scans are %s distinct pictures", f"{len(contents):,}", f"{len(set(numbers.tolist())):,}")
    return dict(zip(contents, numbers.tolist(), strict=True))


def _digest(contents: Collection[str]) -> str:
    """Return a digest of the scans, and of what decides which of them are near copies."""
    facts = [__version__, near_copies.NEAR, sorted(set(contents))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
