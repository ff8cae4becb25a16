"""Decode JPEG, PNG, TIFF and BMP into one frame: 8-bit RGB, upright, stretched to a square.

This is ImageNet's preprocessing, as used by the reference models: the aspect ratio is not kept. Embedded colour
profiles are not applied.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mribatch.scans.bmp import bmp_picture
from mribatch.scans.frames import Frame
from mribatch.scans.jpeg import jpeg_picture
from mribatch.scans.limits import ImageSpec
from mribatch.scans.pictures import Picture, displayed_size, upright_strips
from mribatch.scans.png import png_picture
from mribatch.scans.reading import Reading
from mribatch.scans.tiff import tiff_picture
from mribatch.schema import Status

__all__ = ["digest_and_square", "raster_frame"]

_READERS: dict[str, Callable[[bytes, ImageSpec], Picture]] = {
    "BMP": bmp_picture,
    "JPEG": jpeg_picture,
    "PNG": png_picture,
    "TIFF": tiff_picture,
}


def raster_frame(data: bytes, name: str, content_sha256: str, spec: ImageSpec, reading: Reading) -> Frame:
    """Return the picture in `data`, a file of the format `name`. Raises RejectionError if there is none.

    A file that is cut after its last pixel is complete. Unsigned grey of up to 8 bits is scaled by the range of its
    bits. All other grey (signed, deeper, float) is scaled to 0…255 from its own least to its greatest finite value and
    never clipped. A constant picture becomes 0, and NaN and infinities count as the least value. Colour of 9 to 16 bits
    keeps its high byte; signed, deeper and floating-point colour is scaled like grey, all channels alike. Alpha is
    composed on black, and hidden pixels do not count in the range.
    """
    picture = _READERS[name](data, spec)
    pixels_sha256, pixels = digest_and_square(picture, spec.side_px, reading)
    width, height = displayed_size(picture)
    return Frame(
        status=Status.OK,
        content_sha256=content_sha256,
        format=name,
        width_px=width,
        height_px=height,
        pixels_sha256=pixels_sha256,
        pixels=pixels,
    )


def digest_and_square(picture: Picture, side_px: int, reading: Reading) -> tuple[str | None, NDArray[np.uint8]]:
    """Return the digest of a picture's shape and pixels, if it is read, and the picture stretched to a square, in RGB.

    Pillow widens its bicubic kernel when it shrinks an image, so large scans do not alias. It resamples rows, then
    columns; resampling the rows strip by strip gives the same bytes. It resamples each channel by itself, so one of grey
    stands for all three.
    """
    width, height = displayed_size(picture)
    digest = hashlib.sha256(b"%dx%dx3:" % (width, height)) if reading.digests_pixels else None
    narrow, top = Image.new("RGB", (side_px, height)), 0
    for strip in upright_strips(picture):
        if digest is not None:
            digest.update(strip.convert("RGB").tobytes())
        strip = _resized(strip, side_px, strip.height)
        if strip.height == height:
            narrow = strip
            break
        narrow.paste(strip, (0, top))
        top += strip.height
    square = _resized(narrow, side_px, side_px).convert("RGB")
    return digest.hexdigest() if digest else None, np.asarray(square)


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
