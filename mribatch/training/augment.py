"""Change training scans so strongly that brightness, head size, border and noise say nothing of the class. Pure.

A network that is trained on scans as they are learns these shortcuts: in public data sets each class comes from other
sources. Labels stay: each change leaves the anatomy in place.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mribatch.training import augment_geometry as geometry
from mribatch.training import augment_intensity as intensity
from mribatch.training.augment_geometry import Grey, Head

__all__ = ["strong"]

_CLEAN = 0.2  # share of scans that keep their grey levels and quality: most scans of an archive are like these


def strong(pixels: NDArray[np.uint8], keys: Sequence[tuple[int, ...]]) -> NDArray[np.uint8]:
    """Return (N, side, side, 3) uint8 scans changed at random; they are grey afterwards.

    keys: a seed for each scan, such as (seed, epoch, row): the same key gives the same changes. Some scans get the
    background or the grey levels of the next one of these N.
    """
    greys = [np.asarray(Image.fromarray(scan).convert("L")) for scan in pixels]
    heads = [geometry.head_of(grey) for grey in greys]
    changed = np.empty_like(pixels)
    for number, key in enumerate(keys):
        other = (number + 1) % len(greys)
        rng = np.random.default_rng(key)
        changed[number] = _changed(greys[number], heads[number], greys[other], heads[other], rng)[..., None]
    return changed


def _changed(grey: Grey, head: Head, other: Grey, other_head: Head, rng: np.random.Generator) -> Grey:
    """Return one scan changed, in the order in which tissue, frame, scanner and archive would do it."""
    side = grey.shape[0]
    place = geometry.placement(head, rng)
    moved, mask = place.applied(grey, side, fill=head.background), place.applied(head.mask, side)
    background = geometry.erased(geometry.outside_of(moved, other, other_head, rng), rng)
    if rng.random() < _CLEAN:
        return geometry.composed(moved, mask, background)
    tissue = intensity.recurved(moved, mask > 127, _tissue(other, other_head), rng)
    picture = geometry.composed(tissue, mask, background)
    return intensity.stored(intensity.acquired(intensity.contrasted(picture, rng), rng), rng)


def _tissue(grey: Grey, head: Head) -> Grey:
    """Return the grey levels of a head, at the size of its mask."""
    small = Image.fromarray(grey).resize(head.mask.shape[::-1], Image.Resampling.NEAREST)
    return np.asarray(small)[head.mask > 127]
