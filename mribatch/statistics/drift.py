"""Whether tonight's scans look like those of the nights before. Pure functions of counts: no pages, no files.

The population stability index (PSI) compares two histograms. Its customary thresholds, 0.1 and 0.25, say nothing about
how many scans were counted: twenty scans exceed them by chance alone. So each index comes with what chance reaches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

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
"""The names of the bins between the edges."""

_ROUNDING = 1e-3  # a softmax in half precision may end that far above 1
_SMOOTHING = 0.5  # scans added to each bin in use (Jeffreys' prior), so that an empty bin is rare and not impossible
_CHANCE = 0.001  # one false alarm in a thousand nights and more, three years, for each thing that is watched


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far tonight is from before.

    index: the PSI, 0 or more; None when either side has no scans, so that there is nothing to tell.
    noise: what the index stays below in 999 of 1,000 nights when nothing has changed; None with the index. Scans count
        as independent here: slices of one patient are not, so a night of few patients strays further.
    level: "moderate" or "major" only for an index above both its threshold and the noise.
    """

    index: float | None
    noise: float | None
    level: Level


def confidence_counts(confidences: NDArray[np.float32]) -> list[int]:
    """How many of the (N,) confidences lie in each of CONFIDENCE_RANGES; the lower edge of a range belongs to it.

    Raises InputError for what is no confidence: NaN, or outside 0…1.
    """
    if not np.all((confidences >= 0) & (confidences <= 1 + _ROUNDING)):
        raise InputError("expected confidences in 0…1, got others or NaN: leave out the scans without a prediction")
    inner = np.asarray(CONFIDENCE_EDGES[1:-1], confidences.dtype)  # in its dtype: a float32 0.9 is below 0.9
    bins = np.searchsorted(inner, confidences, side="right")
    counts: list[int] = np.bincount(bins, minlength=len(CONFIDENCE_RANGES)).tolist()
    return counts


def population_stability_index(before: Sequence[int], tonight: Sequence[int]) -> float:
    """Σ (p - q) ln(p / q) over the bins, p and q the shares of tonight and before; 0 for equal shares, symmetric.

    Counts are of the same bins in the same order. A bin empty on both sides does not count; to every other one half a
    scan is added on both sides, so a bin empty on one side gives a finite term that grows with the other side's share.

    Raises InputError when the two do not fit together, or one of them has no scans.
    """
    old, new = _in_use(before, tonight)
    if not (old.sum() and new.sum()):
        raise InputError("expected scans on both sides, got none on one of them: there is nothing to compare")
    p, q = _shares(new), _shares(old)
    return float(np.sum((p - q) * np.log(p / q)))


def drift(before: Sequence[int], tonight: Sequence[int], moderate: float = 0.1, major: float = 0.25) -> Drift:
    """Compares the counts of tonight with those of before; `moderate` and `major` are the customary thresholds.

    Raises InputError when the two do not fit together.
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
    """The counts of the bins that hold a scan on either side."""
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
    """The 99.9% quantile of the PSI without change: chi-square with one degree less than bins, times 1/n + 1/m.

    Yurdakul and Naranjo 2020, Statistical properties of the population stability index, Journal of Risk Model Validation.
    """
    quantile = chdtri(bins - 1, _CHANCE) if bins > 1 else 0.0  # one bin: all shares are 1, and the index is 0
    return float(quantile * (1 / scans_before + 1 / scans_tonight))
