"""Split a PNG into its chunks (ISO/IEC 15948), and build a plain stream of those that matter to the pixels.

Ancillary chunks, such as text, profiles and times, are left out, whatever their size or damage. A wrong checksum in a
critical chunk rejects the file.
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
_MOST_CHUNKS = 1 << 20  # 8 GiB in chunks of 8 KiB, as common encoders write them
_MOST_TEXT_BYTES = 1 << 20  # of a compressed EXIF or XMP block


@dataclass
class PngChunks:
    """What the chunks declare. `kept` are slices of the file for the plain stream."""

    width: int = 0
    height: int = 0
    bits: int = 0
    colour_type: int = 0
    exif: bytes = b""
    xmp: bytes = b""
    header: bytes = b""  # IHDR; the other chunks that are kept follow it
    kept: list[memoryview] = field(default_factory=list)
    has_pixels: bool = False  # whether there is an IDAT chunk
    animation_frames: int = 0  # of an APNG
    leads_animation: bool = False  # whether the pixels are its first frame

    @property
    def is_animated(self) -> bool:
        return self.animation_frames > (1 if self.leads_animation else 0)


def read_chunks(data: bytes) -> PngChunks:
    """Read the chunks up to the last one, or to where the file ends or is damaged. Raises RejectionError."""
    png, view, position = PngChunks(), memoryview(data), len(_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        length, name = int.from_bytes(view[position : position + 4], "big"), data[position + 4 : position + 8]
        chunk = view[position : position + 12 + length]
        if not _NAME.fullmatch(name) or name == b"IEND":
            return png
        if len(chunk) < 12 + length:
            if name == b"IDAT":
                png.kept += _completed(chunk)  # it may contain the last pixel
            return png
        position += 12 + length
        if zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big"):
            _add(png, name, chunk)
        elif name[0:1].isupper():
            raise RejectionError(Reason.CORRUPT, "a checksum of the PNG file is wrong")
    raise RejectionError(Reason.CORRUPT, "the PNG file has too many chunks")


def _completed(cut: memoryview) -> list[memoryview]:
    """Return a chunk with the length that it has, as Pillow would ask for all the memory that it claims."""
    name_and_body = cut[4:]
    length = len(name_and_body) - len(b"IDAT")
    return [
        memoryview(struct.pack(">I", length)),
        name_and_body,
        memoryview(struct.pack(">I", zlib.crc32(name_and_body))),
    ]


def _add(png: PngChunks, name: bytes, chunk: memoryview) -> None:
    """Add what matters of a chunk."""
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
    """Add EXIF and XMP blocks, which some writers store as text."""
    keyword, _, text = body.partition(b"\0")
    if keyword == b"XML:com.adobe.xmp" and name == b"iTXt":
        is_compressed, rest = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
        png.xmp = _inflated(rest) if is_compressed else rest
    elif keyword == b"Raw profile type exif" and name != b"iTXt" and not png.exif:
        profile = _inflated(text[1:]) if name == b"zTXt" else text
        with suppress(ValueError):
            png.exif = bytes.fromhex(b"".join(profile.split(b"\n")[3:]).decode("ascii", "replace"))


def _inflated(data: bytes) -> bytes:
    """Return the inflated start of some data; nothing if it is damaged."""
    try:
        return zlib.decompressobj().decompress(data, _MOST_TEXT_BYTES)
    except zlib.error:
        return b""


class ChunkReader(io.RawIOBase):
    """A file made of parts, without copying them together."""

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
        start = self._position - self._starts[number]
        chunk = self._parts[number][start : start + len(buffer)]
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)
