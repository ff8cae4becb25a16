"""Find copies and near copies among thumbnails: a search for candidates, correlation to decide, clusters. Pure.

The search compares short descriptors and only within cells of similar ones, so its cost grows as N × √N. What decides is
the correlation of high-pass pictures, in four orientations, and where that is low, after zooming and shifting one picture
onto the other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import MiniBatchKMeans

from mribatch.errors import InputError
from mribatch.statistics import thumbnails
from mribatch.statistics.thumbnails import ORIENTATIONS, SIDE_PX, Floats

__all__ = ["KINDS", "Copies", "clusters", "near_copies"]

KINDS = ("copy", "mirrored", "altered", "neighbour")
"""Same pixels; the same picture mirrored; otherwise altered (brightness, size, compression, crop); a similar slice."""

NEAR = 0.91
"""Correlation from which two pictures are near copies: neighbouring slices of one patient, or closer."""

SAME = 0.96
"""Correlation from which they are one picture, altered. Neighbouring slices that are known as such stay below."""

SAME_ALIGNED = 0.978
"""The same once one picture is zoomed and shifted onto the other, which brings neighbouring slices closer, too."""

SAME_CONTRAST = 0.958
"""The same for pictures of local contrast. A strong filter takes more from the plain correlation than the next slice does."""

_CROPS = (
    0.0,
    0.03,
)  # cut off at each side of the picture that asks; the descriptors bridge half of the gap between them
_ASKED = tuple(product(range(len(ORIENTATIONS)), _CROPS))
_COMPONENTS = 64
_SAMPLE = 20_000  # thumbnails that the components and the cells are fitted to
_BLOCK = 1024  # thumbnails or pairs at a time: 16 MB as float32
_ALIGN_BLOCK = 128  # pairs: what one step of aligning touches stays in a core's cache
SMALL = 8192  # thumbnails up to which all are compared with all
_PROBES = 6  # cells that a descriptor is looked up in
_CANDIDATES = 12  # for each thumbnail, orientation and crop
_ALIKE = 0.7  # cosine of two descriptors from which they are candidates
_ALIGNABLE = 0.8  # and from which it is worth aligning their pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """Pairs of near copies; row k says that thumbnail first[k] < second[k] and how they are alike."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    correlation: Floats
    orientation: NDArray[np.int8]
    """How one is mirrored, an index into ORIENTATIONS."""
    kind: NDArray[np.int8]
    """An index into KINDS."""


def near_copies(pictures: NDArray[np.uint8], contents: Sequence[str], *, seed: int = 0) -> Copies:
    """Return the near copies among (N, 64, 64) grey thumbnails, each pair once, in order.

    contents: a digest of the pixels of each scan; equal ones are copies, and only the first of them is searched for, so
    that n copies are n - 1 pairs. Raises InputError for other shapes.
    """
    if pictures.shape != (len(contents), SIDE_PX, SIDE_PX):
        raise InputError(f"expected {len(contents)} thumbnails of {SIDE_PX} × {SIDE_PX}, got shape {pictures.shape}")
    first_of: dict[str, int] = {}
    original = np.array([first_of.setdefault(content, row) for row, content in enumerate(contents)], np.int64)
    distinct = np.flatnonzero(original == np.arange(len(original)))
    copies = np.flatnonzero(original != np.arange(len(original)))
    near = _decided(pictures, _candidates(pictures, distinct, seed))
    return _joined(original[copies], copies, near)


def clusters(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a cluster number for each of `count` scans, in order of first members: linked by pairs, directly or not."""
    links = coo_matrix((np.ones(len(first), np.int8), (first, second)), (count, count))
    _, labels = connected_components(links, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbered: NDArray[np.int64] = rank[inverse]
    return numbered


def _joined(original: NDArray[np.int64], copies: NDArray[np.int64], near: Copies) -> Copies:
    """Add pairs of equal pixels to others, and sort all."""
    same = np.zeros(len(copies), np.int8)
    first, second = np.r_[original, near.first], np.r_[copies, near.second]
    order = np.lexsort((second, first))
    return Copies(
        first=first[order],
        second=second[order],
        correlation=np.r_[np.ones(len(copies), np.float32), near.correlation][order],
        orientation=np.r_[same, near.orientation][order],
        kind=np.r_[same, near.kind][order],
    )


# Candidates


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Pairs of thumbnails that may be near copies, each with the orientation and crop that fit best."""

    first: NDArray[np.int64]  # this one is mirrored and cropped
    second: NDArray[np.int64]
    asked: NDArray[np.int8]  # index into _ASKED
    likeness: Floats  # cosine of the descriptors


class _Projection:
    """Descriptors on the main components of a sample, as unit rows."""

    def __init__(self, pictures: NDArray[np.uint8], rows: NDArray[np.int64], seed: int) -> None:
        rng = np.random.default_rng(seed)
        sample = np.sort(rng.permutation(rows)[:_SAMPLE])
        parts = [thumbnails.descriptors(pictures[sample[at : at + _BLOCK]]) for at in range(0, len(sample), _BLOCK)]
        flat = np.concatenate(parts).reshape(len(sample), -1)
        self._mean = flat.mean(axis=0)
        flat -= self._mean
        _, vectors = np.linalg.eigh(flat.T @ flat)
        self._axes = np.ascontiguousarray(vectors[:, ::-1][:, :_COMPONENTS])

    def __call__(self, pictures: NDArray[np.uint8], orientation: int = 0, crop: float = 0.0) -> Floats:
        """Return (N, components) float32 for thumbnails that are mirrored and cropped first."""
        pictured = thumbnails.descriptors(thumbnails.oriented(pictures, orientation), crop)
        values = (pictured.reshape(len(pictured), -1) - self._mean) @ self._axes
        unit: Floats = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
        return unit


class _Cells:
    """Descriptors by cells of similar ones; a few descriptors are all one cell."""

    def __init__(self, descriptors: Floats, seed: int) -> None:
        self._descriptors = descriptors
        count = 1 if len(descriptors) <= SMALL else round(len(descriptors) ** 0.5)
        self._centres = descriptors[:1]
        if count > 1:
            sample = np.random.default_rng(seed).permutation(len(descriptors))[:_SAMPLE]
            cells = MiniBatchKMeans(count, random_state=seed, batch_size=_BLOCK * 4, n_init=1, max_iter=20)
            self._centres = cells.fit(descriptors[np.sort(sample)]).cluster_centers_.astype(np.float32)
        self._half_squares = (self._centres**2).sum(axis=1) / 2
        nearest = self._nearest(descriptors, 1)[:, 0]
        self._order = np.argsort(nearest, kind="stable")
        self._ends = np.searchsorted(nearest[self._order], np.arange(count + 1))

    def _nearest(self, descriptors: Floats, probes: int) -> NDArray[np.int64]:
        """Return the (N, probes) cells whose centres are nearest."""
        probes = min(probes, len(self._centres))
        parts = []
        for at in range(0, len(descriptors), _BLOCK):
            score = descriptors[at : at + _BLOCK] @ self._centres.T - self._half_squares
            parts.append(np.argpartition(-score, probes - 1, axis=1)[:, :probes])
        return np.concatenate(parts)

    def alike(self, asked: Floats) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Floats]]:
        """Yield rows of `asked`, rows of the descriptors that are most alike, and their cosines, cell by cell."""
        probed = self._nearest(asked, _PROBES)
        order = np.argsort(probed, axis=None, kind="stable")
        ends = np.searchsorted(probed.ravel()[order], np.arange(len(self._centres) + 1))
        for cell in range(len(self._centres)):
            members = self._order[self._ends[cell] : self._ends[cell + 1]]
            rows = order[ends[cell] : ends[cell + 1]] // probed.shape[1]
            for at in range(0, len(rows) if len(members) else 0, _BLOCK):
                asking = rows[at : at + _BLOCK]
                yield _most_alike(asking, members, asked[asking] @ self._descriptors[members].T)


def _most_alike(
    asking: NDArray[np.int64], members: NDArray[np.int64], cosines: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the pairs of asking rows and members above _ALIKE; of each row's, no more than the best few and itself."""
    most = min(_CANDIDATES + 1, len(members))
    best = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
    values = np.take_along_axis(cosines, best, axis=1)
    row, place = np.nonzero(values >= _ALIKE)
    return asking[row], members[best[row, place]], values[row, place]


def _candidates(pictures: NDArray[np.uint8], distinct: NDArray[np.int64], seed: int) -> _Candidates:
    """Return the pairs of distinct thumbnails whose descriptors are alike, each once, with the most alike way."""
    nothing = np.empty(0, np.int64)
    pairs = _Candidates(nothing, nothing, nothing.astype(np.int8), nothing.astype(np.float32))
    if len(distinct) < 2:
        return pairs
    project = _Projection(pictures, distinct, seed)
    cells = _Cells(_projected(project, pictures, distinct), seed)
    for number, (orientation, crop) in enumerate(_ASKED):
        asked = _projected(project, pictures, distinct, orientation, crop)
        parts = [part for part in cells.alike(asked) if len(part[0])]
        if parts:
            first, second, likeness = (np.concatenate(part) for part in zip(*parts, strict=True))
            pairs = _once(pairs, distinct[first], distinct[second], number, likeness)
    return pairs


def _projected(
    project: _Projection, pictures: NDArray[np.uint8], rows: NDArray[np.int64], orientation: int = 0, crop: float = 0.0
) -> Floats:
    blocks = (rows[at : at + _BLOCK] for at in range(0, len(rows), _BLOCK))
    return np.concatenate([project(pictures[block], orientation, crop) for block in blocks])


def _once(
    pairs: _Candidates, first: NDArray[np.int64], second: NDArray[np.int64], asked: int, likeness: Floats
) -> _Candidates:
    """Add pairs asked for in one way; of a pair that is known already, keep the way that is more alike."""
    apart = first != second
    first, second, likeness = first[apart], second[apart], likeness[apart]
    one, other = np.r_[pairs.first, first], np.r_[pairs.second, second]
    way = np.r_[pairs.asked, np.full(len(first), asked, np.int8)]
    alike = np.r_[pairs.likeness, likeness].astype(np.float32)
    order = np.lexsort((-alike, np.maximum(one, other), np.minimum(one, other)))
    one, other, way, alike = one[order], other[order], way[order], alike[order]
    low, high = np.minimum(one, other), np.maximum(one, other)
    fresh = np.r_[True, (low[1:] != low[:-1]) | (high[1:] != high[:-1])][: len(low)]
    return _Candidates(one[fresh], other[fresh], way[fresh], alike[fresh])


# Decisions


def _decided(pictures: NDArray[np.uint8], pairs: _Candidates) -> Copies:
    """Return the candidates that are near copies, with their kinds."""
    orientation = np.array([way for way, _ in _ASKED], np.int8)[pairs.asked]
    everything = np.arange(len(pairs.first))
    correlation = _correlations(pictures, pairs, orientation, everything, thumbnails.high_pass)
    unsure = np.flatnonzero((correlation < SAME) & (pairs.likeness >= _ALIGNABLE))
    fitted = _aligned(pictures, pairs, orientation, unsure)
    same = correlation >= SAME
    same[unsure] = fitted >= SAME_ALIGNED
    correlation[unsure] = np.where(same[unsure], fitted, correlation[unsure])
    near = np.flatnonzero(same | (correlation >= NEAR))
    others = near[~same[near]]
    same[others] = _correlations(pictures, pairs, orientation, others, thumbnails.local_contrast) >= SAME_CONTRAST
    kind = np.where(same, np.where(orientation > 0, 1, 2), 3).astype(np.int8)
    return Copies(
        first=np.minimum(pairs.first, pairs.second)[near],
        second=np.maximum(pairs.first, pairs.second)[near],
        correlation=np.minimum(correlation[near], 1),
        orientation=orientation[near],
        kind=kind[near],
    )


def _correlations(
    pictures: NDArray[np.uint8],
    pairs: _Candidates,
    orientation: NDArray[np.int8],
    rows: NDArray[np.int64],
    view: Callable[[NDArray[Any]], Floats],
) -> Floats:
    """Return the correlation of some pairs in a view of their thumbnails, such as `thumbnails.high_pass`."""
    parts = [np.empty(0, np.float32)]
    for at in range(0, len(rows), _BLOCK):
        block = rows[at : at + _BLOCK]
        turned = view(_oriented(pictures[pairs.first[block]], orientation[block]))
        parts.append((turned * view(pictures[pairs.second[block]])).sum(axis=1))
    return np.concatenate(parts)


def _aligned(
    pictures: NDArray[np.uint8], pairs: _Candidates, orientation: NDArray[np.int8], rows: NDArray[np.int64]
) -> Floats:
    """Return the correlation of some pairs once they are aligned."""
    crop = np.array([crop for _, crop in _ASKED], np.float32)[pairs.asked]
    parts = [np.empty(0, np.float32)]
    for at in range(0, len(rows), _ALIGN_BLOCK):
        block = rows[at : at + _ALIGN_BLOCK]
        turned = _oriented(pictures[pairs.first[block]], orientation[block])
        parts.append(thumbnails.aligned(turned, pictures[pairs.second[block]], crop[block]).correlation)
    return np.concatenate(parts)


def _oriented(pictures: NDArray[np.uint8], orientation: NDArray[np.int8]) -> NDArray[Any]:
    turned = pictures.copy()
    for way in range(1, len(ORIENTATIONS)):
        rows = orientation == way
        turned[rows] = thumbnails.oriented(pictures[rows], way)
    return turned
