"""Change the grey levels of a picture at random: curves, shading, contrast, sharpness, noise, compression. Pure.

Scanners, sequences and archives differ in all of these, and in a public data set they differ by class.
"""

import math

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mribatch.training.augment_geometry import Grey

__all__ = ["acquired", "contrasted", "equalized", "equalized_locally", "recurved", "stored"]

_LEVELS = np.arange(256)

# Shares of scans that get each change; what is left of 1 stays as it is.
_GAMMA, _MONOTONE, _LIKE_OTHER, _BENT = 0.2, 0.15, 0.2, 0.12
_SHADED = 0.3
_LINEAR, _EQUALIZED, _LOCALLY = 0.25, 0.06, 0.2
_INVERTED = 0.05
_BLURRED, _COARSENED, _SHARPENED = 0.2, 0.2, 0.1
_NOISY = 0.4
_COMPRESSED = 0.35

_GAMMAS = (0.45, 2.2)
_SHADING = 0.5  # log of the strongest brightening or darkening
_BLURS = (0.3, 2.2)  # standard deviation in pixels of a 224 px picture
_COARSEST = 0.25  # share of the side that is left
_NOISES = (0.04, 1.5)  # standard deviation, in that of the picture
_QUALITIES = (8, 90)  # of JPEG
_FLAT = 0.35  # share of its contrast below which tissue would be too faint to tell anything


def recurved(grey: Grey, inside: NDArray[np.bool_], other: Grey, rng: np.random.Generator) -> Grey:
    """Return the tissue with other grey levels, as another sequence would show it.

    The curve is a gamma, random but rising, random and not rising everywhere, or the one that gives the pixels `inside`
    the distribution of `other`, grey levels of another scan's head in any shape.
    """
    draw = rng.random() - np.cumsum((_GAMMA, _MONOTONE, _LIKE_OTHER, _BENT))
    if draw[0] < 0:
        curve = 255 * (_LEVELS / 255) ** _log_uniform(rng, *_GAMMAS)
    elif draw[1] < 0:
        curve = _monotone(rng)
    elif draw[2] < 0:
        curve = _matching(grey[inside], other)
    elif draw[3] < 0:
        points = np.concatenate([[0.0], rng.uniform(0, 255, 4)])
        curve = np.interp(_LEVELS, np.linspace(0, 255, 5), points)
    else:
        return grey
    changed = np.asarray(curve, np.uint8)[grey]
    return grey if changed[inside].std() < _FLAT * grey[inside].std() else changed


def contrasted(grey: Grey, rng: np.random.Generator) -> Grey:
    """Return the picture with uneven shading, another contrast (linear, equalized, locally equalized), or inverted."""
    if rng.random() < _SHADED:
        grey = _shaded(grey, rng)
    draw = rng.random() - np.cumsum((_LINEAR, _EQUALIZED, _LOCALLY))
    if draw[0] < 0:
        middle = grey.mean()
        curve = (_LEVELS - middle) * _log_uniform(rng, 0.4, 1.7) + middle + rng.uniform(-30, 30)
        grey = np.clip(curve, 0, 255).astype(np.uint8)[grey]
    elif draw[1] < 0:
        grey = equalized(grey)
    elif draw[2] < 0:
        grey = equalized_locally(grey, tiles=int(rng.integers(4, 11)), clip=_log_uniform(rng, 1.5, 6.0))
    return 255 - grey if rng.random() < _INVERTED else grey


def acquired(grey: Grey, rng: np.random.Generator) -> Grey:
    """Return the picture with another sharpness (blurred, coarser, sharpened), and with Gaussian or Rician noise."""
    draw, side = rng.random() - np.cumsum((_BLURRED, _COARSENED, _SHARPENED)), grey.shape[0]
    image = Image.fromarray(grey)
    if draw[0] < 0:
        image = image.filter(ImageFilter.GaussianBlur(_log_uniform(rng, *_BLURS) * side / 224))
    elif draw[1] < 0:
        coarse = max(8, round(side * rng.uniform(_COARSEST, 0.8)))
        down, up = rng.choice(4, 2)
        image = image.resize((coarse, coarse), _FILTERS[down]).resize((side, side), _FILTERS[up])
    elif draw[2] < 0:
        image = image.filter(ImageFilter.UnsharpMask(radius=2, percent=int(rng.integers(40, 250)), threshold=0))
    return _noisy(np.asarray(image), rng) if rng.random() < _NOISY else np.asarray(image)


def stored(grey: Grey, rng: np.random.Generator) -> Grey:
    """Return some pictures as they come back from a JPEG file."""
    if rng.random() >= _COMPRESSED:
        return grey
    quality = int(rng.integers(*_QUALITIES))
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(grey)[..., None], quality=quality, colorspace="GRAY")
    restored: Grey = simplejpeg.decode_jpeg(data, colorspace="GRAY")[..., 0]
    return restored


def equalized(grey: Grey) -> Grey:
    """Return the picture with a flat histogram."""
    share = np.cumsum(np.bincount(grey.ravel(), minlength=256)) / grey.size
    return (255 * share).astype(np.uint8)[grey]


def equalized_locally(grey: Grey, *, tiles: int = 8, clip: float = 2.0) -> Grey:
    """Return the picture after contrast-limited adaptive histogram equalization (Zuiderveld, Graphics Gems IV, 1994).

    tiles: per side. clip: largest height of a histogram, in multiples of its mean.
    """
    side = grey.shape[0]
    tile = np.arange(side) * tiles // side
    bins = ((tile[:, None] * tiles + tile) * 256 + grey).ravel()
    histograms = np.bincount(bins, minlength=tiles * tiles * 256).reshape(tiles, tiles, 256).astype(np.float32)
    pixels = histograms.sum(axis=2, keepdims=True)
    limit = np.maximum(clip * pixels / 256, 1)
    kept = np.minimum(histograms, limit)
    curves = np.cumsum(kept + (pixels - kept.sum(axis=2, keepdims=True)) / 256, axis=2) * (255 / pixels)
    place = (np.arange(side, dtype=np.float32) + 0.5) * tiles / side - 0.5
    low = np.clip(np.floor(place), 0, tiles - 1).astype(np.intp)
    high, share = np.minimum(low + 1, tiles - 1), np.clip(place - low, 0, 1).astype(np.float32)
    flat, level = curves.reshape(-1).astype(np.float32), grey.astype(np.intp)
    rows = []
    for row in (low, high):
        left, right = (flat[(row[:, None] * tiles + column) * 256 + level] for column in (low, high))
        rows.append(left + (right - left) * share)
    levels: Grey = np.clip(rows[0] + (rows[1] - rows[0]) * share[:, None] + 0.5, 0, 255).astype(np.uint8)
    return levels


_FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.NEAREST,
)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _monotone(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random curve that rises from black to white, in pieces."""
    steps = rng.exponential(size=5)
    heights = np.concatenate([[0], 255 * np.cumsum(steps) / steps.sum()])
    curve: NDArray[np.float64] = np.interp(_LEVELS, np.linspace(0, 255, 6), heights)
    return curve


def _matching(own: Grey, other: Grey) -> NDArray[np.float64]:
    """Return the curve that gives one set of grey levels the distribution of another."""
    shares = [np.cumsum(np.bincount(levels.ravel(), minlength=256)) / max(levels.size, 1) for levels in (own, other)]
    curve: NDArray[np.float64] = np.interp(shares[0], shares[1], _LEVELS)
    curve[0] = 0  # black stays black: most of it is background
    return curve


def _shaded(grey: Grey, rng: np.random.Generator) -> Grey:
    """Return the picture times a smooth field, as the sensitivity of a coil gives."""
    coarse = rng.uniform(-_SHADING, _SHADING, (3, 3)).astype(np.float32)
    field = Image.fromarray(coarse).resize(grey.shape[::-1], Image.Resampling.BICUBIC)
    shaded: Grey = np.clip(grey * np.exp(np.asarray(field)), 0, 255).astype(np.uint8)
    return shaded


def _noisy(grey: Grey, rng: np.random.Generator) -> Grey:
    """Return the picture with Gaussian noise, or with Rician noise as in magnitude images (Gudbjartsson, MRM 1995)."""
    strength = _log_uniform(rng, *_NOISES) * grey.std()
    noisy = grey + rng.standard_normal(grey.shape, np.float32) * np.float32(strength)
    if rng.random() < 0.5:
        noisy = np.hypot(noisy, rng.standard_normal(grey.shape, np.float32) * np.float32(strength))
    return np.clip(noisy, 0, 255).astype(np.uint8)
