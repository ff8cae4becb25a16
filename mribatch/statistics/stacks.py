"""Measure stacks of slices: runs of suspicious ones, missing positions, and which slices lie in the middle.

A stack is the slices of one series in one plane, by their positions along the normal.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stacks", "highest_rows", "is_in_middle", "measure_stacks"]

_MIDDLE = 0.6  # of a stack's extent
_SAME_MM = 0.01  # slices no further apart are at one position
_GAP = 1.5  # times the usual step: a larger step misses a position
_ROUNDING_MM = 1e-6

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Stacks(NamedTuple):
    """One entry per stack, in the order of their numbers."""

    longest_run: Ints  # positions
    longest_run_mm: Floats  # 0 for a run in a stack of one position, whose thickness is unknown
    gap: Ints  # missing positions


class _Positions(NamedTuple):
    """The distinct positions of all stacks, by stack and then by mm."""

    stack: Ints
    mm: Floats
    flagged: NDArray[np.bool_]


def measure_stacks(stack: Ints, mm: Floats, flagged: NDArray[np.bool_], stacks: int) -> Stacks:
    """Return the longest run of flagged positions of each stack, in positions and in mm, and its missing positions.

    stack: (N,) numbers of the slices' stacks, 0 … stacks - 1. mm: (N,) positions along the normal. flagged: (N,) whether
    a slice is suspicious; a position is if one of its slices is. A missing position ends a run. The length of a run is
    the distance of its ends plus one step, where a step is the median distance of neighbours.
    """
    at = _positions(stack, mm, flagged)
    step = _steps(at, stacks)
    is_first = np.r_[True, np.diff(at.stack) != 0] if len(at.stack) else np.zeros(0, bool)
    missed = _missed(at, step, is_first)
    begins = is_first | (missed > 0) | ~at.flagged | ~np.r_[True, at.flagged[:-1]][: len(at.flagged)]
    run = np.flatnonzero(begins)
    ends = np.r_[run[1:], len(begins)][: len(run)] - 1
    is_run = at.flagged[run]
    run, ends = run[is_run], ends[is_run]
    lengths_mm = at.mm[ends] - at.mm[run] + np.nan_to_num(step)[at.stack[run]]
    longest, longest_mm, gap = np.zeros(stacks, np.int64), np.zeros(stacks), np.zeros(stacks, np.int64)
    np.maximum.at(longest, at.stack[run], ends - run + 1)
    np.maximum.at(longest_mm, at.stack[run], lengths_mm)
    np.add.at(gap, at.stack, missed)
    return Stacks(longest, longest_mm, gap)


def is_in_middle(stack: Ints, mm: Floats, stacks: int) -> NDArray[np.bool_]:
    """Return for each of (N,) slices whether it lies in the middle 60% of its stack's extent, ends included."""
    low, high = np.full(stacks, np.inf), np.full(stacks, -np.inf)
    np.minimum.at(low, stack, mm)
    np.maximum.at(high, stack, mm)
    margin = (1 - _MIDDLE) / 2 * (high[stack] - low[stack]) - _ROUNDING_MM
    return np.asarray((mm >= low[stack] + margin) & (mm <= high[stack] - margin), np.bool_)


def highest_rows(group: Ints, values: Floats, groups: int, k: int = 1) -> Ints:
    """Return for each group the index of the k-th highest of its values, -1 if it has fewer.

    group: (N,) numbers 0 … groups - 1. values: (N,), NaN for none. Of equal values the first counts.
    """
    rows = np.flatnonzero(~np.isnan(values))
    rows = rows[np.lexsort((rows, -values[rows], group[rows]))]
    counts = np.bincount(group[rows], minlength=groups)
    starts = np.cumsum(counts) - counts
    chosen = np.full(groups, -1, np.int64)
    has_enough = counts >= k
    chosen[has_enough] = rows[starts[has_enough] + k - 1]
    return chosen


def _positions(stack: Ints, mm: Floats, flagged: NDArray[np.bool_]) -> _Positions:
    order = np.lexsort((mm, stack))
    stack, mm, flagged = stack[order], mm[order], flagged[order]
    if not len(order):
        return _Positions(stack, mm, flagged)
    first = np.flatnonzero(np.r_[True, (np.diff(stack) != 0) | (np.diff(mm) > _SAME_MM)])
    return _Positions(stack[first], mm[first], np.logical_or.reduceat(flagged, first))


def _steps(at: _Positions, stacks: int) -> Floats:
    """Return the median distance of neighbours in each stack, the lower one of two; NaN for a single position."""
    is_step = np.diff(at.stack) == 0
    stack, length = at.stack[1:][is_step], np.diff(at.mm)[is_step]
    counts = np.bincount(stack, minlength=stacks)
    ordered = length[np.lexsort((length, stack))]
    steps, has_steps = np.full(stacks, np.nan), counts > 0
    steps[has_steps] = ordered[(np.cumsum(counts) - counts + (counts - 1) // 2)[has_steps]]
    return steps


def _missed(at: _Positions, step: Floats, is_first: NDArray[np.bool_]) -> Ints:
    """Return how many positions are missing before each one."""
    steps = np.where(is_first, 0.0, np.diff(at.mm, prepend=0.0) / np.where(is_first, 1.0, step[at.stack]))
    return np.where(steps > _GAP, np.rint(steps) - 1, 0).astype(np.int64)
