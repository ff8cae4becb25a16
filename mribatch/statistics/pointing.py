"""Count how often the peak of a map lies in the lesion, and how often the centre of the image does: the pointing game.

Zhang et al. 2018, "Top-down neural attention by excitation backprop", IJCV 126.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mribatch.statistics.metrics import wilson_interval

__all__ = ["CENTRE", "Pointing", "Verdict", "inside", "peak_of", "peaks", "pointing_by_class", "verdict_of"]

CENTRE = (0.5, 0.5)
"""The guess of someone who does not look: x and y as shares of width and height."""


LEAST_BOXES = 20  # the centre's rate is uncertain, too


class Verdict(StrEnum):
    """Whether a class's maps point at lesions better than the centre of the image does."""

    BEATS_CENTRE = "beats_centre"
    NO_BETTER = "no_better"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True, kw_only=True)
class Pointing:
    """How many lesions of a class are hit, by the peaks of the maps and by the centre of the image."""

    boxes: int
    right: int
    centre: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the maps' rate (Wilson)."""
        return wilson_interval(self.right, self.boxes)

    @property
    def verdict(self) -> Verdict:
        """BEATS_CENTRE if the interval lies above the centre's rate. Fewer than LEAST_BOXES measure nothing."""
        if self.boxes < LEAST_BOXES:
            return Verdict.NOT_MEASURED
        return Verdict.BEATS_CENTRE if self.interval[0] > self.centre / self.boxes else Verdict.NO_BETTER

    def as_dict(self) -> dict[str, int]:
        """Return the counts, ready for JSON."""
        return asdict(self)


def peaks(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return where each of (N, h, w) maps is highest, (N, 2): x and y as shares of width and height, at pixel centres."""
    _, height, width = maps.shape
    rows, columns = np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), (height, width))
    return np.stack([(columns + 0.5) / width, (rows + 0.5) / height], axis=1)


def peak_of(values: NDArray[np.float32]) -> tuple[float, float] | None:
    """Return where an (h, w) map is highest, as `peaks` does; None if it is nowhere above 0."""
    x, y = peaks(values[None])[0].tolist()
    return (x, y) if values.max() > 0 else None


def inside(points: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of (N, 2) points lie in their box of (N, 4): x0, y0, x1, y1, edges included."""
    hits: NDArray[np.bool_] = np.all((points >= boxes[:, :2]) & (points <= boxes[:, 2:]), axis=1)
    return hits


def pointing_by_class(
    points: NDArray[np.float64], boxes: NDArray[np.float64], classes: Sequence[str]
) -> dict[str, Pointing]:
    """Return the counts of each class that has boxes. points, boxes: as for `inside`; classes: one for each box."""
    hits, centre = inside(points, boxes), inside(np.full((len(boxes), 2), CENTRE), boxes)
    names = np.array(classes)
    return {
        name: Pointing(
            boxes=int((names == name).sum()),
            right=int(hits[names == name].sum()),
            centre=int(centre[names == name].sum()),
        )
        for name in sorted(set(classes))
    }


def verdict_of(pointing: Mapping[str, Pointing], label: str) -> Verdict:
    """Return the verdict on a class, which may be missing among those that were measured."""
    return pointing[label].verdict if label in pointing else Verdict.NOT_MEASURED
