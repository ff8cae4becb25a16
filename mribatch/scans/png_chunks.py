"""The chunks of a PNG (ISO/IEC 15948), and a plain stream of those that matter to its pixels. Nothing is decoded here.

Ancillary chunks do not reject a file: their text, profiles and times are left out, of whatever size and however damaged.
A wrong checksum of a chunk that holds pixels does.
"""

import io
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["ChunkReader", "PngChunks", "read_chunks"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NAME = re.compile(rb"[A-Za-z]{4}")
_MOST_CHUNKS = 1 << 20  # of 8 KiB each, as common encoders write them, 8 GiB
_MOST_TEXT_BYTES = 1 << 20  # of an EXIF or XMP block that is compressed


@dataclass
class PngChunks:
    """What the chunks say. `kept` are slices of the file, of which the plain stream is made."""

    width: int = 0
    height: int = 0
    bits: int = 0
    colour_type: int = 0
    exif: bytes = b""
    xmp: bytes = b""
    header: bytes = b""  # IHDR; the other chunks that are kept follow it
    kept: list[memoryview] = field(default_factory=list)
    has_pixels: bool = False  # those of an IDAT chunk
    animation_frames: int = 0  # of an APNG
    leads_animation: bool = False  # the pixels are a frame of it

    @property
    def is_animated(self) -> bool:
        return self.animation_frames > (1 if self.leads_animation else 0)


def read_chunks(data: bytes) -> PngChunks:
    """Walk through the chunks up to the end, or to where the file ends or is broken. Raises RejectionError."""
    png, view, position = PngChunks(), memoryview(data), len(_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        length, name = int.from_bytes(view[position : position + 4], "big"), data[position + 4 : position + 8]
        chunk = view[position : position + 12 + length]
        if not _NAME.fullmatch(name) or name == b"IEND":
            return png
        if len(chunk) < 12 + length:
            if name == b"IDAT":
                _add(png, name, chunk)  # its last pixel may be there
            return png
        position += 12 + length
        if zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big"):
            _add(png, name, chunk)
        elif name[0:1].isupper():
            raise RejectionError(Reason.CORRUPT, "a checksum of the PNG file is wrong")
    raise RejectionError(Reason.CORRUPT, "the PNG file has too many chunks")


def _add(png: PngChunks, name: bytes, chunk: memoryview) -> None:
    """Take what matters from a chunk."""
    body = chunk[8:-4]
    if name == b"IHDR" and len(body) == 13 and not png.header:
        png.header = bytes(chunk)
        png.width, png.height, png.bits, png.colour_type = struct.unpack(">IIBB", body[:10])
    elif name in (b"PLTE", b"tRNS", b"IDAT"):
        png.kept.append(chunk)
        png.has_pixels |= name == b"IDAT"
    elif name == b"eXIf":
        png.exif = b"Exif\0\0" + body
    elif name in (b"tEXt", b"zTXt", b"iTXt"):
        _add_text(png, name, bytes(body))
    elif name == b"acTL" and not png.has_pixels:
        png.animation_frames = int.from_bytes(body[:4], "big")
    elif name == b"fcTL" and not png.has_pixels:
        png.leads_animation = True


def _add_text(png: PngChunks, name: bytes, body: bytes) -> None:
    """Take EXIF and XMP blocks, which writers keep as text."""
    keyword, _, text = body.partition(b"\0")
    if keyword == b"XML:com.adobe.xmp" and name == b"iTXt":
        is_compressed, rest = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
        png.xmp = _inflated(rest) if is_compressed else rest
    elif keyword == b"Raw profile type exif" and name != b"iTXt" and not png.exif:
        profile = _inflated(text[1:]) if name == b"zTXt" else text
        with suppress(ValueError):
            png.exif = bytes.fromhex(b"".join(profile.split(b"\n")[3:]).decode("ascii", "replace"))


def _inflated(data: bytes) -> bytes:
    """As much as may be of interest; none where it is damaged."""
    try:
        return zlib.decompressobj().decompress(data, _MOST_TEXT_BYTES)
    except zlib.error:
        return b""


class ChunkReader(io.RawIOBase):
    """A file of parts that are not copied together."""

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self._parts = [memoryview(part) for part in parts]
        self._starts = [0, *accumulate(map(len, self._parts))]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        number = bisect_right(self._starts, self._position) - 1
        if number >= len(self._parts):
            return 0
        at = self._position - self._starts[number]
        chunk = self._parts[number][at : at + len(buffer)]
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)
