"""Thumbnails of scans as numbers that compare: high-pass pictures, descriptors for search, alignment. Pure."""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ORIENTATIONS",
    "SIDE_PX",
    "Aligned",
    "Floats",
    "aligned",
    "descriptors",
    "high_pass",
    "local_contrast",
    "oriented",
    "unit_rows",
    "zoom_matrix",
]

Floats = NDArray[np.float32]

SIDE_PX = 64
"""Side of a thumbnail. Fine enough to tell neighbouring slices apart, coarse enough to ignore compression."""

ORIENTATIONS = ("upright", "left-right", "top-bottom", "half-turn")
"""How a copy may be mirrored, by the numbers that `oriented` takes."""

_MEAN_PX = 9  # side of the mean that is taken away: what is broader is brightness and coil shading
_BORDER_PX = 2  # of an aligned picture: its outermost pixels mix with what lies outside
_CONTRAST_FLOOR = 5.0  # grey levels; below that, local contrast is noise of the background
_SIGMA_PX = 0.8  # hides that one of the pictures was interpolated
_STEPS = 6  # of Gauss and Newton, at each of the two scales
_LARGEST_STEP = 0.05  # of zoom and shift, in halves of a side
_LARGEST_CHANGE = 0.15  # in all: what needs more is another picture
_ROUGHLY = 0.8  # correlation at half size from which a pair is aligned at full size
_DESCRIPTOR_PX = 32


def _band(side: int, radius: int) -> Floats:
    """Return the (side, side) matrix that takes the mean over 2 × radius + 1 neighbours, edges repeated."""
    matrix = np.zeros((side, side), np.float32)
    for row in range(side):
        near = np.clip(np.arange(row - radius, row + radius + 1), 0, side - 1)
        np.add.at(matrix[row], near, 1 / (2 * radius + 1))
    return matrix


def _blur(side: int, sigma: float) -> Floats:
    """Return the (side, side) matrix that blurs with a Gaussian."""
    distance = np.subtract.outer(np.arange(side), np.arange(side)) / sigma
    weights = np.exp(-0.5 * distance**2)
    matrix: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


class _Scale(NamedTuple):
    """A size at which pictures are aligned."""

    side: int
    mean: Floats  # (side, side): takes the mean around each pixel of a line
    blur: Floats
    line: Floats  # the places of the pixels, -1 to 1


def _scale(side: int, mean_px: int) -> _Scale:
    line = np.linspace(-1, 1, side, dtype=np.float32)
    return _Scale(side, _band(side, mean_px // 2), _blur(side, _SIGMA_PX), line)


def zoom_matrix(crop: float, side: int = _DESCRIPTOR_PX) -> Floats:
    """Return the (side, 64) matrix that shrinks a line of 64 pixels without a share `crop` at both its ends."""
    edges = np.linspace(SIDE_PX * crop, SIDE_PX * (1 - crop), side + 1)
    pixels = np.arange(SIDE_PX)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0, None)
    matrix: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


_MEAN = _band(SIDE_PX, _MEAN_PX // 2)
_CONTRAST_BLUR = _blur(SIDE_PX, 1.0)
_SHRINK = zoom_matrix(0.0)
_COARSE = _scale(SIDE_PX // 2, 5)
_FINE = _scale(SIDE_PX, _MEAN_PX)
_DESCRIPTOR_MEAN = _band(_DESCRIPTOR_PX, _MEAN_PX // 2)
_DESCRIPTOR_BLUR = _blur(_DESCRIPTOR_PX, 1.2)


def unit_rows(values: NDArray[Any]) -> Floats:
    """Return (N, …) as (N, D) float32 rows of mean 0 and length 1; a constant row becomes 0."""
    rows: Floats = values.reshape(len(values), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Floats = np.where(length > 1e-3, rows / np.maximum(length, 1e-3), 0)
    return scaled


def _filtered(matrix: Floats, pictures: Floats) -> Floats:
    """Apply a matrix to rows and columns of each picture."""
    return np.asarray(matrix @ pictures @ matrix.T, np.float32)


def high_pass(thumbnails: NDArray[Any]) -> Floats:
    """Return (N, 64, 64) thumbnails less the mean of 9 × 9 pixels around each, as unit rows (N, 4096).

    The inner product of two rows is the correlation of the two pictures.
    """
    pictures: Floats = thumbnails.astype(np.float32)
    return unit_rows(pictures - _filtered(_MEAN, pictures))


def local_contrast(thumbnails: NDArray[Any]) -> Floats:
    """Return (N, 64, 64) thumbnails with the same contrast everywhere, as unit rows (N, 4096).

    Filters that bring out detail change it little, so a filtered copy still correlates with its original.
    """
    pictures = np.asarray(thumbnails, np.float32)
    return unit_rows(_filtered(_CONTRAST_BLUR, _flat(_MEAN, pictures)))


def _flat(mean: Floats, pictures: Floats) -> Floats:
    """Return the detail of pictures, divided by its strength around each pixel."""
    detail = pictures - _filtered(mean, pictures)
    return np.asarray(detail / np.sqrt(_filtered(mean, detail**2) + _CONTRAST_FLOOR**2), np.float32)


def oriented(pictures: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return (N, side, side) pictures mirrored as ORIENTATIONS[orientation]."""
    flipped = pictures[:, :, ::-1] if orientation in (1, 3) else pictures
    return flipped[:, ::-1] if orientation in (2, 3) else flipped


def descriptors(thumbnails: NDArray[Any], crop: float = 0.0) -> Floats:
    """Return (N, 32, 32) float32 pictures of local contrast, blurred: alike for copies, also if a few percent are cut off.

    crop: the share that is cut off at each side first.
    """
    shrink = zoom_matrix(crop)
    small = _filtered(shrink, thumbnails.astype(np.float32))
    return _filtered(_DESCRIPTOR_BLUR, _flat(_DESCRIPTOR_MEAN, small))


class Aligned(NamedTuple):
    """How well pairs of pictures agree once the second is zoomed and shifted onto the first."""

    correlation: Floats
    """(N,): of the high-pass pictures where both exist."""

    scale: Floats
    """(N, 2): zoom of rows and columns; 1 is none."""


def aligned(first: NDArray[Any], second: NDArray[Any], crop: Floats) -> Aligned:
    """Zoom and shift each second picture onto the first, (N, 64, 64) both, by rows and columns apart.

    crop: (N,), the share of the first that may be cut off at each side of the second: where the search begins. Pairs that
    do not agree roughly are not refined. The method is that of Lucas and Kanade (IJCAI 1981), with the gradient of the
    first picture.
    """
    fixed, moving = first.astype(np.float32), second.astype(np.float32)
    places = np.zeros((len(fixed), 4), np.float32)  # zoom and shift of rows, then of columns
    places[:, [0, 2]] = (1 / (1 - 2 * crop))[:, None]
    small_fixed, small_moving = _filtered(_SHRINK, fixed), _filtered(_SHRINK, moving)
    places = _refined(_COARSE, small_fixed, small_moving, places)
    correlation = _agreement(_COARSE, small_fixed, small_moving, places)
    close = np.flatnonzero(correlation >= _ROUGHLY)
    places[close] = _refined(_FINE, fixed[close], moving[close], places[close])
    correlation[close] = _agreement(_FINE, fixed[close], moving[close], places[close])
    return Aligned(correlation, places[:, [0, 2]])


def _refined(at: _Scale, fixed: Floats, moving: Floats, places: Floats) -> Floats:
    """Take a few steps of Gauss and Newton towards the places where the pictures agree best."""
    fixed, moving = _filtered(at.blur, fixed), _filtered(at.blur, moving)
    fixed = fixed - _filtered(at.mean, fixed)
    slopes = (np.gradient(fixed, 2 / (at.side - 1), axis=axis) for axis in (1, 2))
    rows, columns = slopes
    moves = np.stack([rows * at.line[:, None], rows, columns * at.line, columns], axis=1)
    pixels = at.side**2
    moves = moves.reshape(len(fixed), 4, pixels)
    places = places.copy()
    for _ in range(_STEPS):
        warped, valid = _warped(at, moving, places)
        gap = _same_contrast(fixed, warped - _filtered(at.mean, warped), valid)
        inside = moves * valid.reshape(len(fixed), 1, pixels)
        normal = inside @ inside.transpose(0, 2, 1) + np.eye(4, dtype=np.float32)
        step = np.linalg.solve(normal, inside @ gap.reshape(len(fixed), pixels, 1))[:, :, 0]
        places += np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        places[:, [0, 2]] = np.clip(places[:, [0, 2]], 1 - _LARGEST_CHANGE, 1 + _LARGEST_CHANGE)
        places[:, [1, 3]] = np.clip(places[:, [1, 3]], -_LARGEST_CHANGE, _LARGEST_CHANGE)
    return places


def _same_contrast(fixed: Floats, moving: Floats, valid: Floats) -> Floats:
    """Return what is left of the fixed pictures once the moving ones, at the contrast that fits best, are taken away."""
    product = (fixed * moving * valid).sum(axis=(1, 2), keepdims=True)
    power = (moving * moving * valid).sum(axis=(1, 2), keepdims=True)
    gap: Floats = fixed - moving * (product / np.maximum(power, 1e-6))
    return gap


def _warped(at: _Scale, moving: Floats, places: Floats) -> tuple[Floats, Floats]:
    """Return the pictures zoomed and shifted, and 1 where they have pixels, 0 elsewhere."""
    rows, row_valid = _sampling(at, places[:, 0], places[:, 1])
    columns, column_valid = _sampling(at, places[:, 2], places[:, 3])
    warped = np.asarray(rows @ moving @ columns.transpose(0, 2, 1), np.float32)
    return warped, row_valid[:, :, None] * column_valid[:, None, :]


def _sampling(at: _Scale, scale: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Return the (N, side, side) matrices that interpolate a line at zoomed and shifted places, and which lie inside."""
    places = (scale[:, None] * at.line + shift[:, None] + 1) * ((at.side - 1) / 2)
    inside = (places >= -0.5) & (places <= at.side - 0.5)
    places = np.clip(places, 0, at.side - 1)
    weights = 1 - np.abs(places[:, :, None] - np.arange(at.side, dtype=np.float32))
    return np.maximum(weights, 0).astype(np.float32), inside.astype(np.float32)


def _agreement(at: _Scale, fixed: Floats, moving: Floats, places: Floats) -> Floats:
    """Return the correlation of the high-pass pictures where both exist, but for the outermost pixels."""
    moving, valid = _warped(at, moving, places)
    inner = valid.copy()
    for axis, step in product((1, 2), (-_BORDER_PX, _BORDER_PX)):
        inner *= np.roll(valid, step, axis)
    inner[:, :_BORDER_PX] = inner[:, -_BORDER_PX:] = inner[:, :, :_BORDER_PX] = inner[:, :, -_BORDER_PX:] = 0
    size = np.maximum(inner.sum(axis=(1, 2), keepdims=True), 1)
    one, other = (_filtered(at.blur, picture - _filtered(at.mean, picture)) for picture in (fixed, moving))
    one, other = (inner * (each - (each * inner).sum(axis=(1, 2), keepdims=True) / size) for each in (one, other))
    length = np.sqrt((one**2).sum(axis=(1, 2)) * (other**2).sum(axis=(1, 2)))
    correlation: Floats = (one * other).sum(axis=(1, 2)) / np.maximum(length, 1e-3)
    return correlation
