"""The rules from stored values to grey of 8 bits, in plain NumPy and in their order: what the package is compared with.

Nothing of the package is used here, and nothing of pydicom but its data sets. See PS3.3, C.7.6.3, C.11.1 and C.11.2.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

__all__ = ["shown", "stored_frames"]

Values = NDArray[np.float64]
Curve = Callable[[Values], Values]  # to 0…255, and beyond where a window saturates

_FEWEST_LEVELS, _MOST_SATURATED = 4, 0.05
_PERCENTILES = (0.5, 99.5)


def stored_frames(dataset: Dataset) -> NDArray[Any]:
    """Return the native grey values of a data set that has not been written, (frames, rows, columns). Excess is left out."""
    kind = "i" if dataset.PixelRepresentation else "u"
    values = np.frombuffer(dataset.PixelData, f"<{kind}{dataset.BitsAllocated // 8}")
    shape = (max(1, int(dataset.get("NumberOfFrames") or 1)), dataset.Rows, dataset.Columns)
    return values[: math.prod(shape)].reshape(shape)


def shown(dataset: Dataset, stored: NDArray[Any], frame: int = 0) -> tuple[NDArray[np.uint8], str]:
    """Return the right grey of a frame, (rows, columns), and the kind of its window: header, lut or computed."""
    values = _meant(stored, dataset)
    is_padding = _padding(values, dataset)
    values = _rescaled(values, list(_places(dataset, frame, "PixelValueTransformationSequence")))
    is_inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    visible = values[~is_padding]
    places = list(_places(dataset, frame, "FrameVOILUTSequence"))
    curve, window = _header_curve(places, visible) or (_percentile_curve(visible), "computed")
    shades = np.clip(curve(values), 0, 255)
    shades = 255 - shades if is_inverted else shades
    return np.where(is_padding, 0, np.rint(shades)).astype(np.uint8), window


def _meant(stored: NDArray[Any], dataset: Dataset) -> Values:
    """Remove the bits above Bits Stored and extend the sign."""
    bits = int(dataset.BitsStored)
    values = stored.astype(np.int64) & ((1 << bits) - 1)
    if dataset.PixelRepresentation:
        values = np.where(values >> (bits - 1) == 1, values - (1 << bits), values)
    return values.astype(np.float64)


def _padding(values: Values, dataset: Dataset) -> NDArray[np.bool_]:
    if "PixelPaddingValue" not in dataset:
        return np.zeros(values.shape, bool)
    first = float(dataset.PixelPaddingValue)
    last = float(dataset.get("PixelPaddingRangeLimit", first))
    return (values >= min(first, last)) & (values <= max(first, last))


def _places(dataset: Dataset, frame: int, group: str) -> Iterator[Dataset]:
    """Yield where a transformation may stand: in the group of the frame, in that of all frames, in the object."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in (*per_frame[frame : frame + 1], *shared):
        yield from groups.get(group) or []
    yield dataset


def _rescaled(values: Values, places: list[Dataset]) -> Values:
    """Apply the first modality table, or slope and intercept, that is one."""
    for place in places:
        if (table := _table(place, "ModalityLUTSequence")) is not None:
            first, entries, _ = table
            return _looked_up(values, first, entries)
        if slope := _number(place, "RescaleSlope"):
            return values * slope + (_number(place, "RescaleIntercept") or 0.0)
    return values


def _header_curve(places: list[Dataset], visible: Values) -> tuple[Curve, str] | None:
    """Return the first VOI table, else the first window if it shows enough."""
    for place in places:
        if (table := _table(place, "VOILUTSequence")) is not None:
            return _table_curve(*table), "lut"
        center, width = _number(place, "WindowCenter"), _number(place, "WindowWidth")
        if center is not None and width is not None:
            curve = _window_curve(place, center, width)
            return (curve, "header") if width > 0 and _shows_enough(curve(visible)) else None
    return None


def _table_curve(first: int, entries: Values, bits: int) -> Curve:
    return lambda values: _looked_up(values, first, entries) * 255 / (2**bits - 1)


def _window_curve(place: Dataset, center: float, width: float) -> Curve:
    match place.get("VOILUTFunction", "LINEAR"):
        case "SIGMOID":
            return lambda values: 255 / (1 + np.exp(-4 * (values - center) / width))
        case "LINEAR_EXACT":
            return lambda values: ((values - center) / width + 0.5) * 255
        case _:
            span = max(width - 1, 1e-9)
            return lambda values: ((values - (center - 0.5)) / span + 0.5) * 255


def _shows_enough(shades: Values) -> bool:
    levels = len(np.unique(np.rint(np.clip(shades, 0, 255))))
    return levels >= _FEWEST_LEVELS and (shades > 255).mean() <= _MOST_SATURATED


def _percentile_curve(visible: Values) -> Curve:
    low, high = np.percentile(visible, _PERCENTILES)
    return lambda values: (values - low) / (high - low) * 255


def _table(place: Dataset, name: str) -> tuple[int, Values, int] | None:
    """Return a table's first value, its entries and their bits; None where it has no entries."""
    for item in place.get(name) or []:
        count, first, bits = item.get("LUTDescriptor") or (0, 0, 0)
        if count and item.LUTData:
            return int(first), np.frombuffer(item.LUTData, "<u2").astype(np.float64), int(bits)
    return None


def _looked_up(values: Values, first: int, entries: Values) -> Values:
    return np.take(entries, np.clip(values - first, 0, len(entries) - 1).astype(int))


def _number(place: Dataset, name: str) -> float | None:
    """Return the first value of an element; None where it is missing or no finite number."""
    value = place.get(name)
    first = value if isinstance(value, str | float | int) or value is None else value[0]
    try:
        number = float(first if first is not None else "nan")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
