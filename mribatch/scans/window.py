"""Values of any depth to 8 bits, by their own least and greatest finite value."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window"]

_PIECE_VALUES = 1_000_000  # so many are converted at once: float64 takes eight times the memory of uint8


class Window:
    """First show it all values, a block at a time; then it shades each block. What `where` leaves out becomes 0."""

    def __init__(self, *, inverted: bool = False) -> None:
        self._inverted = inverted  # zero is white
        self._low: int | float | None = None
        self._high: int | float | None = None

    def include(self, values: NDArray[np.generic], where: NDArray[np.bool_] | None = None) -> None:
        """Widen the window by the finite values of a block."""
        for piece, wanted in _pieces(values, where):
            chosen = piece if wanted is None else piece[wanted]
            if chosen.dtype.kind == "f":
                chosen = chosen[np.isfinite(chosen)]
            if chosen.size:
                low, high = chosen.min().item(), chosen.max().item()
                self._low = low if self._low is None else min(low, self._low)
                self._high = high if self._high is None else max(high, self._high)

    def shade(self, values: NDArray[np.generic], where: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """A block as 0…255; NaN and infinities as 0, and all of a constant picture."""
        shades = np.zeros(values.shape, np.uint8)
        if self._low is None or self._high is None or not self._low < self._high:
            return shades
        for (piece, wanted), shaded in zip(_pieces(values, where), _rows(shades), strict=True):
            with np.errstate(all="ignore"):  # of what is not finite, and is left out below
                scaled = self._scaled(piece)
            usable = np.isfinite(scaled) if wanted is None else np.isfinite(scaled) & wanted
            shaded[usable] = np.rint(scaled[usable]).astype(np.uint8)
        return shades

    def _scaled(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        assert self._low is not None
        assert self._high is not None
        low, high = self._low, self._high
        if values.dtype.kind in "iu" and values.dtype.itemsize == 8:  # float64 does not hold them: shift them first
            values = values.astype(np.uint64) - np.uint64(low % 2**64)
            low, high = 0, high - low
        if not np.isfinite(float(high) - float(low)):
            values, low, high = values.astype(np.float64) / 2, low / 2, high / 2
        exact = values.astype(np.float64)
        above = float(high) - exact if self._inverted else exact - float(low)
        factor = np.float64(255) / (float(high) - float(low))
        return above * factor if np.isfinite(factor) else above / (float(high) - float(low)) * 255


def _pieces(
    values: NDArray[np.generic], where: NDArray[np.bool_] | None
) -> Iterator[tuple[NDArray[np.generic], NDArray[np.bool_] | None]]:
    step = _step(values)
    for top in range(0, values.shape[0], step):
        yield values[top : top + step], None if where is None else where[top : top + step]


def _rows(shades: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    step = _step(shades)
    return (shades[top : top + step] for top in range(0, shades.shape[0], step))


def _step(values: NDArray[np.generic]) -> int:
    return int(max(1, _PIECE_VALUES * values.shape[0] // max(1, values.size)))
