"""Near copies where they do harm: across splits, and under two labels. Pure functions of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mribatch.statistics.near_copies import KINDS, Copies

__all__ = ["LINKED", "Leak", "leaks", "two_labels"]

LINKED = "linked"
"""How a scan is like a training scan that it is a near copy of only through other scans."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Scans of a split with a near copy among the training scans. by_kind: the closest kind of each such scan."""

    split: str
    scans: int
    leaking: int
    by_kind: dict[str, int]
    rows: NDArray[np.int64]


def leaks(
    splits: Sequence[str | None], contents: Sequence[str], clusters: NDArray[np.int64], copies: Copies
) -> list[Leak]:
    """Return what leaks from the training scans into each other split; scans without a split train.

    contents: a digest of the pixels of each scan. clusters: of near copies, as `near_copies.clusters` has them.
    """
    sides = np.array([split or "training" for split in splits])
    training = sides == "training"
    if training.all() or not training.any():
        return []
    of_training = np.isin(clusters, clusters[training])
    closest = _closest(training, np.unique(np.asarray(contents), return_inverse=True)[1], copies)
    leaking = []
    for split in sorted({*sides.tolist()} - {"training"}):
        rows = np.flatnonzero((sides == split) & of_training)
        kinds = [*KINDS, LINKED]
        counts = {kind: int((closest[rows] == number).sum()) for number, kind in enumerate(kinds)}
        leaking.append(
            Leak(split=split, scans=int((sides == split).sum()), leaking=len(rows), by_kind=counts, rows=rows)
        )
    return leaking


def _closest(training: NDArray[np.bool_], content: NDArray[np.int64], copies: Copies) -> NDArray[np.int64]:
    """Return for each scan the closest kind of a training scan that it is paired with, by content; len(KINDS) for none."""
    closest = np.full(int(content.max()) + 1, len(KINDS), np.int64)
    trains = np.zeros(len(closest), bool)
    trains[content[training]] = True
    for one, other in ((copies.first, copies.second), (copies.second, copies.first)):
        into = trains[content[other]]
        np.minimum.at(closest, content[one[into]], copies.kind[into].astype(np.int64))
    closest[trains] = 0
    nearest: NDArray[np.int64] = closest[content]
    return nearest


def two_labels(labels: NDArray[np.int64], copies: Copies) -> NDArray[np.int64]:
    """Return the numbers of the pairs whose scans have different labels, the closest kinds and correlations first."""
    apart = np.flatnonzero(labels[copies.first] != labels[copies.second])
    order = np.lexsort((-copies.correlation[apart], copies.kind[apart]))
    return apart[order]
