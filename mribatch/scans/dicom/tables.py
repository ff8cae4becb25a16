"""Lookup tables of DICOM: modality, VOI and palette tables (PS3.3, C.7.6.3, C.11.1 and C.11.2)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mribatch.scans.dicom.elements import Elements

__all__ = ["Table", "packed", "read_table"]

_DESCRIPTOR, _DATA = 0x00283002, 0x00283006
_MOST_BITS = 16


@dataclass(frozen=True)
class Table:
    """Entries for the values from `first` on; values outside get the entry at that end."""

    first: int
    entries: NDArray[np.float64]
    bits: int

    def look_up(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        first = self.first
        if first >= 0x8000 and values.size and values.max() < first:  # stored as unsigned, meant as signed
            first -= 0x10000
        place = np.clip(np.nan_to_num(values) - first, 0, len(self.entries) - 1)
        return self.entries[np.floor(place).astype(np.intp)]


def read_table(item: Elements | None, *, is_signed: bool) -> Table | None:
    """Read the table of a sequence's item; None where there is none or it is empty."""
    if item is None:
        return None
    descriptor = [int(value) for value in item.numbers(_DESCRIPTOR, "US")]
    data = item.content(_DATA)
    if len(descriptor) < 3 or not data:
        return None
    first = descriptor[1]
    if is_signed and first >= 0x8000:
        first -= 0x10000
    entries = packed(data, descriptor[0] or 1 << 16, descriptor[2], is_little_endian=item.is_little_endian)
    if not entries.size:
        return None
    bits = max(min(descriptor[2], _MOST_BITS), int(entries.max()).bit_length(), 1)
    return Table(first, entries.astype(np.float64), bits)


def packed(data: bytes, count: int, bits: int, *, is_little_endian: bool) -> NDArray[np.unsignedinteger]:
    """Return the entries of a table, of 8 bits where they are packed so, else of 16."""
    if bits <= 8 and len(data) < 2 * count:
        return np.frombuffer(data, np.uint8)[:count]
    order = "<" if is_little_endian else ">"
    return np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")[:count]
