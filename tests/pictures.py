"""Made pictures that look like slices of a head, their neighbours, and what people do to copies of them."""

import io
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mribatch.statistics.thumbnails import SIDE_PX

__all__ = ["ALTERATIONS", "head", "thumbnail"]

_SIDE_PX = 224
_BLOBS = 90


@cache
def head(patient: int, slice_number: float = 0.0) -> Image.Image:
    """Return a slice of a patient: an ellipse full of blobs that change from slice to slice, within a bright skull."""
    rng = np.random.default_rng([7, patient])
    y, x = np.mgrid[-1 : 1 : _SIDE_PX * 1j, -1 : 1 : _SIDE_PX * 1j]
    width, height = rng.uniform(0.6, 0.85, 2)
    radius = np.hypot(x / width, y / height)
    grey = np.where(radius < 1, 70.0, 0.0) + 60 * np.exp(-(((radius - 0.97) / 0.04) ** 2))
    for _ in range(_BLOBS):
        (row, column), size, depth = rng.uniform(-0.7, 0.7, 2), rng.uniform(0.03, 0.12), rng.uniform(-2, 2)
        strength = rng.uniform(-60, 90) * np.exp(-((slice_number - depth) ** 2))
        grey += strength * np.exp(-((x - column * width) ** 2 + (y - row * height) ** 2) / size**2) * (radius < 1)
    grey += rng.normal(0, 2, grey.shape)
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))


def _brighter(picture: Image.Image, factor: float) -> Image.Image:
    return picture.point(lambda level: min(255, round(level * factor)))


def _recompressed(picture: Image.Image) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=40)
    return Image.open(io.BytesIO(data.getvalue())).convert("L")


def _cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


ALTERATIONS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda picture: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "half turn": lambda picture: picture.transpose(Image.Transpose.ROTATE_180),
    "recompressed": _recompressed,
    "half the size": lambda picture: picture.resize((112, 112), Image.Resampling.BILINEAR),
    "stretched": lambda picture: picture.resize((512, 400), Image.Resampling.BICUBIC),
    "20% brighter": lambda picture: _brighter(picture, 1.2),
    "20% darker": lambda picture: _brighter(picture, 0.8),
    "cropped by 3% on all sides": lambda picture: _cropped(picture, 0.03, 0.03, 0.03, 0.03),
    "cropped by 3% in all": lambda picture: _cropped(picture, 0.015, 0.015, 0.015, 0.015),
    "cropped by 3% on one side": lambda picture: _cropped(picture, 0.03, 0, 0, 0),
    "cropped and mirrored": lambda picture: _cropped(picture, 0.03, 0.03, 0.03, 0.03).transpose(
        Image.Transpose.FLIP_LEFT_RIGHT
    ),
}
