"""The frames of encapsulated pixel data (PS3.5, annex A.4), as ranges of the file's bytes. Nothing is decoded here."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mribatch.scans.dicom.elements import Elements
from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["Fragments", "read_fragments"]

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_MOST_FRAGMENTS = 1_000_000
_EXTENDED_OFFSETS = 0x7FE00001


@dataclass(frozen=True)
class Fragments:
    """The fragments of each frame, as (start, end) in the file."""

    data: bytes
    frames: list[list[tuple[int, int]]]

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, index: int) -> bytes:
        """Return the compressed bytes of a frame."""
        view = memoryview(self.data)
        return b"".join(view[start:end] for start, end in self.frames[index])


def read_fragments(
    data: bytes, start: int, elements: Elements, frames: int, begins: Callable[[bytes], bool]
) -> Fragments:
    """Find the frames that a header declares; more than these are left alone. `begins` knows the start of a frame.

    Raises RejectionError, TRUNCATED where the pixels end too early.
    """
    (table_start, table_end), *parts = _items(data, start)
    offsets = _offsets(data[table_start:table_end], elements)
    if len(parts) < frames:
        raise _truncated()
    if frames == 1:
        return Fragments(data, _by_starts(data, parts, begins)[:1])
    if len(parts) == frames:
        return Fragments(data, [[part] for part in parts])
    grouped = _by_offsets(parts, offsets, frames) or _by_starts(data, parts, begins)
    if len(grouped) < frames:
        raise _truncated()
    return Fragments(data, grouped[:frames])


def _items(data: bytes, position: int) -> list[tuple[int, int]]:
    """Return where the items of the pixel data are, the offset table first."""
    items: list[tuple[int, int]] = []
    while True:
        tag, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8
        if position > len(data):
            raise _truncated()
        if tag == _END:
            break
        if tag != _ITEM:
            raise RejectionError(Reason.CORRUPT, "the fragments of the DICOM pixels are damaged")
        if position + length > len(data):
            raise _truncated()
        items.append((position, position + length))
        position += length
        if len(items) > _MOST_FRAGMENTS:
            raise RejectionError(Reason.TOO_LARGE, f"more fragments of pixels than {_MOST_FRAGMENTS}")
    if len(items) < 2:
        raise _truncated()
    return items


def _offsets(table: bytes, elements: Elements) -> Sequence[int]:
    """Return where each frame begins, relative to the first fragment: by the extended or the basic table."""
    if extended := elements.content(_EXTENDED_OFFSETS):
        return struct.unpack_from(f"<{len(extended) // 8}Q", extended)
    return struct.unpack_from(f"<{len(table) // 4}I", table)


def _by_offsets(parts: list[tuple[int, int]], offsets: Sequence[int], frames: int) -> list[list[tuple[int, int]]]:
    """Group fragments by a table; an empty list where the table does not fit them."""
    origin = parts[0][0] - 8
    index = {start - 8 - origin: number for number, (start, _) in enumerate(parts)}
    firsts = [index.get(offset, -1) for offset in offsets]
    if len(firsts) != frames or -1 in firsts or sorted(set(firsts)) != firsts:
        return []
    ends = [*firsts[1:], len(parts)]
    return [parts[first:end] for first, end in zip(firsts, ends, strict=True)]


def _by_starts(
    data: bytes, parts: list[tuple[int, int]], begins: Callable[[bytes], bool]
) -> list[list[tuple[int, int]]]:
    """Group fragments by the start markers in them."""
    grouped: list[list[tuple[int, int]]] = []
    for part in parts:
        if not grouped or begins(data[part[0] : part[0] + 64]):
            grouped.append([])
        grouped[-1].append(part)
    return grouped


def _truncated() -> RejectionError:
    return RejectionError(Reason.TRUNCATED, "the DICOM file ends before its pixels do")
