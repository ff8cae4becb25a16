"""The bytes of a DICOM file as its header is read: where the reading stands, and how much more of it there may be."""

import io
from collections.abc import Callable

__all__ = ["HEADER_READS", "Source", "Stop"]

HEADER_READS = 200_000
"""About 2 s. A header takes some hundreds of reads; a million empty elements would take half a minute."""
_ELEMENT_START = 8  # bytes of a tag and its length

Stop = Callable[[int, str | None, int], bool]  # tag, representation and length of an element: whether to stop before it


class Source(io.BytesIO):
    """The bytes of a file. Notes when more is asked for than there is, and when elements are too many to read."""

    def __init__(self, data: bytes, budget: int = HEADER_READS) -> None:
        super().__init__(data)
        self.data = data
        self.is_short = False
        self.budget = budget  # of reads; an element takes one to three

    @property
    def is_crowded(self) -> bool:
        return self.budget < 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.spend(1)
        chunk = super().read(size)
        if size is not None and len(chunk) < size and (size != _ELEMENT_START or chunk.strip(b"\0")):
            self.is_short = True  # nothing, or padding, where an element would begin is a clean end
        return chunk

    def spend(self, reads: int) -> None:
        """Count reads. Raises ValueError if they are too many."""
        self.budget -= reads
        if self.budget < 0:
            raise ValueError

    def peek(self, position: int, size: int) -> bytes:
        """Return bytes at a position, and stay where the source stands."""
        return self.data[position : position + size]
