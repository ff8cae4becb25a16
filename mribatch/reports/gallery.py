"""Pictures of scans beside what is said of them, as pages show them in galleries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mribatch.reports.rendering import Picture, picture, png

__all__ = ["Shown", "scan_name", "shown"]

_NAME_PARTS = 3  # of a path: split, class and file


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One or two pictures side by side, and what is said of them."""

    caption: str
    pictures: Sequence[Picture]


def shown(caption: str, *scans: tuple[str, NDArray[np.uint8]]) -> Shown:
    """Return pictures, each a name and (h, w) grey or (h, w, 3) RGB pixels, with a common caption."""
    return Shown(caption=caption, pictures=[picture(name, png(pixels)) for name, pixels in scans])


def scan_name(uri: str, frame: int) -> str:
    """Return the last names of a scan's URI, and the frame where it is not the first."""
    name = "/".join(uri.split("/")[-_NAME_PARTS:])
    return f"{name}, frame {frame}" if frame else name
