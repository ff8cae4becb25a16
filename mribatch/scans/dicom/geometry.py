"""Where a slice lies in the patient: its plane, and its position along the normal (PS3.3, C.7.6.2)."""

import math

from mribatch.scans.dicom.elements import Elements
from mribatch.scans.dicom.groups import FrameGroups

__all__ = ["slice_place"]

_ORIENTATION, _ORIENTATION_GROUP = 0x00200037, 0x00209116
_POSITION, _POSITION_GROUP = 0x00200032, 0x00209113
_PLANES = ("sagittal", "coronal", "axial")  # by the axis that the normal is nearest to
_UNIT = 0.05  # by so much a direction's length may miss 1
_DECIMALS = 3


def slice_place(elements: Elements, groups: FrameGroups, frame: int) -> tuple[str | None, float | None]:
    """Return the plane of a frame and its position along the normal in mm; None for what the header does not say."""
    normal = _normal(_values(elements, groups, frame, (_ORIENTATION_GROUP, _ORIENTATION)))
    if normal is None:
        return None, None
    nearest = max(range(3), key=lambda axis: abs(normal[axis]))
    position = _values(elements, groups, frame, (_POSITION_GROUP, _POSITION))
    if len(position) != 3:
        return _PLANES[nearest], None
    distance = math.fsum(along * at for along, at in zip(normal, position, strict=True))
    return _PLANES[nearest], round(distance, _DECIMALS)


def _values(elements: Elements, groups: FrameGroups, frame: int, tags: tuple[int, int]) -> list[float]:
    """Return the finite numbers of an element, from a frame's functional group or from the object."""
    group, tag = tags
    for place in (*groups.candidates(frame, group), elements):
        values = place.numbers(tag, "DS")
        if values and all(map(math.isfinite, values)):
            return values
    return []


def _normal(orientation: list[float]) -> tuple[float, float, float] | None:
    """Return the normal of a slice: the cross product of its row and column directions."""
    if len(orientation) != 6:
        return None
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*normal)
    return normal if abs(length - 1) <= _UNIT else None
