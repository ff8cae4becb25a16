"""Read decoded pixels as upright strips, so that even the largest picture is not copied in full."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["ArrayPicture", "Box", "Picture", "displayed_size", "is_grey", "on_black", "upright_strips"]

_STRIP_PIXELS = 4_000_000  # converting a strip takes about 10 bytes a pixel

Box = tuple[int, int, int, int]  # left, top, right, bottom, as in Pillow

_TRANSPOSES = {  # makes a picture upright, by orientation (CIPA DC-008, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture(Protocol):
    """Pixels as stored, with the orientation (1 to 8) in which to display them."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""

    @property
    def orientation(self) -> int: ...

    def part(self, box: Box) -> Image.Image:
        """Return the pixels in a box as 8-bit RGB, or as grey ("L") if all channels are alike."""


@dataclass(frozen=True)
class ArrayPicture:
    """Pixels in an array of uint8: (height, width) grey, or (height, width, 3) RGB, or (height, width, 4) CMYK."""

    pixels: NDArray[np.uint8]
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    def part(self, box: Box) -> Image.Image:
        left, top, right, bottom = box
        pixels = self.pixels[top:bottom, left:right]
        if pixels.shape[2:] == (4,):
            return Image.fromarray(pixels, "CMYK").convert("RGB")
        return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and is_grey(pixels) else pixels)


def is_grey(pixels: NDArray[np.uint8]) -> bool:
    """Return whether all channels of pixels (height, width, 3) are alike."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return np.array_equal(red, green) and np.array_equal(red, blue)


def displayed_size(picture: Picture) -> tuple[int, int]:
    """Return width and height after orientation."""
    width, height = picture.size
    return (height, width) if picture.orientation >= 5 else (width, height)


def upright_strips(picture: Picture) -> Iterator[Image.Image]:
    """Yield the picture as displayed, in strips of full width, 8-bit RGB or grey ("L"), from top to bottom."""
    width, height = displayed_size(picture)
    rows = max(1, _STRIP_PIXELS // width)
    turn = _TRANSPOSES.get(picture.orientation)
    for top in range(0, height, rows):
        strip = picture.part(_stored_box(picture, top, min(top + rows, height)))
        yield strip if turn is None else strip.transpose(turn)


def _stored_box(picture: Picture, top: int, bottom: int) -> Box:
    """Return the box in which the displayed rows from `top` to `bottom` are stored."""
    width, height = picture.size
    match picture.orientation:
        case 3 | 4:
            return 0, height - bottom, width, height - top
        case 5 | 6:
            return top, 0, bottom, height
        case 7 | 8:
            return width - bottom, 0, width - top, height
        case _:
            return 0, top, width, bottom


def on_black(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compose pixels (height, width[, 3]) on black, rounding as Pillow does."""
    weight = alpha.reshape(alpha.shape + (1,) * (pixels.ndim - alpha.ndim))
    product = pixels.astype(np.uint16) * weight + 128
    return ((product + (product >> 8)) >> 8).astype(np.uint8)
