"""Give all peers the same flags, the same scans in the same order, and the same columns to write."""

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch import schema
from mribatch.models import directory
from mribatch.models.format import Model

__all__ = ["Task", "batches", "columns", "report", "task", "write"]


@dataclass(frozen=True)
class Task:
    """What a peer is asked for."""

    model: str
    data: str
    output: str
    batch_size: int
    pixels: bool
    """Write the decoded pixels in place of predictions, so that they can be compared."""

    def opened(self) -> Model:
        """Return the description of the model."""
        return directory.open_model(self.model)

    def scans(self) -> list[str]:
        """Return the paths of all scans, in order."""
        return sorted(str(path) for path in Path(self.data).rglob("*") if path.is_file())


def task(description: str | None) -> Task:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=description)
    for flag in ("--model", "--data", "--output"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pixels", action="store_true", help="write pixels in place of predictions")
    flags = parser.parse_args()
    return Task(
        str(Path(flags.model).resolve()),
        str(Path(flags.data).resolve()),
        str(Path(flags.output).resolve()),
        flags.batch_size,
        flags.pixels,
    )


def batches(scans: Sequence[str], size: int) -> Iterable[list[str]]:
    """Yield the scans in batches."""
    return (list(scans[start : start + size]) for start in range(0, len(scans), size))


def columns(scans: Sequence[str], values: NDArray[Any], labels: Sequence[str] | None) -> dict[str, Any]:
    """Return the columns of some rows: names of scans, and probabilities with the time of now, or pixels.

    values: (N, labels) float32; without labels, pixels, (N, side, side, 3) in 0…255.
    """
    rows: dict[str, Any] = {"scan": [Path(scan).name for scan in scans]}
    if labels is None:
        whole_levels = np.clip(np.rint(np.asarray(values, np.float32)), 0, 255).astype(np.uint8)
        return rows | {"pixels": [image.tobytes() for image in whole_levels]}
    rows |= {schema.probability_column(label): values[:, number] for number, label in enumerate(labels)}
    return rows | {"scored_at": [time.time()] * len(rows["scan"])}


def write(tables: Iterable[dict[str, Any]], output: str) -> None:
    """Write rows as one Parquet file, with pandas."""
    import pandas as pd

    Path(output).mkdir(parents=True, exist_ok=True)
    frames = pd.concat([pd.DataFrame(table) for table in tables], ignore_index=True)
    frames.to_parquet(Path(output) / "predictions.parquet")


def report(*libraries: str) -> None:
    """Print the versions of the libraries that did the work, as the last line."""
    print(json.dumps({name: version(name) for name in libraries}))
