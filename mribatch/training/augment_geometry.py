"""Find the head in a scan, place it at random in the frame, and put another background behind it. Pure.

Head size, position and border tell where a scan comes from. Here they are drawn anew for each scan, the same way for all
classes, so that a network cannot use them.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

__all__ = ["Grey", "Head", "Placement", "composed", "erased", "head_of", "outside_of", "placement"]

Grey = NDArray[np.uint8]
"""A grey picture, (side, side) uint8."""

_COARSE_PX = 56  # side at which the head is looked for: its outline is smooth, and fewer pixels take less time
_BRIGHTER = 0.1  # share of the range between background and bright tissue from which a pixel may be head
_LEAST_HEAD, _MOST_HEAD = 0.12, 0.97  # share of the frame; outside, the outline means nothing

_SIZES = (0.6, 1.1)  # longer side of the head in shares of the frame; above 1, a little is cropped
_ASPECT = 0.12  # log of the largest change of width to height
_TILT_DEG = 20.0
_TURNED = 0.12  # share of scans in another orientation: a quarter turn, or upside down
_BLACK, _LEVEL, _NOISE, _OTHER = (
    0.3,
    0.15,
    0.12,
    0.28,
)  # shares of scans by their new background; the others keep theirs
_NOISE_LEVELS = (2.0, 35.0)  # standard deviation
_MARKED = 0.3  # share of scans with rectangles in the background, as labels and scales are


class Head(NamedTuple):
    """Where the head is in a scan."""

    mask: Grey
    """255 in the head, 0 outside, with soft edges, at about 56 px a side."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in shares of the frame."""

    background: int
    """The grey level outside the head."""


class Placement(NamedTuple):
    """An affine map from pixels of the result to pixels of the scan, in shares of the frame.

    x = a u + b v + c and y = d u + e v + f.
    """

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def applied(self, picture: Grey, side: int, fill: int = 0) -> Grey:
        """Return a square picture of any side moved, (side, side) uint8, with `fill` where the scan has no pixels."""
        scale, size = 1 / side, picture.shape[0]
        rows = ((self.a, self.b, self.c), (self.d, self.e, self.f))
        values = [value * size for x, y, shift in rows for value in (x * scale, y * scale, shift)]
        image = Image.fromarray(picture).transform(
            (side, side), Image.Transform.AFFINE, values, Image.Resampling.BILINEAR, fillcolor=fill
        )
        return np.asarray(image)


def head_of(grey: Grey) -> Head:
    """Return where the head is; a picture without a clear outline counts as head in all of its frame."""
    side = grey.shape[0]
    small = Image.fromarray(grey).reduce(max(1, round(side / _COARSE_PX))).filter(ImageFilter.BoxBlur(1))
    values = np.asarray(small)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    background = int(np.percentile(border, 10))
    limit = background + max(6.0, _BRIGHTER * (float(np.percentile(values, 98)) - background))
    mask = ndimage.binary_fill_holes(values > limit)
    parts, count = ndimage.label(mask)
    wider = 1  # pixel at each side, by the blur
    if count > 1:
        mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    if not _LEAST_HEAD <= mask.mean() <= _MOST_HEAD:
        mask, wider = np.ones_like(mask), 0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    ends = ((line[0], line[-1] + 1) for line in (columns, rows))
    (x0, x1), (y0, y1) = (((low + wider) / len(mask), (high - wider) / len(mask)) for low, high in ends)
    soft = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(1))
    return Head(np.asarray(soft), (x0, y0, x1, y1), background)


def placement(head: Head, rng: np.random.Generator) -> Placement:
    """Return a random place, size, tilt and orientation for a head, whatever its size and place in the scan are."""
    x0, y0, x1, y1 = head.box
    wanted = rng.uniform(*_SIZES)
    stretch = math.exp(rng.uniform(-_ASPECT, _ASPECT) / 2)
    scale = max(x1 - x0, y1 - y0) / wanted
    across, down = scale * stretch * rng.choice((-1.0, 1.0)), scale / stretch
    angle = math.radians(rng.uniform(-_TILT_DEG, _TILT_DEG))
    if rng.random() < _TURNED:
        angle += math.pi / 2 * rng.integers(1, 4)
    cosine, sine = math.cos(angle), math.sin(angle)
    a, b, d, e = across * cosine, -across * sine, down * sine, down * cosine
    room = max(0.04, (1 - wanted) / 2)
    u, v = 0.5 + rng.uniform(-room, room, 2)
    return Placement(a, b, (x0 + x1) / 2 - a * u - b * v, d, e, (y0 + y1) / 2 - d * u - e * v)


def composed(grey: Grey, mask: Grey, background: Grey) -> Grey:
    """Return the head of one picture before the background of another; all (side, side), the mask with soft edges."""
    opaque = mask.astype(np.uint16)
    mixed = grey * opaque + background * (255 - opaque)
    return ((mixed + 127) // 255).astype(np.uint8)


def outside_of(moved: Grey, other: Grey, other_head: Head, rng: np.random.Generator) -> Grey:
    """Return a background for a scan: black, grey, noise, that of another scan, or its own, (side, side).

    moved: the scan in its place; its own background is in it. other: another scan, (side, side).
    """
    draw = rng.random() - np.cumsum((_BLACK, _LEVEL, _NOISE, _OTHER))
    shape = moved.shape
    if draw[0] < 0:
        return np.zeros(shape, np.uint8)
    if draw[1] < 0:
        return np.full(shape, rng.integers(1, 256), np.uint8)
    if draw[2] < 0:
        noise = rng.standard_normal(shape, np.float32) * rng.uniform(*_NOISE_LEVELS)
        grains: Grey = np.clip(np.abs(noise), 0, 255).astype(np.uint8)
        return grains
    if draw[3] < 0:
        mask = Image.fromarray(other_head.mask).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        level = np.full(shape, other_head.background, np.uint8)
        mixed = composed(level, np.asarray(mask), other)
        return mixed[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    return moved


def erased(background: Grey, rng: np.random.Generator) -> Grey:
    """Return a background with a few rectangles of one grey level in some scans, bars and squares."""
    if rng.random() >= _MARKED:
        return background
    marked, side = background.copy(), background.shape[0]
    for _ in range(rng.integers(1, 5)):
        height, width = (rng.uniform(0.02, 0.35, 2) * side).astype(int)
        top, left = rng.integers(0, side - height), rng.integers(0, side - width)
        marked[top : top + height, left : left + width] = rng.integers(0, 256)
    return marked
