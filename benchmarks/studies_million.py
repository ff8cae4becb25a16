"""Measure the time and memory of summing up a million rows by series and by study.

In the root of the repository:  python benchmarks/studies_million.py

Writes the predictions of a million slices into a temporary folder. Then a separate process runs `mribatch studies`.
"""

import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from mribatch import StudiesConfig, schema, studies

log = logging.getLogger("bench")

DIGEST = "0123456789ab"
LABELS = ("glioma", "meningioma", "notumor", "pituitary")
SERIES_SLICES, STUDY_SERIES = 180, 4


@dataclass(frozen=True, kw_only=True)
class StudiesBenchmark:
    """The size of the archive."""

    rows: int = 1_000_000
    """Number of slices; series of 180, studies of four series."""

    part_rows: int = 1_000
    """Rows per Parquet part."""

    run: str | None = None
    """Only sum up the predictions in this folder; the benchmark starts itself with this flag."""


def fill(output: Path, config: StudiesBenchmark) -> None:
    """Write parts of predictions in random order, as runs over a growing archive leave them."""
    fields = schema.prediction_schema(LABELS)
    order = np.random.default_rng(0).permutation(config.rows)
    folder = output / f"model={DIGEST}"
    folder.mkdir(parents=True)
    for first in range(0, config.rows, config.part_rows):
        columns = slices(order[first : first + config.part_rows])
        count = len(columns["scan_uri"])
        arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type) for f in fields]
        pq.write_table(pa.table(arrays, schema=fields), folder / f"part-{first:09}-{count}.parquet", compression="zstd")


def slices(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
    """Return the columns of some slices, by their numbers in the archive."""
    series = numbers // SERIES_SLICES
    shares = np.random.default_rng(int(numbers[0])).dirichlet((0.2, 0.2, 4.0, 0.2), len(numbers)).astype(np.float32)
    same = {
        "scan_version": "etag-123456",
        "frame": 0,
        "frames": 1,
        "status": "ok",
        "format": "DICOM",
        "kind": "anatomical",
        "modality": "MR",
        "plane": "axial",
        "window": "header",
        "reading": "5e6f7a8b9c0d",
        "model_digest": DIGEST,
        "run_id": "run",
        "scored_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return {
        "scan_uri": [f"s3://archive/hospital-{n % 40:02}/study-{n // 720:06}/{n:032x}.dcm" for n in numbers],
        "content_sha256": [f"{n:064x}" for n in numbers],
        "instance_key": [f"{n:032x}" for n in numbers],
        "series_key": [f"{n:032x}" for n in series],
        "study_key": [f"{n:032x}" for n in series // STUDY_SERIES],
        "patient_key": [f"{n:032x}" for n in series // STUDY_SERIES],
        "slice_mm": (numbers % SERIES_SLICES).astype(float),
        **{schema.probability_column(label): shares[:, k] for k, label in enumerate(LABELS)},
        **{name: [value] * len(numbers) for name, value in same.items()},
    }


def summed(output: str) -> dict[str, Any]:
    """Run the command on an output; return its time, its memory and the size of its tables."""
    start, before = time.monotonic(), _peak_bytes()
    done = studies(StudiesConfig(output=output))
    return {
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "peak_gib": round(_peak_bytes() / 2**30, 2),
        "before_gib": round(before / 2**30, 2),
        "series": done.series.num_rows,
        "studies": done.studies.num_rows,
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> int:
    config = tyro.cli(StudiesBenchmark, description=str(__doc__))
    if config.run is not None:
        print(json.dumps(summed(config.run)))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        fill(output, config)
        command = [sys.executable, __file__, "--run", str(output)]
        measured = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    log.info(json.dumps({"rows": config.rows, **measured, **machine.facts()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
