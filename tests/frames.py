"""Decode files of a single frame, which is what most tests of the formats are about."""

from mribatch.scans import decode as door
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec

__all__ = ["decode", "only"]


def decode(data: bytes, spec: ImageSpec) -> Frame:
    """Return the only frame of a file."""
    return only(door.decode(data, spec))


def only(frames: list[Frame]) -> Frame:
    """Return the frame of a file that has one."""
    (frame,) = frames
    return frame
