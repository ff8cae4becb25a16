"""Define the result of decoding: a frame of checked pixels, or the reason why there is none."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mribatch.schema import Reason, Status

__all__ = ["Frame"]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a file, or why there is none. `detail` is safe to report: no path, no header text."""

    status: Status
    reason: Reason | None = None
    detail: str | None = None
    content_sha256: str | None = None  # of the file's bytes
    format: str | None = None  # JPEG, PNG, TIFF or BMP; None if the format is not supported
    width_px: int | None = None  # as displayed, after EXIF orientation; None unless ok, as are all fields below
    height_px: int | None = None
    pixels_sha256: str | None = None  # of shape and RGB pixels before resizing: equal for copies of one image
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """(side, side, 3) uint8 RGB, C-contiguous, read-only."""
