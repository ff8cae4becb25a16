"""Measure the time and memory of planning a night over a large archive.

In the root of the repository:  python benchmarks/plan_million.py

Writes the predictions of a million scans into a temporary folder. Then a separate process plans a listing of as many
scans: most unchanged, some new, some changed. The time to list the scans depends on the storage and is not measured.
"""

import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from mribatch import schema
from mribatch.predictions import history, ledger

log = logging.getLogger("bench")

DIGEST = "0123456789ab"


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """The size of the archive."""

    scans: int = 1_000_000
    """Number of scans listed; as many have been scored before."""

    part_rows: int = 1_000
    """Rows per Parquet part."""

    fresh: int = 20_000
    """Number of listed scans that are new; as many have been replaced."""

    plan: str | None = None
    """Only plan, for the predictions in this folder; the benchmark starts itself with this flag."""


def names(first: int, count: int) -> list[str]:
    return [
        f"s3://archive/hospital-{n % 40:02}/study-{n // 200:06}/scan-{n:09}.jpg" for n in range(first, first + count)
    ]


def listing(config: PlanConfig) -> pa.Table:
    """Return a listing in which the first `fresh` scans are gone, the next ones replaced, and `fresh` others new."""
    uris = names(config.fresh, config.scans)
    versions = ["new-1"] * config.fresh + ["etag-123456"] * (config.scans - config.fresh)
    return pa.table([uris, versions], schema=schema.PLAN)


def fill(output: Path, config: PlanConfig) -> None:
    """Write parts of predictions as a run does."""
    columns = schema.prediction_schema(("glioma", "meningioma", "notumor", "pituitary"))
    folder = output / f"model={DIGEST}"
    folder.mkdir(parents=True)
    for first in range(0, config.scans, config.part_rows):
        uris = names(first, min(config.part_rows, config.scans - first))
        values: dict[str, Any] = {
            "scan_version": "etag-123456",
            "frame": 0,
            "content_sha256": "0" * 64,
            "status": "ok",
            "predicted_class": "glioma",
            "confidence": 0.99,
            "model_digest": DIGEST,
            "run_id": "run",
            "scored_at": datetime(2025, 1, 1, tzinfo=UTC),
        }
        arrays = {f.name: pa.repeat(pa.scalar(values.get(f.name), f.type), len(uris)) for f in columns}
        arrays["scan_uri"] = pa.array(uris)
        part = pa.table(list(arrays.values()), schema=columns)
        pq.write_table(part, folder / f"part-{first:09}-{len(uris)}.parquet", compression="zstd")


def plan(config: PlanConfig, output: str) -> dict[str, Any]:
    """Do what `nightly` does between the listing and the first scan; return its time and memory."""
    listed = listing(config)
    start, before = time.monotonic(), _peak_bytes()
    planned = ledger.plan(listed, output, DIGEST)
    due = history.backlog(planned.todo, output)
    seconds = time.monotonic() - start
    return {
        "seconds": round(seconds, 1),
        "peak_gib": round(_peak_bytes() / 2**30, 2),
        "before_gib": round(before / 2**30, 2),
        "due": dict(Counter(due["due"].to_pylist())),
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> int:
    config = tyro.cli(PlanConfig, description=str(__doc__))
    if config.plan is not None:
        print(json.dumps(plan(config, config.plan)))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        fill(output, config)
        flags = {"--plan": output, "--scans": config.scans, "--fresh": config.fresh}
        command = [sys.executable, __file__, *(str(word) for flag in flags.items() for word in flag)]
        measured = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    log.info(json.dumps({"scans": config.scans, **measured, **machine.facts()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
