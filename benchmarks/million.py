"""Measure how long a run over a million listed scans takes until its first scan is read, and the memory of its driver.

In the root of the repository:  python benchmarks/million.py

The listing is simulated: its names and versions appear at once, as the time to list depends on the storage. Listing,
plan, start of Ray and blocks are those of a run; a few scans exist and are read, then the run is stopped.
"""

import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import machine
import pyarrow as pa
import tyro
from children import REPOSITORY

from mribatch.predictions import ledger
from mribatch.scans.limits import ImageSpec
from mribatch.sources.listing import list_scans
from mribatch.stores import uris
from mribatch.stores.uris import Entry

log = logging.getLogger("bench")

DIGEST = "0123456789ab"
SAMPLE = REPOSITORY / "samples/glioma/Te-gl_0010.jpg"


@dataclass(frozen=True, kw_only=True)
class MillionConfig:
    """The size of the listing."""

    scans: int = 1_000_000
    """Number of scans listed."""

    existing: int = 64
    """Number of scans that exist, the first ones."""

    output: str | None = None
    """A JSON file to write the result to as well."""

    begun: float | None = None
    """Only measure, as the process that began at this moment of time.monotonic; the benchmark starts itself with this flag."""

    folder: str = ""
    """The folder of that process."""


def listing(folder: str, scans: int) -> Iterator[Entry]:
    """Yield scans with names of a common length."""
    size = SAMPLE.stat().st_size
    for number in range(scans):
        name = f"{folder}/hospital-{number * 40 // scans:02}/study-{number // 200:06}/scan-{number:09}.jpg"
        yield Entry(name, f"{size}-{number}", size)


def fill(folder: str, config: MillionConfig) -> None:
    """Write the scans that exist."""
    data = SAMPLE.read_bytes()
    for entry, _ in zip(listing(folder, config.scans), range(config.existing), strict=False):
        Path(entry.uri).parent.mkdir(parents=True, exist_ok=True)
        Path(entry.uri).write_bytes(data)
        os.utime(entry.uri, ns=(0, int(entry.version.partition("-")[2])))


def measure(config: MillionConfig) -> dict[str, Any]:
    """Do what `score` does up to the first decoded block; return when each step ended, and the peak memory."""
    moments: dict[str, float] = {}

    def ended(step: str) -> None:
        moments[step] = round(time.monotonic() - (config.begun or 0), 1)

    with patch.object(uris, "walk", lambda *_: listing(f"{config.folder}/scans", config.scans)):
        listed = list_scans([f"{config.folder}/scans"])
    ended("listed_s")
    plan = ledger.plan(listed, f"{config.folder}/out", DIGEST)
    ended("planned_s")
    first_rows = _first_rows(plan, ended)
    peak = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "scans": config.scans,
        **moments,
        "first_rows": first_rows,
        "driver_cpu_s": round(peak.ru_utime + peak.ru_stime, 1),
        "driver_peak_gib": round((peak.ru_maxrss << 10) / 2**30, 2),
    }


def _first_rows(plan: ledger.Plan, ended: Any) -> int:
    from mribatch.cluster.blocks import growing
    from mribatch.cluster.nodes import working_cores
    from mribatch.cluster.session import session
    from mribatch.cluster.streaming import decoded

    spec = ImageSpec(side_px=224)
    with session():
        ended("ray_started_s")
        blocks = growing(plan.todo, 32, spec.side_px, working_cores())
        rows = decoded(plan.todo, spec, block_rows=blocks, among=plan.witnesses)
        first: pa.Table = next(iter(rows.iter_batches(batch_size=None, batch_format="pyarrow")))
        ended("first_read_s")
        return int(first.num_rows)


def main() -> int:
    config = tyro.cli(MillionConfig, description=str(__doc__))
    if config.begun is not None:
        print(json.dumps(measure(config)))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        fill(f"{folder}/scans", config)
        flags = {"--scans": config.scans, "--folder": folder, "--begun": time.monotonic()}
        command = [sys.executable, __file__, *(str(word) for flag in flags.items() for word in flag)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured = {**json.loads(done.stdout.splitlines()[-1]), "load_before": round(load, 1), **machine.facts()}
    text = json.dumps(measured, indent=1)
    if config.output is not None:
        Path(config.output).write_text(text + "\n")
    log.info(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
