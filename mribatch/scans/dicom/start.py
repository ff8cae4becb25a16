"""How a DICOM file begins: its magic, or the first element of a bare data set. Loads no DICOM library."""

import struct
from dataclasses import dataclass

__all__ = ["LONG_VRS", "MAGIC", "PREAMBLE", "VRS", "ByteOrder", "first_order", "is_dicom"]

PREAMBLE = 128
MAGIC = b"DICM"
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # with four bytes of length after two of none
VRS = LONG_VRS | frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_FIRST_GROUPS = (0x0002, 0x0008)
_LAST_FIRST_ELEMENT, _LAST_SECOND_GROUP = 0x1FFF, 0x0010
_MOST_FIRST_BYTES = 1024  # the first element of a data set is short: a group length, a character set, a type


@dataclass(frozen=True)
class ByteOrder:
    """How elements are encoded."""

    is_implicit: bool
    is_little_endian: bool


def is_dicom(data: bytes) -> bool:
    """Return whether bytes are a DICOM file, by their magic or by their first element."""
    return data[PREAMBLE : PREAMBLE + 4] == MAGIC or data[:4] == MAGIC or first_order(data, 0) is not None


def first_order(data: bytes, start: int) -> ByteOrder | None:
    """Return the encoding of a bare data set by its first element; None where the bytes are no data set."""
    for is_little in (True, False):
        group, element = _tag(data, start, is_little=is_little)
        if group not in _FIRST_GROUPS or len(data) < start + 8 or element > _LAST_FIRST_ELEMENT:
            continue
        if data[start + 4 : start + 6] in VRS:
            return ByteOrder(False, is_little)
        length = int.from_bytes(data[start + 4 : start + 8], "little")
        if is_little and length <= _MOST_FIRST_BYTES and length % 2 == 0:
            follower = _tag(data, start + 8 + length, is_little=True)
            if (group, element) < follower and follower[0] <= _LAST_SECOND_GROUP:
                return ByteOrder(True, True)
    return None


def _tag(data: bytes, start: int, *, is_little: bool) -> tuple[int, int]:
    group, element = struct.unpack("<HH" if is_little else ">HH", data[start : start + 4].ljust(4, b"\0"))
    return group, element
