"""Read the directories of a TIFF (TIFF 6.0 and BigTIFF), within limits, and choose the main one."""

import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["Directory", "Tag", "main_directory"]


class Tag:
    """The tags that are used, by their names in the standard."""

    NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
    FILL_ORDER, DESCRIPTION, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP = 266, 270, 273, 274, 277, 278
    STRIP_COUNTS, PLANAR, PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_LENGTH = 279, 284, 317, 320, 322, 323
    TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 324, 325, 330, 332, 338, 339
    JPEG_TABLES, YCBCR_SUBSAMPLING, DEPTH, STACK_PLANES = 347, 530, 32997, 33629


_USED_TAGS = {value for name, value in vars(Tag).items() if name.isupper()}
_DTYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 7: "u1", 13: "u4", 16: "u8", 18: "u8"}  # NumPy's, by field type
_DTYPES |= {6: "i1", 8: "i2", 9: "i4", 17: "i8"}
_DTYPES |= {5: "u4", 10: "i4"}  # rationals, as pairs: only their count is used
_MOST_ENTRIES = 4096  # of a directory
_MOST_DIRECTORIES = 1024  # more pictures than that are a stack
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_MASK_COLOURS = 4  # PhotometricInterpretation of a transparency mask
_IMAGEJ_FRAMES = re.compile(rb"ImageJ=[^\0]*?\nimages=([0-9]{1,9})\b", re.DOTALL)
_SHAPE = re.compile(rb'\{"shape": \[([0-9, ]{1,99})\][^\0]{0,200}"truncated": true')


@dataclass(frozen=True)
class Directory:
    """The values of one directory, by tag."""

    byte_order: Literal["<", ">"]
    values: dict[int, NDArray[np.generic]]
    next_offset: int

    def number(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        values = self.values.get(tag)
        return default if values is None or not values.size else int(values[0])

    def numbers(self, tag: int) -> list[int]:
        """Return up to 64 values of a tag; none if it is absent."""
        values = self.values.get(tag)
        return [] if values is None else [int(value) for value in values[:64]]

    def raw(self, tag: int) -> bytes:
        """Return the values of a tag as bytes; none if it is absent."""
        values = self.values.get(tag)
        return b"" if values is None else values.tobytes()

    @property
    def size(self) -> tuple[int, int]:
        return self.number(Tag.WIDTH, 0), self.number(Tag.LENGTH, 0)

    @property
    def is_reduced(self) -> bool:
        return bool(self.number(Tag.NEW_SUBFILE_TYPE, 0) & _REDUCED) or self.number(Tag.SUBFILE_TYPE, 0) == 2

    @property
    def is_mask(self) -> bool:
        is_marked = bool(self.number(Tag.NEW_SUBFILE_TYPE, 0) & _MASK)
        return is_marked or self.number(Tag.PHOTOMETRIC, 0) == _MASK_COLOURS

    @property
    def is_stack(self) -> bool:
        """Whether this directory describes several pictures, as some microscopy programs write them."""
        description = self.raw(Tag.DESCRIPTION)[:4096]
        images = _IMAGEJ_FRAMES.match(description)
        shape = _SHAPE.match(description)
        frames = [self.number(Tag.DEPTH, 1), 1 if images is None else int(images[1])]
        frames.append(len(self.values.get(Tag.STACK_PLANES, ())) // 2)
        if max(frames) > 1 or shape is None:
            return max(frames) > 1
        array_values = math.prod(map(int, re.findall(rb"[0-9]+", shape[1])))
        return array_values > math.prod(self.size) * self.number(Tag.SAMPLES, 1)


def main_directory(data: bytes) -> Directory:
    """Return the directory of the main picture of a TIFF file, ignoring thumbnails, pyramid levels and masks.

    Raises RejectionError, also for several pictures of similar size.
    """
    reader = _Reader(data)
    chain = list(reader.chain(reader.first_offset))
    candidates = [page for page in chain if not (page.is_reduced or page.is_mask)]
    if not candidates:  # a thumbnail may come first, with the picture below it
        below = [page for parent in chain for page in reader.below(parent)]
        candidates = [page for page in below if not (page.is_reduced or page.is_mask)]
    candidates = candidates or [page for page in chain if not page.is_mask]
    if not candidates:
        raise RejectionError(Reason.CORRUPT, "the TIFF file holds no picture")
    main = max(candidates, key=lambda page: page.size[0] * page.size[1])
    width, height = (side // 2 + 1 for side in main.size)  # of a thumbnail at most; pages of a stack have one size
    others = [page.size for page in candidates if page is not main]
    if main.is_stack or any(size[0] > width or size[1] > height for size in others):
        raise RejectionError(Reason.MULTIPLE_FRAMES, "the file holds more than one picture")
    return main


class _Reader:
    """Read each directory once, and never beyond the end of the file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order: Literal["<", ">"] = "<" if data.startswith(b"II") else ">"
        self._is_big = data[2:4] in (b"+\0", b"\0+")
        self._visited: set[int] = set()
        (self.first_offset,) = self._unpack("Q", 8) if self._is_big else self._unpack("L", 4)

    def chain(self, offset: int) -> Iterator[Directory]:
        """Yield a directory and those that follow it."""
        while offset:
            if offset in self._visited:
                raise RejectionError(Reason.CORRUPT, "the directories of the TIFF file form a loop")
            if len(self._visited) == _MOST_DIRECTORIES:
                raise RejectionError(Reason.MULTIPLE_FRAMES, f"the file holds more than {_MOST_DIRECTORIES} pictures")
            self._visited.add(offset)
            page = self._directory(offset)
            yield page
            offset = page.next_offset

    def below(self, parent: Directory) -> Iterable[Directory]:
        """Yield the directories below a directory (SubIFDs)."""
        for offset in parent.numbers(Tag.SUB_IFDS):
            yield from self.chain(offset)

    def _directory(self, offset: int) -> Directory:
        count_format, count_bytes, entry_bytes = ("Q", 8, 20) if self._is_big else ("H", 2, 12)
        (entries,) = self._unpack(count_format, offset)
        start = offset + count_bytes
        end = start + entries * entry_bytes
        if entries > _MOST_ENTRIES:
            raise RejectionError(Reason.CORRUPT, "a directory of the TIFF file has too many entries")
        if end > len(self._data):
            raise _truncated()
        offsets = range(start, end, entry_bytes)
        values = dict(self._entry(at) for at in offsets if self._unpack("H", at)[0] in _USED_TAGS)
        following = self._data[end : end + (8 if self._is_big else 4)]  # some writers omit it at the end of the file
        return Directory(self._order, values, int.from_bytes(following, "little" if self._order == "<" else "big"))

    def _entry(self, at: int) -> tuple[int, NDArray[np.generic]]:
        """Return the tag and the values of an entry."""
        tag, kind, count = self._unpack("HHQ" if self._is_big else "HHL", at)
        dtype = np.dtype(_DTYPES.get(kind, "u1")).newbyteorder(self._order)
        if kind in (5, 10):
            count *= 2
        inline, value_at = (8, at + 12) if self._is_big else (4, at + 8)
        if kind not in _DTYPES:
            count = 0
        elif count * dtype.itemsize > inline:
            (value_at,) = self._unpack("Q" if self._is_big else "L", value_at)
        if value_at + count * dtype.itemsize > len(self._data):
            raise _truncated()
        return tag, np.frombuffer(self._data, dtype, count, value_at) if count else np.empty(0, dtype)

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self._order + form, self._data, offset)
        except (struct.error, OverflowError):
            raise _truncated() from None


def _truncated() -> RejectionError:
    return RejectionError(Reason.TRUNCATED, "the TIFF file ends before its data is complete")
