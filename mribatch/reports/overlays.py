"""Draw the map of a scan over the scan, with a ring around its peak."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["fitted", "overlay"]

_COLOURS = colormaps["inferno"](np.arange(256))[:, :3] * 255
_OPACITY = 0.7  # of the map where it is highest: the scan stays visible below it
_RING = 0.045  # radius as a share of the longer side


def fitted(pixels: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Return (side, side, 3) pixels with the proportions of the scan: its longer side is `side` long."""
    longest = max(width_px, height_px)
    size = [max(1, round(len(pixels) * side / longest)) for side in (width_px, height_px)]
    return np.asarray(Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.BICUBIC))


def overlay(
    picture: NDArray[np.uint8], values: NDArray[np.float32], peak: tuple[float, float] | None
) -> NDArray[np.uint8]:
    """Return a picture, (h, w, 3), under its map, whose values in 0…1 are stretched over the whole picture.

    peak: x and y as shares of width and height, where the ring is drawn; None draws none.
    """
    height, width = picture.shape[:2]
    stretched = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))
    share = np.clip(stretched, 0, 1)[..., None]
    colours = _COLOURS[np.rint(share[..., 0] * 255).astype(int)]
    blended = picture * (1 - _OPACITY * share) + colours * (_OPACITY * share)
    drawn = Image.fromarray(np.rint(blended).astype(np.uint8))
    if peak is not None:
        _draw_ring(drawn, peak)
    return np.asarray(drawn)


def _draw_ring(image: Image.Image, peak: tuple[float, float]) -> None:
    """Draw a white ring with a black one around it, so that it is visible on any ground."""
    x, y = peak[0] * image.width, peak[1] * image.height
    draw = ImageDraw.Draw(image)
    for radius, colour in ((_RING * max(image.size), "white"), (_RING * max(image.size) + 2, "black")):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=2)
