"""Scale values of any depth to 8 bits, from their least to their greatest finite value."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window"]

_PIECE_VALUES = 1_000_000  # converted at once, as float64 takes eight times the memory of uint8

_Piece = tuple[NDArray[Any], NDArray[np.bool_] | None]  # views of values, and of their mask


class Window:
    """Scale blocks to 8 bits: first `include` every block, then `shade` each. Values outside `where` become 0."""

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
        """Return a block scaled to 0…255. NaN, infinities and all values of a constant picture become 0."""
        shades = np.zeros(values.shape, np.uint8)
        if self._low is None or self._high is None or not self._low < self._high:
            return shades
        for (piece, wanted), (shaded, _) in zip(_pieces(values, where), _pieces(shades, None), strict=True):
            with np.errstate(all="ignore"):  # values that are not finite are left out below
                scaled = self._scaled(piece)
            usable = np.isfinite(scaled) if wanted is None else np.isfinite(scaled) & wanted
            shaded[usable] = np.rint(scaled[usable]).astype(np.uint8)
        return shades

    def _scaled(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        assert self._low is not None
        assert self._high is not None
        low, high = self._low, self._high
        if values.dtype.kind in "iu" and values.dtype.itemsize == 8:  # float64 cannot represent them: shift them first
            values = values.astype(np.uint64) - np.uint64(low % 2**64)
            low, high = 0, high - low
        if not np.isfinite(float(high) - float(low)):
            values, low, high = values.astype(np.float64) / 2, low / 2, high / 2
        exact = values.astype(np.float64)
        above = float(high) - exact if self._inverted else exact - float(low)
        factor = np.float64(255) / (float(high) - float(low))
        return above * factor if np.isfinite(factor) else above / (float(high) - float(low)) * 255


def _pieces(values: NDArray[Any], where: NDArray[np.bool_] | None) -> Iterator[_Piece]:
    """Yield the rows of a block in pieces that do not exceed _PIECE_VALUES."""
    step = int(max(1, _PIECE_VALUES * values.shape[0] // max(1, values.size)))
    for top in range(0, values.shape[0], step):
        yield values[top : top + step], None if where is None else where[top : top + step]
