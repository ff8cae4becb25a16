"""The orientation in which a picture is displayed, from EXIF or XMP blocks. Damaged blocks count as none."""

import re

from PIL import Image
from PIL.ExifTags import Base

from mribatch.scans.pillow import HOSTILE, hush

__all__ = ["orientation"]

_XMP = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")


def orientation(exif: bytes, xmp: bytes) -> int:
    """The orientation, 1 to 8, by EXIF (CIPA DC-008, tag 0x0112) or else by XMP; 1 where neither gives one."""
    stored = _exif_orientation(exif) if exif else None
    if stored is None and (found := _XMP.search(xmp)):
        stored = int(found[1])
    return stored if stored is not None and 1 <= stored <= 8 else 1


def _exif_orientation(exif: bytes) -> int | None:
    hush()
    block = Image.Exif()
    try:
        block.load(exif)
        stored = block.get(Base.Orientation)
    except HOSTILE:  # beside pixels that are sound
        return None
    return stored if isinstance(stored, int) else None
