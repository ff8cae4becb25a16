"""Samples to stored values: unused bits removed, the sign extended, the values that are padding named."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.scans.dicom.elements import Elements
from mribatch.scans.dicom.layout import Layout
from mribatch.scans.dicom.samples import Samples

__all__ = ["padding_range", "stored_values"]

_PADDING, _PADDING_LIMIT = 0x00280120, 0x00280121


def stored_values(samples: Samples, layout: Layout) -> NDArray[np.generic]:
    """Return the values that Bits Stored and Pixel Representation stand for; floats as they are."""
    values = samples.values
    if values.dtype.kind == "f":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return _extended(values, layout)


def padding_range(elements: Elements, layout: Layout) -> tuple[float, float] | None:
    """Return the least and the greatest stored value that is padding; None where none is."""
    if layout.kind != "integer":
        return None
    ends = [elements.number(tag, "US") for tag in (_PADDING, _PADDING_LIMIT)]
    if ends[0] is None:
        return None
    stored = np.array([int(end) for end in ends if end is not None], np.int64)
    values = _extended(stored, layout).tolist()
    return float(min(values)), float(max(values))


def _extended(values: NDArray[np.generic], layout: Layout) -> NDArray[Any]:
    wide: NDArray[Any] = values.astype(np.int32 if layout.stored <= 16 else np.int64)
    wide &= (1 << layout.stored) - 1
    if layout.is_signed:
        sign = 1 << (layout.stored - 1)
        wide ^= sign
        wide -= sign
    return wide
