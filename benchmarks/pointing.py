"""Measure how often the peak of a model's map lies in the lesion, and how often the image's centre does.

In the repository's root:  python benchmarks/pointing.py --model MODEL --data SCANS --boxes BOXES.csv

BOXES.csv has the columns scan (a path below SCANS whose last folder is the class), x0, y0, x1, y1 (shares of width and
height). The boxes of one --seed choose a method, those of another one measure it; --record keeps the rates in model.json
and the card, and `mribatch explain` then shows the maps of the classes where they beat the centre.
"""

import csv
import logging
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import recorded
import tyro
from numpy.typing import NDArray

from mribatch.errors import InputError
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.models.pointing import pointing_facts
from mribatch.scans.decode import decode
from mribatch.settings.explain import METHODS, Method
from mribatch.statistics.pointing import Pointing, inside, peaks, pointing_by_class
from mribatch.statistics.shares import percent

log = logging.getLogger("bench")

_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class PointingConfig:
    """Which boxes, and which methods."""

    model: str
    """Model directory, or its name in models/."""

    data: Path
    """Folder that the paths in --boxes are relative to."""

    boxes: Path
    """CSV with the columns scan, x0, y0, x1, y1."""

    groups: Path | None = None
    """CSV with the columns scan and group: of a group of near copies, one box at most is drawn."""

    below: str = ""
    """Use only scans whose path begins with this, such as Training/."""

    boxes_per_class: int = 50
    """Boxes drawn of each class; fewer if a class has fewer."""

    seed: int = 1
    """Decides which boxes are drawn."""

    apart_from_seeds: tuple[int, ...] = (0,)
    """Leave out the boxes that these seeds draw, such as those that chose the method."""

    methods: tuple[Method, ...] = METHODS
    """Methods to measure."""

    record: bool = False
    """Write the rates into model.json and the card of the model."""


@dataclass(frozen=True)
class Box:
    """A lesion in a scan: x0, y0, x1, y1 as shares of width and height."""

    scan: str
    edges: tuple[float, float, float, float]
    group: str

    @property
    def label(self) -> str:
        """The class: the name of the scan's folder."""
        return self.scan.split("/")[-2]


def read_boxes(config: PointingConfig) -> list[Box]:
    """Return the boxes of --boxes whose scan is wanted. Raises InputError if there are none."""
    groups: dict[str, str] = {}
    if config.groups:
        with config.groups.open() as lines:
            groups = {row["scan"]: row["group"] for row in csv.DictReader(lines)}
    with config.boxes.open() as lines:
        boxes = [
            Box(
                row["scan"],
                (float(row["x0"]), float(row["y0"]), float(row["x1"]), float(row["y1"])),
                groups.get(row["scan"], row["scan"]),
            )
            for row in csv.DictReader(lines)
            if row["scan"].startswith(config.below)
        ]
    if not boxes:
        raise InputError(f"no boxes in {config.boxes} whose scan begins with {config.below!r}: correct --below")
    return boxes


def drawn(boxes: Sequence[Box], config: PointingConfig) -> list[Box]:
    """Return the boxes of --seed: as many of each class, one of a group, none that another seed has drawn."""
    used: set[str] = set()
    for seed in (*config.apart_from_seeds, config.seed):
        chosen = _drawn(boxes, seed, config.boxes_per_class, used)
    return chosen


def _drawn(boxes: Sequence[Box], seed: int, most: int, used: set[str]) -> list[Box]:
    """Draw boxes, and add their groups to the used ones."""
    rng = np.random.default_rng(seed)
    chosen: defaultdict[str, list[Box]] = defaultdict(list)
    by_label = defaultdict(list)
    for box in boxes:
        by_label[box.label].append(box)
    for label in sorted(by_label):
        for number in rng.permutation(len(by_label[label])):
            box = by_label[label][number]
            if box.group not in used and len(chosen[label]) < most:
                used.add(box.group)
                chosen[label].append(box)
    return [box for label in sorted(chosen) for box in chosen[label]]


def pixels_of(boxes: Sequence[Box], data: Path, model: Model) -> Iterator[NDArray[np.uint8]]:
    """Yield the pixels of the boxes' scans in batches. Raises InputError for a scan that cannot be decoded."""
    for at in range(0, len(boxes), _BATCH):
        batch = []
        for box in boxes[at : at + _BATCH]:
            frame = decode((data / box.scan).read_bytes(), model.image_spec)[0]
            if frame.pixels is None:
                raise InputError(f"{box.scan} cannot be decoded ({frame.reason}): remove it from --boxes")
            batch.append(frame.pixels)
        yield np.stack(batch)


def measured(model: Model, method: Method, boxes: Sequence[Box], data: Path) -> dict[str, Pointing]:
    """Return how often the maps of a method point at the lesions, by class."""
    from mribatch.models.saliency import explainer  # loads TensorFlow

    explain = explainer(model, method)
    points = np.concatenate([peaks(explain(pixels).maps) for pixels in pixels_of(boxes, data, model)])
    edges = np.array([box.edges for box in boxes])
    log.info("%s: %d of %d", method, inside(points, edges).sum(), len(boxes))
    return pointing_by_class(points, edges, [box.label for box in boxes])


def table(methods: Mapping[Method, Mapping[str, Pointing]]) -> str:
    """Return the rates as text, one line for each method and class, with a line for all classes."""
    lines = [
        f"{'method':<12} {'class':<12} {'boxes':>5} {'right':>5} {'rate':>8} {'95% interval':>18} {'centre':>8}  maps"
    ]
    for method, classes in methods.items():
        everything = Pointing(
            boxes=sum(one.boxes for one in classes.values()),
            right=sum(one.right for one in classes.values()),
            centre=sum(one.centre for one in classes.values()),
        )
        lines += [_line(method, name, one) for name, one in {**classes, "all": everything}.items()]
    return "\n".join(lines)


def _line(method: str, name: str, one: Pointing) -> str:
    low, high = map(percent, one.interval)
    rate, centre = percent(one.right / one.boxes), percent(one.centre / one.boxes)
    return (
        f"{method:<12} {name:<12} {one.boxes:>5} {one.right:>5} {rate:>8} {low:>8}–{high:<8} {centre:>8}  {one.verdict}"
    )


def command(config: PointingConfig) -> str:
    """Return the command that repeats a measurement, with placeholders for local paths."""
    words = ["python", "benchmarks/pointing.py", "--model", "{name}", "--data", "SCANS", "--boxes", "BOXES.csv"]
    words += ["--groups", "GROUPS.csv"] if config.groups else []
    words += ["--below", config.below] if config.below else []
    words += ["--boxes-per-class", str(config.boxes_per_class), "--seed", str(config.seed), "--apart-from-seeds"]
    return " ".join([*words, *map(str, config.apart_from_seeds)])


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(PointingConfig, description=str(__doc__))
    model = directory.load_model(lookup.locate(config.model))
    boxes = drawn(read_boxes(config), config)
    methods = {method: measured(model, method, boxes, config.data) for method in config.methods}
    log.info("%s", table(methods))
    if config.record:
        recorded.record(model.uri, pointing=pointing_facts(model.digest, methods, command(config)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
