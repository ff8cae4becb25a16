"""Read BMP files with Pillow."""

import io

from PIL import Image

from mribatch.scans.formats import RejectionError
from mribatch.scans.limits import ImageSpec, check_memory, check_size
from mribatch.scans.pillow import HOSTILE, PillowPicture, hush
from mribatch.schema import Reason

__all__ = ["bmp_picture"]

_PIXEL_BYTES = 4  # in Pillow's memory


def bmp_picture(data: bytes, spec: ImageSpec) -> PillowPicture:
    """Return the picture of a BMP file. Raises RejectionError.

    Many writers declare an alpha channel and leave it 0, so alpha that is 0 everywhere is ignored.
    """
    hush()
    try:
        with Image.open(io.BytesIO(data), formats=["BMP"]) as image:
            check_size(*image.size, spec)
            check_memory(len(data), _PIXEL_BYTES * image.width * image.height, spec)
            image.load()
            clear = image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
            return PillowPicture(image, ignore_alpha=clear)
    except HOSTILE as err:
        if int.from_bytes(data[2:6], "little") > len(data):
            raise RejectionError(Reason.TRUNCATED, "the BMP file ends before its data is complete") from err
        raise RejectionError(Reason.CORRUPT, "the BMP file is damaged or of an unsupported kind") from err
