"""Measure what strong augmentation hides: shortcut probes on scans as they are and changed, and the time it takes.

In the repository's root:  python benchmarks/augmentation.py --data LABELLED/Training --output out/augmentation

A probe is a linear model on a poor view of the scans (`mribatch audit`), cross-validated with near copies kept together.
Writes OUTPUT.json, OUTPUT.md, and OUTPUT.png with some scans above their changed selves. No Ray, no TensorFlow.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bare
import machine
import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from mribatch.models.embedding import grey_thumbnails
from mribatch.scans.limits import ImageSpec
from mribatch.sources.labels import labelled
from mribatch.statistics import shortcuts
from mribatch.statistics.near_copies import clusters, near_copies
from mribatch.statistics.thumbnails import SIDE_PX
from mribatch.training.augment import strong

log = logging.getLogger("augmentation")

_BATCH = 32
_TILE_PX = 112
_VIEWS = {
    "border ring": shortcuts.border_ring,
    "grey levels": shortcuts.intensities,
    "16 × 16 thumbnail": shortcuts.small_thumbnails,
}


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Which scans, and how many."""

    data: str
    """Labelled scans: class folders or a manifest."""

    scans: int = 1600
    """Scans drawn at random."""

    draws: int = 2
    """How often each scan is changed."""

    side: int = 224
    """Side in pixels at which scans are changed."""

    shown: int = 16
    """Scans in the picture."""

    seed: int = 0
    """Decides which scans are drawn and how they are changed."""

    output: str = "out/augmentation"
    """Path of the results without extension."""


@dataclass(frozen=True, eq=False)
class _Measured:
    plain: NDArray[np.uint8]  # (N, 64, 64)
    changed: NDArray[np.uint8]  # (draws × N, 64, 64)
    ms_per_scan: float
    sheet: list[NDArray[np.uint8]]  # rows of scans


def measured(config: AugmentationConfig) -> str:
    """Measure, write the three files and return the Markdown. Raises InputError for scans that cannot be used."""
    rows = labelled(config.data).select(["scan_uri", "label"]).to_pylist()
    order = np.random.default_rng(config.seed).permutation(len(rows))[: config.scans]
    labels = tuple(sorted({row["label"] for row in rows}))
    truth = np.array([labels.index(rows[row]["label"]) for row in order], np.int64)
    result = _changed(config, [rows[row]["scan_uri"] for row in order])
    near = near_copies(result.plain, [picture.tobytes().hex() for picture in result.plain], seed=config.seed)
    groups = clusters(len(order), near.first, near.second)
    sets = {"plain": (result.plain, 1), "changed": (result.changed, config.draws)}
    facts: dict[str, Any] = {
        "scans": len(order),
        "side_px": config.side,
        "ms_per_scan_one_core": round(result.ms_per_scan, 2),
        "chance": 1 / len(labels),
        "probes": {
            name: {
                key: shortcuts.probe(
                    name, view(pictures), np.tile(truth, times), labels, np.tile(groups, times), config.seed
                ).balanced_accuracy
                for key, (pictures, times) in sets.items()
            }
            for name, view in _VIEWS.items()
        },
        **machine.facts(),
    }
    return _written(config, facts, result.sheet)


def _changed(config: AugmentationConfig, scans: list[str]) -> _Measured:
    plain, seconds = [], 0.0
    changed: list[list[NDArray[np.uint8]]] = [[] for _ in range(config.draws)]
    sheet: list[list[NDArray[np.uint8]]] = [[] for _ in range(config.draws + 1)]
    for at, pixels in _batches(scans, config.side):
        plain.append(grey_thumbnails(pixels, SIDE_PX))
        sheet[0].extend(pixels[: config.shown - len(sheet[0])])
        for draw in range(config.draws):
            start = time.process_time()
            strongly = strong(pixels, [(config.seed, draw, at + row) for row in range(len(pixels))])
            seconds += time.process_time() - start
            changed[draw].append(grey_thumbnails(strongly, SIDE_PX))
            sheet[draw + 1].extend(strongly[: config.shown - len(sheet[draw + 1])])
        log.info("%d of %d scans", at + len(pixels), len(scans))
    every = np.concatenate([part for draw in changed for part in draw])
    rows = [np.stack(row) for row in sheet]
    return _Measured(np.concatenate(plain), every, 1000 * seconds / len(every), rows)


def _batches(scans: list[str], side: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for at in range(0, len(scans), _BATCH):
        yield at, bare.pixels(scans[at : at + _BATCH], ImageSpec(side_px=side))


def _written(config: AugmentationConfig, facts: dict[str, Any], sheet: list[NDArray[np.uint8]]) -> str:
    lines = [
        "| a linear model sees only | scans as they are | changed |",
        "|---|---|---|",
        *(f"| {name} | {row['plain']:.1%} | {row['changed']:.1%} |" for name, row in facts["probes"].items()),
        "",
        f"Balanced accuracy on {facts['scans']} scans; guessing reaches {facts['chance']:.0%}. "
        f"{facts['ms_per_scan_one_core']} ms of one core ({facts['machine']['cpu']}) per scan of {facts['side_px']} px.",
    ]
    markdown = "\n".join(lines) + "\n"
    Path(config.output).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{config.output}.json").write_text(json.dumps(facts, indent=1) + "\n")
    Path(f"{config.output}.md").write_text(markdown)
    picture = Image.new("RGB", (len(sheet[0]) * _TILE_PX, len(sheet) * _TILE_PX))
    for top, row in enumerate(sheet):
        for left, scan in enumerate(row):
            picture.paste(Image.fromarray(scan).resize((_TILE_PX, _TILE_PX)), (left * _TILE_PX, top * _TILE_PX))
    picture.save(f"{config.output}.png")
    return markdown


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    print(measured(tyro.cli(AugmentationConfig, description=str(__doc__))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
