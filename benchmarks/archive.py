"""Measure scoring of a DICOM archive: skipped files per second, memory over time, and a DICOM slice against its JPEG.

In the root of the repository:  python benchmarks/archive.py

Three measurements, each by jobs/score.py: an archive of skipped files alone; one of which 75% are skipped; and, in turns,
slices as DICOM and the same slices as JPEG. Do not use the machine for anything else meanwhile. Writes OUTPUT.json and
OUTPUT.md.
"""

import dataclasses
import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import machine
import pyarrow.dataset
import tyro
from children import run
from dicom_archive import make_archive, make_twins
from material import shown
from measures import Round, timeline
from memory import watched

from mribatch.settings.score import ScoreConfig

log = logging.getLogger("bench")

_SKIPPED_SHARE = 0.75


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """The sizes of the archives. The defaults take an hour or more on two cores, most of it for the scored quarter."""

    files: int = 200_000
    """DICOM files of the archive of which 75% are skipped."""

    skips: int = 50_000
    """DICOM files of the archive of skipped files alone."""

    slices: int = 600
    """Slices to score as DICOM and as JPEG."""

    rounds: int = 3
    """How often each is scored, in turns."""

    model: str = "models/brain-mri-v2"
    """The model directory to score with."""

    output: str = "benchmarks/archive"
    """Path of the results without extension."""


def scored(config: ArchiveConfig, scans: Path, work: Path) -> Round:
    """Score a folder, and return files per second from the first batch to the last, and memory in quarters of that time."""
    output = Path(tempfile.mkdtemp(dir=work))
    scoring = ScoreConfig(model=config.model, input=(str(scans),), output=str(output), identifiers="none")
    with watched() as memory:
        ended = run(scoring.command("jobs/score.py"), work / "score.log")
    rows = pyarrow.dataset.dataset(str(output), format="parquet").to_table(columns=["scored_at", "status"])
    measured = timeline(rows["scored_at"].to_pylist(), ended)
    del measured["batches"]
    measured["files_per_s"] = measured.pop("scans_per_s")
    measured["skipped"] = rows["status"].to_pylist().count("skipped")
    measured["memory"] = memory.summary(measured["first_row_s"], measured["last_row_s"])
    log.info("%s: %s", scans.name, measured)
    return measured


def measured(config: ArchiveConfig, work: Path) -> dict[str, Any]:
    """Make the archives and measure all."""
    make_archive(work / "skips", config.skips, skipped=config.skips)
    make_archive(work / "mixed", config.files, skipped=int(_SKIPPED_SHARE * config.files))
    make_twins(work / "slices", config.slices)
    skips, mixed = scored(config, work / "skips", work), scored(config, work / "mixed", work)
    rounds = [
        {name: scored(config, work / "slices" / name, work) for name in ("dicom", "jpeg")} for _ in range(config.rounds)
    ]
    ratios = [each["jpeg"]["files_per_s"] / each["dicom"]["files_per_s"] for each in rounds]
    return {
        "skips": skips,
        "mixed": mixed,
        "slices": rounds,
        "dicom_to_jpeg_cost": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the table of a result."""
    skips, mixed, cost = result["skips"], result["mixed"], result["dicom_to_jpeg_cost"]
    lines = [
        "# Scoring a DICOM archive",
        "",
        "| | files | skipped | files/s, first to last batch | driver, MiB | all its processes, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in (("skipped files alone", skips), ("three quarters skipped", mixed)):
        driver, workers = (" → ".join(map(str, part["memory"][key])) for key in ("driver_mib", "workers_mib"))
        rate = f"{part['files_per_s']:.0f}"
        lines.append(f"| {name} | {part['scans']:,} | {part['skipped']:,} | {rate} | {driver} | {workers} |")
    place = result["machine"]
    commit = (result["git_commit"] or "unknown")[:12] + (" with changes" if result["uncommitted_changes"] else "")
    return "\n".join(
        [
            *lines,
            "",
            f"A DICOM slice costs {cost['median']:.2f} ({cost['min']:.2f} to {cost['max']:.2f}) times as much as the same "
            "slice as JPEG, in whole scoring.",
            "",
            "Memory: anonymous memory in the four quarters of the time from the first to the last batch.",
            "",
            f"Command: `{result['command']}`, {result['seconds'] / 60:.0f} minutes. Machine: {place['cpu']}, {place['cores']} "
            f"cores, {place['memory_gib']:g} GiB, load {result['load_before']:g} before; commit {commit}; "
            f"{result['started_at'][:10]}.",
            "",
        ]
    )


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(ArchiveConfig, description=str(__doc__))
    started_at, start, load = datetime.now(UTC), time.monotonic(), round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory(prefix="mribatch-archive-") as work:
        numbers = measured(config, Path(work))
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    flags = [f"--{name} {settings[name]}" for name in ("files", "skips", "slices", "rounds")]
    result = {
        "command": " ".join(["python benchmarks/archive.py", *flags]),
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        **machine.facts(),
        "load_before": load,
        "model": shown(config.model),
        **numbers,
    }
    Path(f"{config.output}.json").write_text(json.dumps(result, indent=1) + "\n")
    Path(f"{config.output}.md").write_text(markdown(result))
    log.info("%s", markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
