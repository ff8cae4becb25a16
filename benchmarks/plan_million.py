"""How long and with how much memory is a night planned over a large archive?

In the repository's root:  python benchmarks/plan_million.py

Writes an output of so many scored scans into a temporary folder, then plans, in a process of its own, a listing of as many: most
as they were, some new, some changed. Listing the scans themselves is the storage's part, and not measured.
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
    """How large the archive is."""

    scans: int = 1_000_000
    """Scans listed, and scans scored before."""

    part_rows: int = 1_000
    """Rows per Parquet part."""

    fresh: int = 20_000
    """Scans of the listing that are new, and as many that were replaced."""

    plan: str | None = None
    """Only plan, for the output in this folder; what the benchmark calls itself with."""


def names(first: int, count: int) -> list[str]:
    return [
        f"s3://archive/hospital-{n % 40:02}/study-{n // 200:06}/scan-{n:09}.jpg" for n in range(first, first + count)
    ]


def listing(config: PlanConfig) -> pa.Table:
    """The first `fresh` scans have left, the next ones were replaced, and `fresh` new ones came."""
    uris = names(config.fresh, config.scans)
    versions = ["new-1"] * config.fresh + ["etag-123456"] * (config.scans - config.fresh)
    return pa.table([uris, versions], schema=schema.PLAN)


def fill(output: Path, config: PlanConfig) -> None:
    """Parts as runs write them."""
    columns = schema.prediction_schema(("glioma", "meningioma", "notumor", "pituitary"))
    folder = output / f"model={DIGEST}"
    folder.mkdir(parents=True)
    for first in range(0, config.scans, config.part_rows):
        uris = names(first, min(config.part_rows, config.scans - first))
        values: dict[str, Any] = {
            "scan_uri": uris, "scan_version": "etag-123456", "frame": 0, "content_sha256": "0" * 64, "status": "ok",
            "predicted_class": "glioma", "confidence": 0.99, "model_digest": DIGEST, "run_id": "run",
            "scored_at": datetime(2025, 1, 1, tzinfo=UTC),
        }  # fmt: skip
        arrays = [
            pa.array(uris) if f.name == "scan_uri" else pa.repeat(pa.scalar(values.get(f.name), f.type), len(uris))
            for f in columns
        ]
        pq.write_table(
            pa.table(arrays, schema=columns), folder / f"part-{first:09}-{len(uris)}.parquet", compression="zstd"
        )


def plan(config: PlanConfig, output: str) -> dict[str, Any]:
    """What `nightly` does between the listing and the first scan."""
    listed = listing(config)
    begun, before = time.monotonic(), _peak_bytes()
    planned = ledger.plan(listed, output, DIGEST)
    due = history.backlog(planned.todo, output)
    seconds = time.monotonic() - begun
    return {"seconds": round(seconds, 1), "peak_gib": round(_peak_bytes() / 2**30, 2),
            "before_gib": round(before / 2**30, 2), "due": dict(Counter(due["due"].to_pylist()))}  # fmt: skip


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
        command = [
            sys.executable,
            __file__,
            "--plan",
            str(output),
            "--scans",
            str(config.scans),
            "--fresh",
            str(config.fresh),
        ]
        told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    log.info(json.dumps({"scans": config.scans, **told, **machine.facts()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
