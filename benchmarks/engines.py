"""Measure jobs/score.py with each engine in turns, and how far their probabilities differ; write one JSON file.

In the root of the repository:  python benchmarks/engines.py --output engines.json

CPU-seconds are those of the whole process tree, Ray's processes included; they depend less than wall times on what else
the machine does. Linux only.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import material
import numpy as np
import pyarrow.dataset
import tyro
from bench import SCAN_FOLDER
from children import run
from machine import facts
from numpy.typing import NDArray

from mribatch import schema
from mribatch.models import directory
from mribatch.models.engine import library
from mribatch.settings.score import ScoreConfig

Network = Literal["tensorflow", "openvino"]
ENGINES: tuple[Network, ...] = ("tensorflow", "openvino")


@dataclass(frozen=True, kw_only=True)
class EnginesConfig:
    """Settings of the comparison."""

    output: str
    """The JSON file to write."""

    model: str = "models/brain-mri-v2"
    """The model directory to score with."""

    data: str | None = None
    """A folder of scans to score. Default: the public testing scans, else copies of samples/."""

    scans: tuple[int, ...] = (17, 256)
    """Numbers of scans to score, each with both engines."""

    rounds: int = 1
    """Runs with each engine."""


def main(config: EnginesConfig) -> None:
    result: dict[str, Any] = {"machine": facts(), "versions": {name: library(name) for name in ENGINES}, "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        for count in config.scans:
            work = Path(folder) / str(count)
            scans = material.gather(config.data, SCAN_FOLDER, count, work / "scans")
            runs = [measured(config, work, engine, n) for n in range(config.rounds) for engine in ENGINES]
            result["runs"] += [{"scans": scans, **run} for run in runs]
            result[f"agreement on {count}"] = agreement(config.model, [work / f"{engine}-0" for engine in ENGINES])
    Path(config.output).write_text(json.dumps(result, indent=1) + "\n")


def measured(config: EnginesConfig, work: Path, engine: Network, number: int) -> dict[str, Any]:
    """Return what one run took: seconds, CPU-seconds of all its processes, peak memory by role."""
    output, load = work / f"{engine}-{number}", os.getloadavg()[0]
    scoring = ScoreConfig(model=config.model, input=(str(work / "scans"),), output=str(output), engine=engine)
    ended = run(scoring.command("jobs/score.py"), work / "score.log")
    (record,) = (json.loads(path.read_text()) for path in (output / "_runs").glob("*.json"))
    return {
        "engine": record["engine"],
        "wall_s": round(ended.seconds, 1),
        "cpu_s": round(ended.cpu_s, 1),
        "peak_mb": {role: size >> 20 for role, size in record["peak_memory_bytes"].items()},
        "load_before": round(load, 1),
    }


def agreement(model: str, outputs: list[Path]) -> dict[str, Any]:
    """Return how far the probabilities in two outputs differ at most, and for how many scans the class does."""
    columns = [schema.probability_column(label) for label in directory.open_model(model).labels]
    first, second = (_probabilities(output, columns) for output in outputs)
    changed = int((first.argmax(axis=1) != second.argmax(axis=1)).sum())
    return {"scans": len(first), "largest_difference": float(np.abs(first - second).max()), "changed_classes": changed}


def _probabilities(output: Path, columns: list[str]) -> NDArray[np.float32]:
    table = pyarrow.dataset.dataset(output, format="parquet", exclude_invalid_files=True).to_table(
        columns=["scan_uri", *columns]
    )
    rows = table.sort_by("scan_uri").drop_columns(["scan_uri"])
    return np.stack([rows[name].to_numpy() for name in columns], axis=1)


if __name__ == "__main__":
    main(tyro.cli(EnginesConfig, description=__doc__))
