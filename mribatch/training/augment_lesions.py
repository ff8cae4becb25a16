"""Paint lesions out of training scans, so that what remains is a scan without a tumour. Pure.

Where scans without a tumour come from another source, a network tells sources apart and never looks at the lesion. The
same scan with and without its lesion differs in nothing else. Other places are painted over, too, so that paint says
nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mribatch.sources.lesions import Box

__all__ = ["painted"]

_LESION, _ELSEWHERE = 0.12, 0.12  # shares of scans with a known lesion: painted out, or painted over beside it
_WITHOUT = 0.24  # share of scans without a tumour that are painted over somewhere
_MARGINS = (0.1, 0.4)  # a lesion has a rim
_SIDES = (0.12, 0.35)  # of a box where no lesion gives one
_MIRRORED = 0.4  # share that is filled from the other half of the head
_TRIES = 8


def painted(
    pixels: NDArray[np.uint8], boxes: Sequence[Box | None], healthy: NDArray[np.bool_], keys: Sequence[tuple[int, ...]]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return (N, side, side, 3) uint8 scans, some of them painted over, and which of them have lost their lesion, (N,).

    boxes: of the lesions, None where unknown: such a scan stays as it is unless it is `healthy`, (N,), without a lesion.
    keys: a seed for each scan.
    """
    scans, lost = pixels.copy(), np.zeros(len(pixels), bool)
    for number, (box, key) in enumerate(zip(boxes, keys, strict=True)):
        rng = np.random.default_rng((*key, 1))
        place, is_lesion, draw = None, False, rng.random()
        if healthy[number]:
            place = _anywhere(rng.uniform(*_SIDES, 2), None, rng) if draw < _WITHOUT else None
        elif box is not None and draw < _LESION:
            place, is_lesion = box, True
        elif box is not None and draw < _LESION + _ELSEWHERE:
            place = _anywhere(np.array([box[2] - box[0], box[3] - box[1]]), _grown(box, _MARGINS[1]), rng)
        if place is not None:
            lost[number] = _paint(scans[number], _grown(place, rng.uniform(*_MARGINS)), rng) and is_lesion
    return scans, lost


def _anywhere(size: NDArray[np.float64], apart: Box | None, rng: np.random.Generator) -> Box | None:
    """Return a box of this size in the middle of the frame that does not touch another one, None if none is tried."""
    for _ in range(_TRIES):
        x0, y0 = rng.uniform(0.15, np.maximum(0.85 - size, 0.16))
        box = (float(x0), float(y0), float(x0 + size[0]), float(y0 + size[1]))
        if apart is None or box[2] < apart[0] or apart[2] < box[0] or box[3] < apart[1] or apart[3] < box[1]:
            return box
    return None


def _grown(box: Box, margin: float) -> Box:
    """Return a box grown at each side by a share of its size, within the frame."""
    x0, y0, x1, y1 = box
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    return max(0.0, x0 - dx), max(0.0, y0 - dy), min(1.0, x1 + dx), min(1.0, y1 + dy)


def _paint(scan: NDArray[np.uint8], box: Box, rng: np.random.Generator) -> bool:
    """Fill an oval or a rectangle with soft edges, in place: from the rim, or from the same place in the other half.

    Return False for a box of less than 4 px, which stays as it is.
    """
    side = scan.shape[0]
    x0, y0, x1, y1 = (round(value * (side - 1)) for value in box)
    height, width = y1 - y0 + 1, x1 - x0 + 1
    if min(height, width) < 4:
        return False
    rows, columns = slice(y0, y1 + 1), slice(x0, x1 + 1)
    area = scan[rows, columns].astype(np.float32)
    has_mirror = 2 * x0 > side or 2 * x1 < side - 2  # else the other half shows the same place
    is_mirrored = rng.random() < _MIRRORED and has_mirror
    fill = scan[:, ::-1][rows, columns].astype(np.float32) if is_mirrored else _from_rim(area)
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    power = rng.choice((2.0, 8.0))
    distance = np.abs(x) ** power + np.abs(y) ** power
    opaque = np.clip((1.1 - distance) * rng.uniform(3, 8), 0, 1)[..., None]
    scan[rows, columns] = (area + (fill - area) * opaque + 0.5).astype(np.uint8)
    return True


def _from_rim(area: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture that blends the four edges of an area into each other (Coons, MIT 1967), (height, width, 3)."""
    down = np.linspace(0, 1, len(area), dtype=np.float32)[:, None, None]
    across = np.linspace(0, 1, area.shape[1], dtype=np.float32)[:, None]
    top, bottom = (ndimage.uniform_filter1d(edge, 1 + area.shape[1] // 3, axis=1) for edge in (area[:1], area[-1:]))
    left, right = (ndimage.uniform_filter1d(edge, 1 + len(area) // 3, axis=0) for edge in (area[:, :1], area[:, -1:]))
    corners = (top[:, :1] * (1 - down) + bottom[:, :1] * down) * (1 - across)
    corners = corners + (top[:, -1:] * (1 - down) + bottom[:, -1:] * down) * across
    filled = top * (1 - down) + bottom * down + left * (1 - across) + right * across - corners
    blend: NDArray[np.float32] = np.clip(filled, 0, 255)
    return blend
