"""The plain elements of a data set, nearly all there are: of known representation and length, and all there.

pydicom takes several times as long for each. It reads those at which this reading stops: sequences and values of
undefined length, representations that no standard knows, character sets, and what is cut.
"""

import struct
from collections.abc import Callable
from functools import cache

from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from mribatch.scans.dicom.source import Source, Stop
from mribatch.scans.dicom.start import LONG_VRS, VRS, ByteOrder

__all__ = ["is_as_claimed", "read_plain"]

_UNDEFINED = 0xFFFFFFFF  # more than any file holds
_NOT_PLAIN = frozenset({0x00080005, 0xFFFEE00D})  # a character set, the end of an item
_SHORT_START, _LONG_START = 8, 12  # bytes before a value
_KNOWN = {vr: (vr.decode(), vr in LONG_VRS) for vr in VRS}

_Place = tuple[int, str | None, int, int]  # tag, representation, length and start of a value


def is_as_claimed(source: Source, order: ByteOrder) -> bool:
    """Return whether the element where the source stands begins as the order claims: with a representation or without."""
    first, second = source.peek(source.tell() + 4, 2).ljust(2, b"\0")
    return order.is_implicit != (0x40 < first < 0x5B and 0x40 < second < 0x5B)


def read_plain(source: Source, order: ByteOrder, stop: Stop) -> list[RawDataElement]:
    """Read elements from where the source stands, and leave it before the first that is not plain, or where to stop.

    Counts as many reads as pydicom would need. Raises ValueError where they are too many.
    """
    data, position, place = source.data, source.tell(), _placer(order)
    elements: list[RawDataElement] = []
    while position + _LONG_START <= len(data):
        tag, vr, length, start = place(data, position)
        if start + length > len(data) or tag in _NOT_PLAIN:
            break
        source.seek(start)
        if stop(tag, vr, length):
            break
        source.spend(1 + (start - position > _SHORT_START) + (length > 0))
        position = start + length
        value = data[start:position]
        elements.append(
            RawDataElement(BaseTag(tag), vr, length, value, start, order.is_implicit, order.is_little_endian)
        )
    source.seek(position)
    return elements


@cache
def _placer(order: ByteOrder) -> Callable[[bytes, int], _Place]:
    """Return what reads the start of an element at a position. The length of those not known is undefined."""
    sign = "<" if order.is_little_endian else ">"
    unpack_implicit = struct.Struct(f"{sign}HHL").unpack_from
    unpack_explicit = struct.Struct(f"{sign}HH2sH").unpack_from
    unpack_length = struct.Struct(f"{sign}L").unpack_from

    def implicit(data: bytes, position: int) -> _Place:
        group, element, length = unpack_implicit(data, position)
        return group << 16 | element, None, length, position + _SHORT_START

    def explicit(data: bytes, position: int) -> _Place:
        group, element, code, length = unpack_explicit(data, position)
        vr, is_long = _KNOWN.get(code, (None, False))
        if vr is None:
            return 0, None, _UNDEFINED, position
        if is_long:
            (length,) = unpack_length(data, position + _SHORT_START)
        return group << 16 | element, vr, length, position + (_LONG_START if is_long else _SHORT_START)

    return implicit if order.is_implicit else explicit
