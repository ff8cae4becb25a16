"""Define the result of decoding: a frame of checked pixels, or the reason why there is none."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mribatch.schema import Reason, Status

__all__ = ["PIECE_FRAMES", "Frame"]

PIECE_FRAMES = 32
"""Frames that are decoded and passed on together, so that a thousand need no more memory than these."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a scan, or why there is none. `detail` is safe to report: no path, no header text."""

    status: Status
    frame: int = 0
    frames: int = 1  # of the file or member
    name: str | None = None  # of the member of an archive; this and the next two are None for other files
    member: int | None = None  # its number in the archive
    members: int | None = None  # of the archive
    reason: Reason | None = None
    detail: str | None = None
    content_sha256: str | None = None  # of the file's or member's bytes
    format: str | None = None  # JPEG, PNG, TIFF, BMP, DICOM or NIfTI; None if the format is not supported
    width_px: int | None = None  # as displayed, after EXIF orientation; None unless ok
    height_px: int | None = None
    reading: str | None = None  # see `Reading`; None if the result depends on no setting
    kind: str | None = None  # this and what follows: of DICOM files and NIfTI volumes
    modality: str | None = None
    plane: str | None = None  # axial, coronal or sagittal
    slice_mm: float | None = None  # position along the normal of the slice
    window: str | None = None  # header, lut, computed or colour
    instance_key: str | None = None
    series_key: str | None = None
    study_key: str | None = None
    patient_key: str | None = None
    pixels_sha256: str | None = None  # of shape and RGB pixels before resizing: equal for copies of one image
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """(side, side, 3) uint8 RGB, C-contiguous, read-only."""
