"""Measure the time and memory that finding near copies among many thumbnails takes.

In the repository's root:  python benchmarks/near_copies.py

Makes thumbnails of heads from random blobs, plants an altered copy of some of them, and looks for near copies. Reading and
decoding scans is not measured here.
"""

import json
import logging
import resource
import sys
import time
from dataclasses import dataclass

import machine
import numpy as np
import tyro
from numpy.typing import NDArray

from mribatch.statistics.near_copies import near_copies
from mribatch.statistics.thumbnails import SIDE_PX, oriented

log = logging.getLogger("bench")

_BLOCK = 2000
_BLOBS = 40


@dataclass(frozen=True, kw_only=True)
class NearCopiesConfig:
    """How many thumbnails there are."""

    thumbnails: int = 100_000
    """Thumbnails, planted copies among them."""

    planted: int = 5_000
    """Copies of others: mirrored, darker and with noise, or shifted by a pixel."""

    seed: int = 0
    """Decides what the thumbnails look like."""


def heads(count: int, seed: int) -> NDArray[np.uint8]:
    """Return (count, 64, 64) thumbnails, each an ellipse with blobs of its own."""
    line = np.linspace(-1, 1, SIDE_PX, dtype=np.float32)
    made = np.zeros((count, SIDE_PX, SIDE_PX), np.uint8)
    for at in range(0, count, _BLOCK):
        rng = np.random.default_rng([seed, at])
        size = min(_BLOCK, count - at)
        axes = rng.uniform(0.6, 0.9, (2, size, 1)).astype(np.float32)
        radius = (line / axes[0])[:, None, :] ** 2 + (line / axes[1])[:, :, None] ** 2
        places = rng.uniform(-0.7, 0.7, (2, size, _BLOBS, 1)).astype(np.float32)
        widths = rng.uniform(0.04, 0.15, (size, _BLOBS, 1)).astype(np.float32)
        rows, columns = (np.exp(-(((line - place) / widths) ** 2)) for place in places)
        strengths = rng.uniform(-60, 90, (size, _BLOBS, 1)).astype(np.float32)
        grey = (rows * strengths).transpose(0, 2, 1) @ columns + 70
        made[at : at + size] = np.clip(np.where(radius < 1, grey, 0), 0, 255).astype(np.uint8)
    return made


def planted(originals: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a copy of each thumbnail: a third mirrored, a third darker and noisy, a third shifted by a pixel."""
    copies = originals.copy()
    copies[::3] = oriented(originals[::3], 1)
    noisy = originals[1::3] * np.float32(0.8) + rng.normal(0, 2, originals[1::3].shape)
    copies[1::3] = np.clip(noisy, 0, 255).astype(np.uint8)
    copies[2::3] = np.roll(originals[2::3], 1, axis=2)
    return copies


def measured(config: NearCopiesConfig) -> dict[str, float | int | str]:
    """Return seconds, memory, and how many planted copies were found."""
    rng = np.random.default_rng(config.seed)
    originals = heads(config.thumbnails - config.planted, config.seed)
    sources = np.sort(rng.permutation(len(originals))[: config.planted])
    pictures = np.concatenate([originals, planted(originals[sources], rng)])
    wall, cpu = time.monotonic(), time.process_time()
    copies = near_copies(pictures, [str(number) for number in range(len(pictures))], seed=config.seed)
    expected = set(zip(sources.tolist(), range(len(originals), len(pictures)), strict=True))
    pairs = set(zip(copies.first.tolist(), copies.second.tolist(), strict=True))
    return {
        "thumbnails": len(pictures),
        "planted": config.planted,
        "planted_pairs_found": len(expected & pairs),
        "other_pairs": len(pairs - expected),
        "wall_s": round(time.monotonic() - wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(NearCopiesConfig, description=str(__doc__))
    log.info("%s", json.dumps({"machine": machine.facts(), **measured(config)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
