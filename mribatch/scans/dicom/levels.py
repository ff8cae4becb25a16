"""The distinct values of a frame: what is computed for each of them is computed once, however many pixels share it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Levels", "levels_of"]

_MOST_STEPS = 1 << 16
_PIECE = 1 << 20  # so many pixels are counted at once, in 8 bytes each


@dataclass(frozen=True)
class Levels:
    """Distinct values, how many pixels have each, which are shown, and where they are in the frame."""

    values: NDArray[np.float64]
    counts: NDArray[np.int64]
    shown: NDArray[np.bool_]  # neither padding nor infinite, and in the frame
    index: NDArray[np.unsignedinteger]  # (rows, columns), into the above

    @property
    def is_constant(self) -> bool:
        """Whether no two pixels that are shown differ."""
        visible = self.values[self.shown]
        return visible.size == 0 or bool((visible == visible[0]).all())

    def share(self, chosen: NDArray[np.bool_]) -> float:
        """Return the share of all pixels that are shown and have the chosen values."""
        return float(self.counts[self.shown & chosen].sum() / self.counts.sum())

    def percentile(self, percent: float) -> float:
        """Return a percentile of the pixels shown, interpolated as NumPy does by default."""
        values, counts = self.values[self.shown], self.counts[self.shown]
        order = np.argsort(values, kind="stable")
        values, last = values[order], np.cumsum(counts[order])
        rank = percent / 100 * (int(last[-1]) - 1)
        below, above = np.searchsorted(last, [np.floor(rank), np.ceil(rank)], side="right")
        return float(values[below] + (values[above] - values[below]) * (rank - np.floor(rank)))

    def paint(self, shades: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame with each value replaced by its shade."""
        return np.take(shades, self.index)


def levels_of(stored: NDArray[np.generic], is_padding: "tuple[float, float] | None") -> Levels:
    """Return the levels of stored values. `is_padding` is the closed range of values that are padding."""
    if stored.dtype.kind == "f" or int(stored.max()) - int(stored.min()) >= _MOST_STEPS:
        values, index, counts = np.unique(stored, return_inverse=True, return_counts=True)
        index = index.reshape(stored.shape).astype(np.uint32)
        values = values.astype(np.float64)
    else:
        low, high = int(stored.min()), int(stored.max())
        values = np.arange(low, high + 1, dtype=np.float64)
        index = (stored.astype(np.int32) - low).astype(np.uint16)
        counts = _counted(index, high - low + 1)
    shown = np.isfinite(values) & (counts > 0)
    if is_padding is not None:
        shown &= (values < is_padding[0]) | (values > is_padding[1])
    return Levels(values, counts, shown, index)


def _counted(index: NDArray[np.uint16], size: int) -> NDArray[np.int64]:
    flat, counts = index.reshape(-1), np.zeros(size, np.int64)
    for start in range(0, flat.size, _PIECE):
        counts += np.bincount(flat[start : start + _PIECE], minlength=size)
    return counts
