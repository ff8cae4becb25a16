"""Set up Pillow for hostile bytes, list the exceptions that it raises on them, and wrap its images as pictures."""

import logging
import struct
import threading
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mribatch.scans.pictures import Box, is_grey

__all__ = ["HOSTILE", "PillowPicture", "hush"]

# Register the decoders now; otherwise threads would race to do so at the first open.
Image.preinit()
# Pillow's own limit is one number per process, and only warns. ImageSpec's limits are checked instead.
Image.MAX_IMAGE_PIXELS = None
# At DEBUG Pillow logs the value of every tag, and a tag may hold a patient's name.
logging.getLogger("PIL").setLevel(logging.CRITICAL)

HOSTILE = (  # what Pillow raises on hostile bytes, from its source and from tests with some 200,000 damaged files
    OSError,  # the usual one, and UnidentifiedImageError
    SyntaxError,  # broken structure, noticed after opening
    ValueError,  # impossible sizes and offsets; UnicodeDecodeError
    TypeError,  # a tag of an unexpected type
    IndexError,  # an empty chunk after the pixels
    OverflowError,  # a number too large for C
    struct.error,  # a short read
)
# Not MemoryError: the limits bound what a file may take, so a lack of memory is the machine's fault, not the scan's.

_hush_lock = threading.Lock()
_hush: list[object] = []  # the filter, once it is set


def hush() -> None:
    """Silence Pillow's warnings (odd EXIF, odd chunks), which would raise under `-W error`.

    `warnings.catch_warnings` would not do: it swaps the filters of the whole process, so threads would race.
    """
    if _hush and warnings.filters[:1] == _hush:
        return
    with _hush_lock:
        if not _hush or warnings.filters[:1] != _hush:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _hush[:] = warnings.filters[:1]


@dataclass(frozen=True)
class PillowPicture:
    """A loaded Pillow image of up to 8 bits per channel. Alpha is composed on black, unless it is ignored."""

    image: Image.Image
    orientation: int = 1
    ignore_alpha: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size

    def part(self, box: Box) -> Image.Image:
        image = self._opaque(self.image.crop(box))
        return image.getchannel(0) if image.mode == "RGB" and is_grey(np.asarray(image)) else image

    def _opaque(self, image: Image.Image) -> Image.Image:
        if self.ignore_alpha or not image.has_transparency_data:
            return image if image.mode == "L" else image.convert("RGB")
        clear = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(clear, mask=clear.getchannel("A"))
        return black
