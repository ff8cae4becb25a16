"""Measure whether tonight's scans differ from those of earlier nights, from counts of both.

The population stability index (PSI) compares two histograms. Its customary thresholds, 0.1 and 0.25, ignore the number of
scans: with twenty scans, chance alone exceeds them. Each index therefore comes with the level that chance reaches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import InputError

__all__ = [
    "CONFIDENCE_EDGES",
    "CONFIDENCE_RANGES",
    "Drift",
    "Level",
    "confidence_counts",
    "drift",
    "population_stability_index",
]

Level = Literal["none", "moderate", "major"]

CONFIDENCE_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)  # fine near 1, where softmax outputs lie
CONFIDENCE_RANGES = tuple(f"{low:g} to {high:g}" for low, high in pairwise(CONFIDENCE_EDGES))
"""The names of the bins between the edges; an edge belongs to the bin above it."""

_ROUNDING = 1e-3  # a softmax in half precision may exceed 1 by this much
_SMOOTHING = 0.5  # scans added to each used bin (Jeffreys' prior), so that an empty bin means rare, not impossible
_CHANCE = 0.001  # at most one false alarm in a thousand nights (three years) per monitored quantity


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The difference between tonight and earlier nights.

    index: the PSI, 0 or more; None if either side has no scans.
    noise: the index stays below this value in 999 of 1,000 nights without change; None if the index is. It assumes
        independent scans. Slices of one patient are not independent, so a night of few patients varies more.
    level: "moderate" or "major" only for an index above both its threshold and the noise.
    """

    index: float | None
    noise: float | None
    level: Level


def confidence_counts(confidences: NDArray[np.float32]) -> list[int]:
    """Return how many of the (N,) confidences are in each of CONFIDENCE_RANGES, which include their lower edges.

    Raises InputError for NaN and for values outside 0…1.
    """
    if not np.all((confidences >= 0) & (confidences <= 1 + _ROUNDING)):
        raise InputError("expected confidences in 0…1, got others or NaN: leave out the scans without a prediction")
    inner = np.asarray(
        CONFIDENCE_EDGES[1:-1], confidences.dtype
    )  # in its dtype, because a float32 0.9 is less than 0.9
    bins = np.searchsorted(inner, confidences, side="right")
    counts: list[int] = np.bincount(bins, minlength=len(CONFIDENCE_RANGES)).tolist()
    return counts


def population_stability_index(before: Sequence[int], tonight: Sequence[int]) -> float:
    """Return Σ (p - q) ln(p / q) over the bins, p and q being the shares tonight and before; symmetric, 0 if equal.

    Both counts are of the same bins in the same order. Bins that are empty on both sides are ignored. Half a scan is added
    to the others on both sides, so a bin that is empty on one side gives a finite term that grows with the other's share.

    Raises InputError if the numbers of bins differ, or one side has no scans.
    """
    old, new = _in_use(before, tonight)
    if not (old.sum() and new.sum()):
        raise InputError("expected scans on both sides, got none on one of them: there is nothing to compare")
    p, q = _shares(new), _shares(old)
    return float(np.sum((p - q) * np.log(p / q)))


def drift(before: Sequence[int], tonight: Sequence[int], moderate: float = 0.1, major: float = 0.25) -> Drift:
    """Compare the counts of tonight with those before. moderate, major: thresholds of the index, the customary ones.

    Raises InputError if the numbers of bins differ.
    """
    old, new = _in_use(before, tonight)
    if not (old.sum() and new.sum()):
        return Drift(index=None, noise=None, level="none")
    index = population_stability_index(before, tonight)
    noise = _noise(int(old.sum()), int(new.sum()), len(old))
    level: Level = "none"
    if index > noise and index >= moderate:
        level = "major" if index >= major else "moderate"
    return Drift(index=index, noise=noise, level=level)


def _in_use(before: Sequence[int], tonight: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return both counts without the bins that are empty on both sides."""
    old, new = np.asarray(before, np.int64), np.asarray(tonight, np.int64)
    if old.shape != new.shape or old.ndim != 1 or (old < 0).any() or (new < 0).any():
        raise InputError(f"expected counts of the same bins, 0 or more each, got {list(before)} and {list(tonight)}")
    used = (old + new) > 0
    return old[used], new[used]


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    smooth = counts + _SMOOTHING
    shares: NDArray[np.float64] = smooth / smooth.sum()
    return shares


def _noise(scans_before: int, scans_tonight: int, bins: int) -> float:
    """Return the 99.9% quantile of the PSI without change: chi-square with bins - 1 degrees of freedom, times 1/n + 1/m.

    Yurdakul and Naranjo 2020, Statistical properties of the population stability index, Journal of Risk Model Validation.
    """
    from scipy.special import chdtri  # `score` imports this file, and does without

    quantile = chdtri(bins - 1, _CHANCE) if bins > 1 else 0.0  # one bin: all shares are 1, and the index is 0
    return float(quantile * (1 / scans_before + 1 / scans_tonight))
