"""Thumbnails of scans as numbers that compare: high-pass pictures, descriptors for search, alignment. Pure."""

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
_COARSE_SIGMA_PX = 1.6  # aligns shifts of several pixels
_FINE_SIGMA_PX = 0.8  # hides that one of the pictures was interpolated
_STEPS = 6  # of Gauss and Newton, at each of the two scales
_LARGEST_SCALE = 0.15  # more zoom or shift than this is another picture
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


_MEAN = _band(SIDE_PX, _MEAN_PX // 2)
_COARSE, _FINE = _blur(SIDE_PX, _COARSE_SIGMA_PX), _blur(SIDE_PX, _FINE_SIGMA_PX)
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
    result: Floats = matrix @ pictures @ matrix.T
    return result


def high_pass(thumbnails: NDArray[Any]) -> Floats:
    """Return (N, 64, 64) thumbnails less the mean of 9 × 9 pixels around each, as unit rows (N, 4096).

    The inner product of two rows is the correlation of the two pictures.
    """
    pictures = thumbnails.astype(np.float32)
    return unit_rows(pictures - _filtered(_MEAN, pictures))


def oriented(pictures: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return (N, side, side) pictures mirrored as ORIENTATIONS[orientation]."""
    flipped = pictures[:, :, ::-1] if orientation in (1, 3) else pictures
    return flipped[:, ::-1] if orientation in (2, 3) else flipped


def zoom_matrix(crop: float, side: int = _DESCRIPTOR_PX) -> Floats:
    """Return the (side, 64) matrix that shrinks a line of 64 pixels without a share `crop` at both its ends."""
    edges = np.linspace(SIDE_PX * crop, SIDE_PX * (1 - crop), side + 1)
    pixels = np.arange(SIDE_PX)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0, None)
    matrix: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def descriptors(thumbnails: NDArray[Any], crop: float = 0.0) -> Floats:
    """Return (N, 32, 32) float32 pictures of local contrast, blurred: alike for copies, also if a few percent are cut off.

    crop: the share that is cut off at each side first.
    """
    shrink = zoom_matrix(crop)
    small = shrink @ thumbnails.astype(np.float32) @ shrink.T
    detail = small - _filtered(_DESCRIPTOR_MEAN, small)
    contrast = np.sqrt(_filtered(_DESCRIPTOR_MEAN, detail**2) + _CONTRAST_FLOOR**2)
    return _filtered(_DESCRIPTOR_BLUR, detail / contrast)


class Aligned(NamedTuple):
    """How well pairs of pictures agree once the second is zoomed and shifted onto the first."""

    correlation: Floats
    """(N,): of the high-pass pictures where both exist."""

    scale: Floats
    """(N, 2): zoom of rows and columns; 1 is none."""


def aligned(first: NDArray[Any], second: NDArray[Any], crop: Floats) -> Aligned:
    """Zoom and shift each second picture onto the first, (N, 64, 64) both, by rows and columns apart.

    crop: (N,), the share of the first that may be cut off at each side of the second: where the search begins.
    The method is that of Lucas and Kanade (IJCAI 1981), with the gradient of the first picture.
    """
    fixed, moving = first.astype(np.float32), second.astype(np.float32)
    places = np.zeros((len(fixed), 4), np.float32)  # zoom and shift of rows, then of columns
    places[:, [0, 2]] = (1 / (1 - 2 * crop))[:, None]
    for blur in (_COARSE, _FINE):
        places = _refined(_filtered(blur, fixed), _filtered(blur, moving), places)
    warped, valid = _warped(moving, places)
    return Aligned(_masked_correlation(fixed, warped, valid), places[:, [0, 2]])


_LINE = np.linspace(-1, 1, SIDE_PX, dtype=np.float32)


def _refined(fixed: Floats, moving: Floats, places: Floats) -> Floats:
    """Take a few steps of Gauss and Newton towards the places where the pictures agree best."""
    fixed = fixed - _filtered(_MEAN, fixed)
    slope_rows, slope_columns = (np.gradient(fixed, 2 / (SIDE_PX - 1), axis=axis) for axis in (1, 2))
    moves = np.stack(
        [slope_rows * _LINE[:, None], slope_rows, slope_columns * _LINE, slope_columns], axis=1
    ).reshape(len(fixed), 4, -1)
    for _ in range(_STEPS):
        warped, valid = _warped(moving, places)
        detail = warped - _filtered(_MEAN, warped)
        seen = (moves * valid.reshape(len(fixed), 1, -1)).astype(np.float32)
        gap = (_same_contrast(fixed, detail, valid) * valid).reshape(len(fixed), -1, 1)
        normal = seen @ seen.transpose(0, 2, 1) + np.eye(4, dtype=np.float32)
        step = np.linalg.solve(normal, seen @ gap)[:, :, 0]
        places = places + np.clip(step, -0.05, 0.05).astype(np.float32)
        places[:, [0, 2]] = np.clip(places[:, [0, 2]], 1 - _LARGEST_SCALE, 1 + _LARGEST_SCALE)
        places[:, [1, 3]] = np.clip(places[:, [1, 3]], -_LARGEST_SCALE, _LARGEST_SCALE)
    return places


def _same_contrast(fixed: Floats, moving: Floats, valid: Floats) -> Floats:
    """Return what is left of the fixed pictures once the moving ones, at the contrast that fits best, are taken away."""
    product = (fixed * moving * valid).sum(axis=(1, 2), keepdims=True)
    power = (moving * moving * valid).sum(axis=(1, 2), keepdims=True)
    gap: Floats = fixed - moving * (product / np.maximum(power, 1e-6))
    return gap


def _warped(moving: Floats, places: Floats) -> tuple[Floats, Floats]:
    """Return the pictures zoomed and shifted, and 1 where they have pixels, 0 elsewhere."""
    rows, row_valid = _sampling(places[:, 0], places[:, 1])
    columns, column_valid = _sampling(places[:, 2], places[:, 3])
    warped: Floats = rows @ moving @ columns.transpose(0, 2, 1)
    return warped, row_valid[:, :, None] * column_valid[:, None, :]


def _sampling(scale: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Return the (N, 64, 64) matrices that interpolate a line at the zoomed and shifted places, and which lie inside."""
    places = (scale[:, None] * _LINE + shift[:, None] + 1) * ((SIDE_PX - 1) / 2)
    inside = (places >= -0.5) & (places <= SIDE_PX - 0.5)
    places = np.clip(places, 0, SIDE_PX - 1)
    weights = 1 - np.abs(places[:, :, None] - np.arange(SIDE_PX, dtype=np.float32))
    return np.maximum(weights, 0).astype(np.float32), inside.astype(np.float32)


def _masked_correlation(fixed: Floats, moving: Floats, valid: Floats) -> Floats:
    """Return the correlation of the high-pass pictures inside the valid rectangle, without its outermost pixels."""
    inner = valid.copy()
    for axis in (1, 2):
        for step in (-_BORDER_PX, _BORDER_PX):
            inner *= np.roll(valid, step, axis)
    inner[:, :_BORDER_PX] = inner[:, -_BORDER_PX:] = inner[:, :, :_BORDER_PX] = inner[:, :, -_BORDER_PX:] = 0
    fixed, moving = (_filtered(_FINE, one - _filtered(_MEAN, one)) for one in (fixed, moving))
    size = np.maximum(inner.sum(axis=(1, 2), keepdims=True), 1)
    fixed, moving = (inner * (one - (one * inner).sum(axis=(1, 2), keepdims=True) / size) for one in (fixed, moving))
    length = np.sqrt((fixed**2).sum(axis=(1, 2)) * (moving**2).sum(axis=(1, 2)))
    correlation: Floats = (fixed * moving).sum(axis=(1, 2)) / np.maximum(length, 1e-3)
    return correlation
