"""Read PNG files with Pillow, from the chunks that matter to their pixels."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mribatch.scans.formats import RejectionError
from mribatch.scans.limits import ImageSpec, check_memory, check_size
from mribatch.scans.orientation import orientation
from mribatch.scans.pictures import ArrayPicture, Picture, on_black
from mribatch.scans.pillow import HOSTILE, PillowPicture, hush
from mribatch.scans.png_chunks import ChunkReader, PngChunks, read_chunks
from mribatch.scans.window import Window
from mribatch.schema import Reason

__all__ = ["png_picture"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _GREY_ALPHA, _RGBA = 0, 4, 6  # colour types
_STORED_BYTES = {_GREY: 2, 3: 1}  # bytes of a pixel by colour type (deep grey, palette); 4 for all others
_BLOCK_PIXELS = 1_000_000  # deep grey pixels scaled at once
_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))

_Block = tuple[slice, NDArray[np.uint16], NDArray[np.uint8] | None]  # rows, values, alpha


def png_picture(data: bytes, spec: ImageSpec) -> Picture:
    """Return the picture of a PNG file. Raises RejectionError."""
    png = read_chunks(data)
    if not png.header:
        raise _damaged(data)
    check_size(png.width, png.height, spec)
    if png.is_animated:
        raise RejectionError(Reason.MULTIPLE_FRAMES, "the file holds more than one picture")
    is_deep = png.bits == 16 and png.colour_type in (_GREY, _GREY_ALPHA)
    check_memory(len(data), (_STORED_BYTES.get(png.colour_type, 4) + is_deep) * png.width * png.height, spec)
    try:
        image = _load(png, is_deep)
        turn = orientation(png.exif, png.xmp)
        return ArrayPicture(_windowed(image), turn) if is_deep else PillowPicture(image, turn)
    except HOSTILE as err:
        raise _damaged(data) from err


def _damaged(data: bytes) -> RejectionError:
    if b"IEND" not in data:
        return RejectionError(Reason.TRUNCATED, "the PNG file ends before its data is complete")
    return RejectionError(Reason.CORRUPT, "the PNG file is damaged or of an unsupported kind")


def _load(png: PngChunks, is_deep: bool) -> Image.Image:
    hush()
    header = _as_rgba(png.header) if is_deep and png.colour_type == _GREY_ALPHA else png.header
    reader = io.BufferedReader(ChunkReader([_SIGNATURE, header, *png.kept, _END]))
    image = Image.open(reader, formats=["PNG"])
    image.load()
    if image.mode == "P" and image.palette is None:
        raise RejectionError(Reason.CORRUPT, "the PNG file lacks its palette")
    return image


def _as_rgba(header: bytes) -> bytes:
    """Turn the header of 16-bit grey with alpha into one of 8-bit RGBA, of which Pillow reads all four bytes.

    Of 16-bit grey with alpha it reads the high bytes only. Rows, filters and compression are the same in both.
    """
    body = header[4:16] + bytes([8, _RGBA]) + header[18:21]
    return header[:4] + body + struct.pack(">I", zlib.crc32(body))


def _windowed(image: Image.Image) -> NDArray[np.uint8]:
    """Scale 16-bit grey to 8 bits, composed on black. Transparent pixels do not count in the range of the window."""
    window = Window()
    for _, values, alpha in _blocks(image):
        window.include(values, None if alpha is None else alpha > 0)
    pixels = np.empty((image.height, image.width), np.uint8)
    for rows, values, alpha in _blocks(image):
        pixels[rows] = window.shade(values) if alpha is None else on_black(window.shade(values), alpha)
    return pixels


def _blocks(image: Image.Image) -> Iterator[_Block]:
    step, transparent = max(1, _BLOCK_PIXELS // image.width), image.info.get("transparency")
    for top in range(0, image.height, step):
        rows = slice(top, min(top + step, image.height))
        stored = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
        if stored.ndim == 3:
            values, alphas = np.moveaxis(stored.view(">u2").astype(np.uint16), 2, 0)
            yield rows, values, np.maximum(alphas >> 8, alphas > 0).astype(np.uint8)
        elif isinstance(transparent, int):
            yield rows, stored, np.where(stored == transparent, 0, 255).astype(np.uint8)
        else:
            yield rows, stored, None
