"""Colour frames to RGB of 8 bits: palettes, YBR, and RGB of up to 16 bits by its high byte."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mribatch.scans.dicom.elements import Elements
from mribatch.scans.dicom.layout import Layout
from mribatch.scans.dicom.samples import Samples
from mribatch.scans.dicom.tables import packed
from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["rgb_of"]

_DESCRIPTORS, _TABLES, _SEGMENTED = 0x00281101, 0x00281201, 0x00281221  # red; green and blue follow
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2
_MOST_ENTRIES = 1 << 16


def rgb_of(samples: Samples, layout: Layout, elements: Elements) -> NDArray[np.uint8]:
    """Return a colour frame as (rows, columns, 3) uint8. Raises RejectionError for a palette that is damaged."""
    bits = samples.bits or layout.stored
    if layout.photometric == "PALETTE COLOR":
        return _through_palette(_unsigned(samples.values, bits), elements)
    eight = _high_bits(_unsigned(samples.values, bits), bits)
    if layout.photometric == "RGB" or samples.is_rgb:
        return np.ascontiguousarray(eight)
    return np.asarray(Image.fromarray(np.ascontiguousarray(eight), "YCbCr").convert("RGB"))


def _unsigned(values: NDArray[np.generic], bits: int) -> NDArray[np.int64]:
    wide = values.astype(np.int64)
    wide &= (1 << bits) - 1
    return wide


def _high_bits(values: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    if bits >= 8:
        return np.right_shift(values, bits - 8).astype(np.uint8)
    return np.rint(np.divide(values * 255, (1 << bits) - 1)).astype(np.uint8)


def _through_palette(values: NDArray[np.int64], elements: Elements) -> NDArray[np.uint8]:
    channels = []
    for channel in range(3):
        descriptor = [int(value) for value in elements.numbers(_DESCRIPTORS + channel, "US")]
        if len(descriptor) < 3:
            raise _unusable()
        table = _palette(elements, channel, descriptor)
        place = np.clip(values - descriptor[1], 0, len(table) - 1)
        channels.append(table[place])
    return np.dstack(channels)


def _palette(elements: Elements, channel: int, descriptor: list[int]) -> NDArray[np.uint8]:
    """Return the entries of one colour as 8 bits."""
    count, bits = descriptor[0] or _MOST_ENTRIES, descriptor[2]
    is_little = elements.is_little_endian
    if data := elements.content(_TABLES + channel):
        entries = packed(data, count, bits, is_little_endian=is_little)
    else:
        segments = elements.content(_SEGMENTED + channel)
        entries = _expanded(packed(segments, len(segments), bits, is_little_endian=is_little), count, bits)
    if not entries.size:
        raise _unusable()
    if bits > 8:
        return (entries >> 8).astype(np.uint8)
    deepest = int(entries.max()) > 0xFF
    return (entries >> 8 if deepest else entries).astype(np.uint8)


def _expanded(segments: NDArray[np.unsignedinteger], count: int, bits: int) -> NDArray[np.uint16]:
    """Expand a segmented table (PS3.3, C.7.9.2). Raises RejectionError."""
    codes, entries = segments.astype(int).tolist(), list[int]()
    try:
        _expand(codes, 0, len(codes), entries, bits)
    except (IndexError, ZeroDivisionError):
        raise _unusable() from None
    return np.array(entries[:count], np.uint16)


def _expand(codes: list[int], position: int, end: int, entries: list[int], bits: int, limit: int | None = None) -> None:
    """Append the entries of `limit` segments, or of all up to `end`."""
    while position < end and (limit is None or limit > 0) and len(entries) <= _MOST_ENTRIES:
        kind, length = codes[position], codes[position + 1]
        if kind == _DISCRETE:
            entries += codes[position + 2 : position + 2 + length]
            position += 2 + length
        elif kind == _LINEAR:
            first, last = entries[-1], codes[position + 2]
            entries += [round(first + (last - first) * step / length) for step in range(1, length + 1)]
            position += 3
        elif kind == _INDIRECT and limit is None:
            low, high = codes[position + 2], codes[position + 3]
            offset = low | high << (8 if bits <= 8 else 16)
            _expand(codes, offset, end, entries, bits, limit=length)
            position += 4
        else:
            raise IndexError
        limit = None if limit is None else limit - 1


def _unusable() -> RejectionError:
    return RejectionError(Reason.CORRUPT, "the palette of the DICOM file is missing or damaged")
