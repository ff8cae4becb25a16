"""Check the strips and tiles of a TIFF picture against its header, then decode them one at a time.

tifffile decodes each of them as a file of its own, with a new directory of about a dozen checked numbers. So it sees no
text, no vendor structures and no offsets. What it would silently pad (strips that are missing, empty or beyond the end)
is rejected beforehand. JPEG data inside TIFF is decoded like JPEG files.
"""

import io
import logging
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from mribatch.scans.formats import RejectionError
from mribatch.scans.jpeg import check_frame, sound_pixels
from mribatch.scans.jpeg_segments import read_segments
from mribatch.scans.tiff_directory import Directory, Tag
from mribatch.schema import Reason

__all__ = ["FLOAT", "SIGNED", "UNSIGNED", "Block", "Segments"]

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs the values of tags

Block = tuple[slice, slice, NDArray[Any]]  # rows, columns, and their values: (rows, columns, channels)

UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # SampleFormat
_BITS = {UNSIGNED: (*range(1, 17), 32, 64), SIGNED: (8, 16, 32, 64), FLOAT: (16, 32, 64)}
_RAW, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTANDARD = 1, 5, 7, 8, 32946, 32773, 34925, 50000
_COMPRESSIONS = (_RAW, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTANDARD)
_NO_PREDICTOR, _HORIZONTAL, _FLOATING_POINT = 1, 2, 3
_MOST_SEGMENTS = 1 << 20  # the largest picture has 400,000 of the smallest legal tiles
_MOST_SAMPLES = 64
_RAW_BYTES = 1 << 23  # an uncompressed strip is read in parts of this many bytes
_HELD_BYTES = 1 << 26  # up to this size, decoded segments are kept for a second pass; otherwise they are decoded twice
_WORK_COPIES = 4  # of a segment: decompressed, in native byte order, without its predictor, converted
# raised by tifffile and imagecodecs
_FAULTS = (ValueError, RuntimeError, TypeError, IndexError, OverflowError, struct.error)


class Segments:
    """The pixels of one directory. Raises RejectionError if they are incomplete or of an unsupported kind."""

    def __init__(self, data: bytes, page: Directory) -> None:
        self._data, self._page = data, page
        self.width, self.height = page.size
        self.samples = page.number(Tag.SAMPLES, 1)
        self.bits = (page.numbers(Tag.BITS) or [1])[0]
        self.sample_format = (page.numbers(Tag.SAMPLE_FORMAT) or [UNSIGNED])[0]
        self._compression = page.number(Tag.COMPRESSION, _RAW)
        self._predictor = page.number(Tag.PREDICTOR, _NO_PREDICTOR)
        self._check_kind()
        self._is_planar = page.number(Tag.PLANAR, 1) == 2 and self.samples > 1
        self._samples_together = 1 if self._is_planar else self.samples
        self._set_layout()
        self._decoders: dict[int, Callable[[memoryview, int], Any]] = {}
        self._held: list[Block] | None = None

    @property
    def is_jpeg(self) -> bool:
        return self._compression == _JPEG

    @property
    def memory_bytes(self) -> int:
        """The most memory that reading the blocks takes, apart from what is made of them."""
        values = min(self._rows, self._part_rows) * self._columns * self.samples
        held = self._decoded_bytes if self._decoded_bytes <= _HELD_BYTES else 0
        if self.is_jpeg:  # pixels, coefficients of 16 bits, and copies of the stream
            return 3 * values + 3 * int(self._counts.max()) + held
        return _WORK_COPIES * values * self._item_bytes + held

    def blocks(self, channels: Sequence[int], *, again: bool = False) -> Iterator[Block]:
        """Yield all pixels of some channels once. `again` announces a second pass over the same channels."""
        if self._held is not None:
            yield from self._held
            return
        held: list[Block] | None = [] if again and self._decoded_bytes <= _HELD_BYTES else None
        for block in self._read_blocks(channels):
            if held is not None:
                held.append(block)
            yield block
        self._held = held

    def _check_kind(self) -> None:
        differing = [tag for tag in (Tag.BITS, Tag.SAMPLE_FORMAT) if len(set(self._page.numbers(tag))) > 1]
        if not 1 <= self.samples <= _MOST_SAMPLES or differing:
            raise _unsupported("has channels that differ in kind, or too many of them")
        if self.bits not in _BITS.get(self.sample_format, ()):
            raise _unsupported("has values of an unsupported type")
        if self._compression not in _COMPRESSIONS:
            raise _unsupported("has an unsupported compression")
        is_whole = self.bits in (8, 16, 32, 64)
        allowed = {_NO_PREDICTOR}
        if self._compression != _RAW and is_whole:
            allowed.add(_FLOATING_POINT if self.sample_format == FLOAT else _HORIZONTAL)
        if self.is_jpeg and (self.bits, self.sample_format) != (8, UNSIGNED):
            raise _unsupported("contains JPEG data of an unsupported kind")
        if self._predictor not in allowed and not self.is_jpeg:
            raise _unsupported("has an unsupported predictor")

    def _set_layout(self) -> None:
        """Compute where each strip or tile is, and check that none is missing."""
        page = self._page
        is_tiled = Tag.TILE_WIDTH in page.values
        self._columns = page.number(Tag.TILE_WIDTH, 0) if is_tiled else self.width
        rows = page.number(Tag.TILE_LENGTH, 0) if is_tiled else page.number(Tag.ROWS_PER_STRIP, self.height)
        self._rows = rows if is_tiled else min(rows, self.height)
        if self._rows < 1 or self._columns < 1:
            raise _corrupt("has strips or tiles without pixels")
        self._is_tiled = is_tiled
        self._row_bytes = -(-self._columns * self._samples_together * self.bits // 8)
        self._item_bytes = 8 if self.bits > 32 else 4 if self.bits > 16 else 2 if self.bits > 8 else 1
        self._decoded_bytes = self.width * self.height * self.samples * self._item_bytes
        can_part = self._compression == _RAW and not is_tiled
        self._part_rows = max(1, _RAW_BYTES // self._row_bytes) if can_part else self._rows
        self._down, self._across = -(-self.height // self._rows), -(-self.width // self._columns)
        self._set_places(self._down * self._across * (self.samples if self._is_planar else 1))

    def _set_places(self, expected: int) -> None:
        offsets = self._page.values.get(Tag.TILE_OFFSETS if self._is_tiled else Tag.STRIP_OFFSETS)
        counts = self._page.values.get(Tag.TILE_COUNTS if self._is_tiled else Tag.STRIP_COUNTS)
        if expected > _MOST_SEGMENTS:
            raise _corrupt("has too many strips or tiles")
        if counts is None and self._compression == _RAW:
            counts = self._raw_counts(expected)
        if offsets is None or counts is None or min(len(offsets), len(counts)) < expected:
            raise _corrupt("has fewer strips than its size needs")
        self._offsets, self._counts = offsets[:expected].astype(np.uint64), counts[:expected].astype(np.uint64)
        if self._compression == _RAW:
            needed = self._raw_counts(expected)
            if (self._counts < needed).any():
                raise _corrupt("has strips that are too short")
            self._counts = needed
        size = np.uint64(len(self._data))
        if not self._counts.all():
            raise _corrupt("lacks strips")
        if (np.maximum(self._offsets, self._counts) > size).any() or (self._offsets + self._counts > size).any():
            raise RejectionError(Reason.TRUNCATED, "the TIFF file ends before its data is complete")

    def _raw_counts(self, expected: int) -> NDArray[np.uint64]:
        """Return the size in bytes of each uncompressed segment."""
        rows = np.full(expected, self._rows, np.uint64)
        if not self._is_tiled:
            rows[self._down - 1 :: self._down] = self.height - (self._down - 1) * self._rows
        return rows * np.uint64(self._row_bytes)

    def _read_blocks(self, channels: Sequence[int]) -> Iterator[Block]:
        for number in range(self._down * self._across):
            top, left = number // self._across * self._rows, number % self._across * self._columns
            bottom, right = min(top + self._rows, self.height), min(left + self._columns, self.width)
            for start in range(top, bottom, self._part_rows):
                end = min(start + self._part_rows, bottom)
                values = self._values(number, channels, start - top, end - top)
                yield slice(start, end), slice(left, right), values[: end - start, : right - left]

    def _values(self, number: int, channels: Sequence[int], first: int, last: int) -> NDArray[Any]:
        """Return some rows of a strip, or a complete tile."""
        if not self._is_planar:
            return self._decoded(number, first, last)[:, :, channels]
        of_plane = self._down * self._across
        planes = [self._decoded(plane * of_plane + number, first, last) for plane in channels]
        return np.concatenate(planes, axis=2)

    def _decoded(self, index: int, first: int, last: int) -> NDArray[Any]:
        """Return the rows of a segment, (rows, columns, interleaved samples)."""
        start, count = int(self._offsets[index]), int(self._counts[index])
        segment = memoryview(self._data)[start : start + count]
        try:
            if self.is_jpeg:
                return self._jpeg(bytes(segment), last)
            if self._is_tiled:
                return self._strip(segment, self._rows)
            if self._compression == _RAW:
                return self._strip(segment[first * self._row_bytes : last * self._row_bytes], last - first)
            if last < self._rows:
                with suppress(*_FAULTS):  # some writers pad the last strip to full height
                    return self._strip(segment, last)
            return self._strip(segment, self._rows)
        except _FAULTS as err:
            raise _corrupt("is damaged") from err

    def _strip(self, segment: memoryview, rows: int) -> NDArray[Any]:
        if rows not in self._decoders:
            file = io.BytesIO(self._file_of_one_strip(rows))
            self._decoders[rows] = tifffile.TiffFile(file).pages.first.decode
        values: NDArray[Any] = self._decoders[rows](segment, 0)[0][0]
        return values

    def _file_of_one_strip(self, rows: int) -> bytes:
        """Return the file that tifffile reads: a directory, without the strip itself."""
        fields = {
            Tag.WIDTH: self._columns,
            Tag.LENGTH: rows,
            Tag.BITS: self.bits,
            Tag.COMPRESSION: self._compression,
            Tag.PHOTOMETRIC: 1,
            Tag.FILL_ORDER: 2 if self._page.number(Tag.FILL_ORDER, 1) == 2 else 1,
            Tag.STRIP_OFFSETS: 8,
            Tag.SAMPLES: self._samples_together,
            Tag.ROWS_PER_STRIP: rows,
            Tag.STRIP_COUNTS: 1,
            Tag.PLANAR: 1,
            Tag.PREDICTOR: self._predictor,
            Tag.SAMPLE_FORMAT: self.sample_format,
        }
        order = self._page.byte_order
        entries = b"".join(struct.pack(order + "HHLL", tag, 4, 1, value) for tag, value in sorted(fields.items()))
        magic = b"II*\0" if order == "<" else b"MM\0*"
        return magic + struct.pack(order + "LH", 8, len(fields)) + entries + bytes(4)

    def _jpeg(self, segment: bytes, rows: int) -> NDArray[Any]:
        tables = self._page.raw(Tag.JPEG_TABLES)
        stream = tables.removesuffix(b"\xff\xd9") + segment[2:] if tables else segment
        jpeg = read_segments(stream)
        check_frame(jpeg)
        is_colour = self._page.number(Tag.PHOTOMETRIC, 0) == 6
        jpeg.has_jfif, jpeg.transform = False, 1 if is_colour and self._samples_together == 3 else 0
        fits = jpeg.width == self._columns and rows <= jpeg.height <= max(self._rows, rows)
        if not fits or len(jpeg.sampling) != self._samples_together:
            raise _corrupt("contains JPEG data of another size")
        return sound_pixels(jpeg, stream)


def _corrupt(fault: str) -> RejectionError:
    return RejectionError(Reason.CORRUPT, f"the TIFF file {fault}")


def _unsupported(fault: str) -> RejectionError:
    return RejectionError(Reason.UNSUPPORTED_FORMAT, f"the TIFF file {fault}")
