"""Stored values to grey of 8 bits: modality transformation, then VOI table, window or percentiles (PS3.3, C.11)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mribatch.scans.dicom.elements import Elements
from mribatch.scans.dicom.groups import FrameGroups
from mribatch.scans.dicom.levels import Levels
from mribatch.scans.dicom.tables import Table, read_table

__all__ = ["COLOUR", "COMPUTED", "HEADER", "LUT", "Grey", "computed_shades", "rescaled", "shaded"]

HEADER, LUT, COMPUTED, COLOUR = "header", "lut", "computed", "colour"

_MODALITY_TABLE, _INTERCEPT, _SLOPE, _TRANSFORMATION = 0x00283000, 0x00281052, 0x00281053, 0x00289145
_CENTER, _WIDTH, _FUNCTION, _VOI_TABLE, _FRAME_VOI = 0x00281050, 0x00281051, 0x00281056, 0x00283010, 0x00289132
_WHITE = 255
_LOW_PERCENT, _HIGH_PERCENT = 0.5, 99.5
_FEWEST_LEVELS = 4  # a window that shows fewer grey levels shows nothing
_MOST_SATURATED = 0.05 + (1 - _HIGH_PERCENT / 100)
"""A window may show 5% more of the pixels as white than percentiles would."""

_Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # values to 0…255


@dataclass(frozen=True)
class Grey:
    """Where a frame's transformations stand: in its functional groups, else in the object."""

    elements: Elements
    groups: FrameGroups
    frame: int
    is_signed: bool
    is_inverted: bool  # MONOCHROME1: the least value is white

    def places(self, group: int) -> Iterator[Elements]:
        yield from self.groups.candidates(self.frame, group)
        yield self.elements


def rescaled(levels: Levels, grey: Grey) -> Levels:
    """Apply the modality table, or slope and intercept. A slope of 0 and an empty table count as none."""
    for place in grey.places(_TRANSFORMATION):
        table = read_table(place.item(_MODALITY_TABLE), is_signed=grey.is_signed)
        if table is not None:
            return replace(levels, values=table.look_up(levels.values))
        slope, intercept = place.number(_SLOPE, "DS"), place.number(_INTERCEPT, "DS")
        if slope or (slope is None and intercept is not None):
            values = levels.values * (1.0 if slope is None else slope) + (intercept or 0.0)
            return replace(levels, values=values, shown=levels.shown & np.isfinite(values))
    return levels


def shaded(levels: Levels, grey: Grey, *, ignore_header: bool) -> tuple[NDArray[np.uint8], str]:
    """Return the shade of each level and the name of the window that gave it. Padding is black."""
    chosen = None if ignore_header else _header_curve(levels, grey)
    curve, name = chosen or (_percentile_curve(levels), COMPUTED)
    shades = _shades(curve, levels.values)
    if grey.is_inverted:
        shades = _WHITE - shades
    return np.where(levels.shown, shades, 0).astype(np.uint8), name


def computed_shades(levels: Levels) -> NDArray[np.uint8]:
    """Return the shade of each level by the percentiles of those that are shown. The others are black."""
    return np.where(levels.shown, _shades(_percentile_curve(levels), levels.values), 0).astype(np.uint8)


def _header_curve(levels: Levels, grey: Grey) -> tuple[_Curve, str] | None:
    """Return the curve of the VOI table, else of the first window; None where it would show too little."""
    for place in grey.places(_FRAME_VOI):
        table = read_table(place.item(_VOI_TABLE), is_signed=grey.is_signed)
        if table is not None and _shows_enough(_table_curve(table), levels):
            return _table_curve(table), LUT
        if (curve := _window_curve(place)) is not None:
            is_usable = _shows_enough(curve, levels) and not _saturates(curve, levels, is_inverted=grey.is_inverted)
            return (curve, HEADER) if is_usable else None
    return None


def _table_curve(table: Table) -> _Curve:
    return lambda values: table.look_up(values) * (_WHITE / ((1 << table.bits) - 1))


def _window_curve(place: Elements) -> _Curve | None:
    """Return the curve of the first window (C.11.2.1.2, C.11.2.1.3); None where there is none that can be."""
    center, width = place.number(_CENTER, "DS"), place.number(_WIDTH, "DS")
    if center is None or width is None or width <= 0:
        return None
    function = place.text(_FUNCTION).upper()
    if function == "SIGMOID":
        return lambda values: _WHITE / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return lambda values: ((values - center) / width + 0.5) * _WHITE
    span = width - 1
    if span <= 0:
        return lambda values: np.where(values <= center - 0.5, 0.0, float(_WHITE))
    return lambda values: ((values - (center - 0.5)) / span + 0.5) * _WHITE


def _percentile_curve(levels: Levels) -> _Curve:
    """Return the line from one percentile to the other; from the least to the greatest value where these are equal."""
    low, high = levels.percentile(_LOW_PERCENT), levels.percentile(_HIGH_PERCENT)
    if not low < high:
        low, high = levels.percentile(0), levels.percentile(100)
    span = high - low
    if not math.isfinite(span):
        return lambda values: (values / 2 - low / 2) / (high / 2 - low / 2) * _WHITE
    return lambda values: (values - low) / span * _WHITE


def _shades(curve: _Curve, values: NDArray[np.float64]) -> NDArray[np.uint8]:
    with np.errstate(all="ignore"):  # of what is not finite, and is not shown
        return np.rint(np.clip(np.nan_to_num(curve(values)), 0, _WHITE)).astype(np.uint8)


def _shows_enough(curve: _Curve, levels: Levels) -> bool:
    shades = _shades(curve, levels.values[levels.shown])
    return int(np.count_nonzero(np.bincount(shades))) >= _FEWEST_LEVELS


def _saturates(curve: _Curve, levels: Levels, *, is_inverted: bool) -> bool:
    """Return whether too many pixels are beyond what the window shows as white."""
    with np.errstate(all="ignore"):
        shades = curve(levels.values)
        beyond = shades < 0 if is_inverted else shades > _WHITE
    return levels.share(beyond) > _MOST_SATURATED
