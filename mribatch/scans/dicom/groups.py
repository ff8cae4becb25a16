"""The functional groups of an enhanced object: what its header says of one frame, or of all."""

from collections.abc import Iterator
from dataclasses import dataclass

from mribatch.scans.dicom.elements import Elements

__all__ = ["PER_FRAME", "SHARED", "FrameGroups"]

SHARED, PER_FRAME = 0x52009229, 0x52009230


@dataclass(frozen=True)
class FrameGroups:
    """Functional groups; none in a classic object."""

    shared: Elements | None
    frames: list[Elements]

    def item(self, frame: int, group: int) -> Elements | None:
        """Return a group of a frame, the frame's own before the shared one."""
        return next(self.candidates(frame, group), None)

    def candidates(self, frame: int, group: int) -> Iterator[Elements]:
        """Yield the items of a group that apply to a frame, the frame's own first."""
        own = self.frames[frame] if frame < len(self.frames) else None
        for groups in (own, self.shared):
            if groups is not None and (item := groups.item(group)) is not None:
                yield item

    def samples(self) -> list[int]:
        """Return a few frames that stand for all: the first, a middle and the last one."""
        count = len(self.frames)
        return sorted({0, count // 2, max(0, count - 1)})
