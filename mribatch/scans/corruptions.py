"""Alter scans as other scanners, archives and people do: blur, noise, contrast, JPEG, rotation and cropping, seeded.

The idea is that of Hendrycks and Dietterich, Benchmarking Neural Network Robustness, ICLR 2019; kinds and strengths are ours.
"""

import io
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["CORRUPTIONS", "STRENGTHS", "Corruption", "corrupted"]

STRENGTHS = (1, 2, 3)
"""Mild, medium and strong."""

_REFERENCE_PX = 224  # the side at which a blur of one pixel is one pixel
_BLACK = (0, 0, 0)

Pixels = NDArray[np.uint8]


class Corruption(NamedTuple):
    """A way to alter a scan. unit: of its values, one for each strength."""

    unit: str
    values: tuple[float, float, float]
    alter: Callable[[Pixels, float, np.random.Generator], Pixels]


def corrupted(pixels: Pixels, kind: str, strength: int, seed: int) -> Pixels:
    """Return a scan, (side, side, 3) uint8 RGB, altered. Equal arguments give equal pixels.

    kind: a key of CORRUPTIONS. strength: one of STRENGTHS. seed: 0 or more.
    """
    corruption = CORRUPTIONS[kind]
    return corruption.alter(pixels, corruption.values[strength - 1], np.random.default_rng([seed, strength]))


def _blur(pixels: Pixels, sigma_px: float, _: np.random.Generator) -> Pixels:
    radius = sigma_px * len(pixels) / _REFERENCE_PX
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _noise(pixels: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Add Rician noise, which is that of MR magnitude images (Gudbjartsson and Patz 1995, Magn. Reson. Med. 34:910)."""
    real, imaginary = rng.normal(0, 255 * share, (2, *pixels.shape[:2], 1))
    return _uint8(np.hypot(pixels + real, imaginary))


def _contrast(pixels: Pixels, share: float, _: np.random.Generator) -> Pixels:
    mean = pixels.mean()
    return _uint8(mean + share * (pixels - mean))


def _jpeg(pixels: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=int(quality))
    return np.asarray(Image.open(data))


def _rotation(pixels: Pixels, degrees: float, rng: np.random.Generator) -> Pixels:
    angle = degrees * rng.choice([-1, 1])
    return np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BICUBIC, fillcolor=_BLACK))


def _crop(pixels: Pixels, share: float, _: np.random.Generator) -> Pixels:
    side = len(pixels)
    box = (share * side, share * side, (1 - share) * side, (1 - share) * side)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC, box=box))


def _uint8(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CORRUPTIONS: Mapping[str, Corruption] = {
    "blur": Corruption("px at 224 px", (0.5, 1.0, 2.0), _blur),
    "noise": Corruption("of the full range", (0.02, 0.05, 0.10), _noise),
    "contrast": Corruption("of the contrast left", (0.8, 0.6, 0.4), _contrast),
    "jpeg": Corruption("JPEG quality", (50, 25, 10), _jpeg),
    "rotation": Corruption("degrees", (5, 10, 20), _rotation),
    "crop": Corruption("cut off on each side", (0.03, 0.07, 0.15), _crop),
}
