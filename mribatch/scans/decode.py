"""Decode the bytes of one picture file into model input. Pure functions: no Ray, no TensorFlow, no I/O, no DICOM.

The bytes alone decide what a file is; names and extensions are never seen. A picture is decoded in full, set
upright by its orientation, brought to 8-bit RGB and stretched to a square (ImageNet's preprocessing, as the
reference models had it: the aspect ratio is not kept). Embedded colour profiles are not applied.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mribatch.scans.bmp import bmp_picture
from mribatch.scans.formats import RejectionError, sniffed
from mribatch.scans.jpeg import jpeg_picture
from mribatch.scans.limits import MAX_BYTES, MAX_MEMORY_BYTES, MAX_PIXELS, MIN_SIDE_PX, ImageSpec
from mribatch.scans.pictures import Picture, displayed_size, upright_strips
from mribatch.scans.png import png_picture
from mribatch.scans.tiff import tiff_picture
from mribatch.schema import Reason, Status

__all__ = ["MAX_BYTES", "MAX_MEMORY_BYTES", "MAX_PIXELS", "MIN_SIDE_PX", "Decoded", "ImageSpec", "decode"]

_READERS: dict[str, Callable[[bytes, ImageSpec], Picture]] = {
    "BMP": bmp_picture,
    "JPEG": jpeg_picture,
    "PNG": png_picture,
    "TIFF": tiff_picture,
}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One picture, or why there is none. `detail` is fit for a report: no path, no header text."""

    status: Status
    reason: Reason | None = None
    detail: str | None = None
    content_sha256: str | None = None  # of the file's bytes
    format: str | None = None  # JPEG, PNG, TIFF, BMP; None where the bytes are of none of them
    width_px: int | None = None  # as displayed, after EXIF orientation; None unless ok, as all that follows
    height_px: int | None = None
    pixels_sha256: str | None = None  # of shape and RGB pixels before resizing: equal for copies of one image
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """(side, side, 3) uint8 RGB, C-contiguous, read-only."""


def decode(data: bytes, spec: ImageSpec) -> Decoded:
    """The picture in `data` as (side, side, 3) uint8 RGB, or the reason why there is none.

    A file cut behind its last pixel is whole enough.
    No bytes make it raise; only the machine does (MemoryError). Any number of threads may call it.

    Grey of up to 8 bits, unsigned, is scaled by what the bits can hold. All other grey (signed, deeper, float) is
    windowed to 0…255 by its own least and greatest finite value and never clipped; a constant picture becomes 0, and
    NaN and infinities count as the least value. Colour of 9 to 16 bits keeps its high byte; signed, deeper and
    floating-point colour is windowed, all channels alike. Alpha is composed on black, and what it hides does not widen
    a window.
    """
    digest = hashlib.sha256(data).hexdigest()
    name: str | None = None
    try:
        name = sniffed(data, spec.max_bytes)
        picture = _READERS[name](data, spec)
        pixels_sha256, square = _digest_and_square(picture, spec.side_px)
    except RejectionError as fault:
        refused = Decoded(status=Status.REJECTED, content_sha256=digest, format=name)
        return replace(refused, reason=fault.reason, detail=fault.detail)
    width, height = displayed_size(picture)
    return Decoded(
        status=Status.OK,
        content_sha256=digest,
        format=name,
        width_px=width,
        height_px=height,
        pixels_sha256=pixels_sha256,
        pixels=np.asarray(square),
    )


def _digest_and_square(picture: Picture, side_px: int) -> tuple[str, Image.Image]:
    """The digest of a picture's shape and pixels, and the picture stretched to a square.

    Pillow's bicubic kernel widens as it shrinks, so large scans do not alias. It resamples rows, then columns; a picture
    in strips has its rows resampled strip by strip, which gives the same bytes.
    """
    width, height = displayed_size(picture)
    whole = hashlib.sha256(b"%dx%dx3:" % (width, height))
    tall, top = Image.new("RGB", (side_px, height)), 0
    for strip in upright_strips(picture):
        whole.update(strip.tobytes())
        if strip.height == height:
            return whole.hexdigest(), _resized(strip, side_px, side_px)
        tall.paste(_resized(strip, side_px, strip.height), (0, top))
        top += strip.height
    return whole.hexdigest(), _resized(tall, side_px, side_px)


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
