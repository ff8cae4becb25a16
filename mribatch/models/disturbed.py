"""Disturb scans as archives do, turned, noisy or blurred, so that a model can learn what it should not be asked about."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

__all__ = ["DISTURBANCES"]

_NOISE = 40.0  # grey levels
_BLUR_SHARE = 1 / 56  # of the side

Pixels = NDArray[np.uint8]


def _turned(quarters: int) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.ascontiguousarray(np.rot90(pixels, quarters, axes=(1, 2)))


def _noisy(pixels: Pixels) -> Pixels:
    grey = np.random.default_rng(0).normal(0, _NOISE, (*pixels.shape[:3], 1))
    return (pixels + grey).clip(0, 255).astype(np.uint8)


def _blurred(pixels: Pixels) -> Pixels:
    sigma = pixels.shape[1] * _BLUR_SHARE
    return gaussian_filter(pixels, (0, sigma, sigma, 0))


DISTURBANCES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "turned 90°": _turned(1),
    "turned 180°": _turned(2),
    "turned 270°": _turned(3),
    "noisy": _noisy,
    "blurred": _blurred,
}
"""Functions of (N, side, side, 3) uint8; the same scans always give the same result."""
