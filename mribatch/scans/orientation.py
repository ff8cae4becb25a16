"""Read the orientation of a picture from EXIF or XMP blocks, ignoring damaged blocks."""

import re
from contextlib import suppress

from PIL import Image
from PIL.ExifTags import Base

from mribatch.scans.pillow import HOSTILE, hush

__all__ = ["orientation"]

_XMP = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")


def orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation, 1 to 8, from EXIF (CIPA DC-008, tag 0x0112) or else from XMP; 1 if neither has one."""
    stored = None
    if exif:
        hush()
        block = Image.Exif()
        with suppress(*HOSTILE):  # a damaged block does not make the pixels unusable
            block.load(exif)
            stored = block.get(Base.Orientation)
    if not isinstance(stored, int):
        match = _XMP.search(xmp)
        stored = int(match[1]) if match else 1
    return stored if 1 <= stored <= 8 else 1
