"""Alter grey pictures as scanners, archives and mishaps do: 17 kinds, each at two strengths, seeded.

The kinds follow Hendrycks and Dietterich (ICLR 2019), with those of MR added: Rician noise, bias field, motion, inversion.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mribatch.training.augment_intensity import equalized, equalized_locally

__all__ = ["CORRUPTIONS", "NOISES", "Change", "filtered", "only_box", "painted_out"]

Grey = NDArray[np.uint8]
Change = Callable[[Grey, np.random.Generator], Grey]
"""Returns an altered (side, side) picture of the same shape."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in shares of width and height."""

NOISES = ("Gaussian noise", "Rician noise")
_FILL_STEPS = 300  # of relaxation; a box of 60 px has settled by then
_MARGIN = 0.15  # of the box's side: a lesion has a rim


def filtered(grey: Grey, _: np.random.Generator) -> Grey:
    """Return the picture after CLAHE with a clip limit of 2 and 8 × 8 tiles, OpenCV's example."""
    return equalized_locally(grey, tiles=8, clip=2.0)


def painted_out(grey: Grey, box: Box) -> Grey:
    """Return the picture with the box, a little enlarged, filled smoothly from its rim (Laplace's equation)."""
    rows, columns = _pixels(box, grey.shape[0], _MARGIN)
    area = grey[rows, columns].astype(np.float32)
    area[1:-1, 1:-1] = np.concatenate([area[0], area[-1], area[:, 0], area[:, -1]]).mean()
    for _ in range(_FILL_STEPS):
        area[1:-1, 1:-1] = (area[:-2, 1:-1] + area[2:, 1:-1] + area[1:-1, :-2] + area[1:-1, 2:]) / 4
    filled = grey.copy()
    filled[rows, columns] = area.round().astype(np.uint8)
    return filled


def only_box(grey: Grey, box: Box) -> Grey:
    """Return the picture black outside the box, a little enlarged."""
    rows, columns = _pixels(box, grey.shape[0], _MARGIN)
    kept = np.zeros_like(grey)
    kept[rows, columns] = grey[rows, columns]
    return kept


def _pixels(box: Box, side: int, margin: float) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    ends = [(max(0, low), min(1, high)) for low, high in ((y0 - dy, y1 + dy), (x0 - dx, x1 + dx))]
    rows, columns = (slice(int(low * side), max(int(low * side) + 1, round(high * side))) for low, high in ends)
    return rows, columns


def _rounded(values: NDArray[np.floating]) -> Grey:
    levels: Grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def _curve(levels: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Change:
    """Return a change of grey levels by a curve on 0…1."""
    table = _rounded(255 * levels(np.arange(256) / 255))
    return lambda grey, _: table[grey]


def _gaussian(sigma: float) -> Change:
    return lambda grey, rng: _rounded(grey + rng.normal(0, sigma, grey.shape))


def _rician(sigma: float) -> Change:
    def change(grey: Grey, rng: np.random.Generator) -> Grey:
        return _rounded(np.hypot(grey + rng.normal(0, sigma, grey.shape), rng.normal(0, sigma, grey.shape)))

    return change


def _blurred(sigma: float) -> Change:
    return lambda grey, _: _rounded(ndimage.gaussian_filter(grey.astype(np.float32), sigma * len(grey) / 224))


def _downsampled(share: float) -> Change:
    def change(grey: Grey, _: np.random.Generator) -> Grey:
        side = len(grey)
        small = Image.fromarray(grey).resize((round(side * share),) * 2, Image.Resampling.BOX)
        return np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))

    return change


def _equalized(share: float) -> Change:
    return lambda grey, _: _rounded((1 - share) * grey + share * equalized(grey))


def _locally_equalized(clip: float) -> Change:
    return lambda grey, _: equalized_locally(grey, tiles=8, clip=clip)


def _jpeg(quality: int) -> Change:
    def change(grey: Grey, _: np.random.Generator) -> Grey:
        data = io.BytesIO()
        Image.fromarray(grey).save(data, "JPEG", quality=quality)
        return np.asarray(Image.open(data).convert("L"))

    return change


def _rotated(degrees: float) -> Change:
    """Return a rotation to either side, as a tilted head has."""

    def change(grey: Grey, rng: np.random.Generator) -> Grey:
        angle = degrees * rng.choice((-1, 1))
        return np.asarray(Image.fromarray(grey).rotate(angle, Image.Resampling.BICUBIC))

    return change


def _turned(quarters: int) -> Change:
    return lambda grey, _: np.rot90(grey, quarters)


def _cropped(share: float) -> Change:
    """Return a crop by a share of the side at each edge, enlarged again."""

    def change(grey: Grey, _: np.random.Generator) -> Grey:
        side, cut = len(grey), len(grey) * share
        image = Image.fromarray(grey)
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, (cut, cut, side - cut, side - cut)))

    return change


def _shifted(share: float) -> Change:
    """Return a shift in a random diagonal direction; what comes in is black."""

    def change(grey: Grey, rng: np.random.Generator) -> Grey:
        steps = (rng.choice((-1, 1), 2) * round(share * len(grey))).tolist()
        return np.asarray(ndimage.shift(grey, steps, order=0))

    return change


def _inverted(share: float) -> Change:
    """Return the negative; a share below 1 inverts bright levels only, as overexposed film does."""
    return _curve(lambda x: np.where(x > 1 - share, (1 - x) * (1 - share) / share if share < 1 else 1 - x, x))


def _shaded(strength: float) -> Change:
    """Return the picture under a bias field that falls from one random side to the other."""

    def change(grey: Grey, rng: np.random.Generator) -> Grey:
        line, angle = np.linspace(-1, 1, len(grey)), rng.uniform(0, 2 * np.pi)
        slope = np.cos(angle) * line + np.sin(angle) * line[:, None]
        return _rounded(grey * np.exp(strength * slope))

    return change


def _ghosted(strength: float) -> Change:
    """Return the picture with ghosts: some lines of k-space have another phase, as after a movement."""

    def change(grey: Grey, rng: np.random.Generator) -> Grey:
        lines = np.fft.fft(grey.astype(np.float32), axis=0)
        moved = rng.random(len(grey)) < strength
        moved[np.abs(np.fft.fftfreq(len(grey))) < 0.02] = False  # the centre holds the picture's contrast
        shift = np.exp(-2j * np.pi * np.fft.fftfreq(len(grey)) * rng.uniform(4, 10) * len(grey) / 224)
        lines[moved] *= shift[moved, None]
        return _rounded(np.abs(np.fft.ifft(lines, axis=0)))

    return change


CORRUPTIONS: Mapping[str, tuple[Change, Change]] = {
    "Gaussian noise": (_gaussian(15), _gaussian(40)),
    "Rician noise": (_rician(15), _rician(40)),
    "blur": (_blurred(1.5), _blurred(3.0)),
    "downsampled": (_downsampled(0.4), _downsampled(0.2)),
    "histogram equalized": (_equalized(0.5), _equalized(1.0)),
    "CLAHE": (_locally_equalized(2.0), _locally_equalized(4.0)),
    "gamma": (_curve(lambda x: x**0.6), _curve(lambda x: x**2.2)),
    "contrast": (_curve(lambda x: 0.35 + 0.5 * (x - 0.35)), _curve(lambda x: 0.35 + 0.25 * (x - 0.35))),
    "brightness": (_curve(lambda x: 0.6 * x), _curve(lambda x: 0.3 * x)),
    "JPEG": (_jpeg(25), _jpeg(8)),
    "rotation": (_rotated(10), _rotated(25)),
    "turned by 90° and 180°": (_turned(1), _turned(2)),
    "crop": (_cropped(0.05), _cropped(0.12)),
    "shift": (_shifted(0.05), _shifted(0.12)),
    "inversion": (_inverted(0.5), _inverted(1.0)),
    "bias field": (_shaded(0.4), _shaded(0.9)),
    "motion ghosts": (_ghosted(0.15), _ghosted(0.45)),
}
"""The two strengths of each kind, the weaker one first, where one is weaker. Grey levels are of 255, pixels of 224."""
