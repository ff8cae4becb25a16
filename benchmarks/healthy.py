"""Count the slices of healthy people that a model gives a tumour class, by kind of picture.

In the root of the repository:  python benchmarks/healthy.py --data FOLDER --about "Whose scans FOLDER holds."

FOLDER holds DICOM files of healthy people, and manifest.csv with the columns `file` and `kind`. They are scored with the
default selection, then with --select all, which adds what the default skips. Writes OUTPUT.json and OUTPUT.md. With
--about, it also writes the table into the model's card and model.json, and into docs/dicom.md.
"""

import csv
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import pyarrow.dataset
import recorded
import tyro
from children import run
from material import shown

from mribatch.errors import InputError
from mribatch.models import directory
from mribatch.models.card import healthy_table
from mribatch.settings.score import ScoreConfig

log = logging.getLogger("bench")

_MANIFEST = "manifest.csv"
_MANUAL = Path("docs/dicom.md")
_SECTION = "## Healthy people\n"  # the last one of that page


@dataclass(frozen=True, kw_only=True)
class HealthyConfig:
    """Which scans to score, with which model."""

    data: str
    """A folder of DICOM files of healthy people with a manifest.csv."""

    model: str = "models/brain-mri-v2"
    """The model directory to score with."""

    healthy_class: str = "notumor"
    """The class of a brain without a tumour. All other classes count as a tumour."""

    output: str = "benchmarks/healthy"
    """Path of the results without extension."""

    about: str = ""
    """A sentence on the people and scans of the folder, for the model's card and the manual. Without it, they stay."""


def kinds(data: Path) -> dict[str, str]:
    """Return the kind of each file of the manifest, by its path in the folder. Raises InputError."""
    try:
        with (data / _MANIFEST).open(newline="") as lines:
            return {row["file"]: row["kind"] or "unknown" for row in csv.DictReader(lines)}
    except (OSError, KeyError) as err:
        raise InputError(f"expected {_MANIFEST} with the columns file and kind in {data}") from err


def commands(config: HealthyConfig, scans: str, output: str) -> list[ScoreConfig]:
    """Return the two runs: with the default selection, then of all that it skipped."""
    default = ScoreConfig(
        model=config.model,
        input=(scans,),
        exclude=(_MANIFEST, "*.md"),
        output=output,
        max_reject_rate=1.0,
        identifiers="none",
    )
    return [default, replace(default, select="all")]


def answers(data: Path, predictions: Path) -> dict[tuple[str, int], str]:
    """Return the class of each slice that has one, by the path of its file in the folder and its frame."""
    columns = ["scan_uri", "frame", "predicted_class"]
    rows = pyarrow.dataset.dataset(str(predictions), format="parquet").to_table(columns=columns).to_pylist()
    return {
        (str(Path(row["scan_uri"]).relative_to(data)), row["frame"]): row["predicted_class"]
        for row in rows
        if row["predicted_class"]
    }


def counts(config: HealthyConfig, data: Path, work: Path) -> dict[str, Any]:
    """Score the folder with both selections. Return slices and tumour classes of each kind and of the default."""
    kind, chosen = kinds(data), []
    for scoring in commands(config, str(data), str(work / "predictions")):
        run(scoring.command("jobs/score.py"), work / "score.log")
        chosen.append(answers(data, work / "predictions"))
    default, everything = chosen
    tumours = [place for place, label in everything.items() if label != config.healthy_class]
    by_kind: dict[str, dict[str, int]] = {}
    for name, places in (("slices", everything), ("default", default), ("tumours", tumours)):
        for group, count in Counter(kind.get(file, "unknown") for file, _ in places).items():
            by_kind.setdefault(group, {"slices": 0, "default": 0, "tumours": 0})[name] = count
    return {
        "by_kind": dict(sorted(by_kind.items(), key=lambda item: -item[1]["slices"])),
        "default": {"slices": len(default), "tumours": sum(place in default for place in tumours)},
    }


def measured(config: HealthyConfig) -> dict[str, Any]:
    """Return the counts with the model, the commands, the time and the machine."""
    started_at, start, model = datetime.now(UTC), time.monotonic(), directory.load_model(config.model)
    with tempfile.TemporaryDirectory(prefix="mribatch-healthy-") as work:
        counted = counts(config, Path(config.data).resolve(), Path(work))
    short = replace(config, model=shown(config.model))
    return {
        "model_digest": model.digest,
        "healthy_class": config.healthy_class,
        **counted,
        "commands": [scoring.command("jobs/score.py") for scoring in commands(short, "FOLDER", "PREDICTIONS")],
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        **machine.facts(),
    }


def manual(page: str, result: dict[str, Any], about: str) -> str:
    """Return the page of the manual with its last section written anew."""
    before, heading, _ = page.partition(_SECTION)
    if not heading:
        raise InputError(f"expected the section {_SECTION.strip()!r} in {_MANUAL}")
    place = result["machine"]
    return "\n".join(
        [
            before + heading,
            "The shipped model answers every slice with one of its classes. On slices of people without a tumour, each "
            "tumour class is a mistake:",
            "",
            *healthy_table(result),
            "",
            "```sh",
            "python benchmarks/healthy.py --data FOLDER --about TEXT",
            "```",
            "",
            f"`FOLDER`: {about} Slices of one person are alike, so the intervals are too narrow.",
            "The same command writes this table, its copy in the model's card, and the counts in `model.json`.",
            f"Model {result['model_digest']}, {place['cpu']}, {place['cores']} cores, {result['started_at'][:10]}.",
            "[All counts](../benchmarks/healthy.json).",
            "",
        ]
    )


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(HealthyConfig, description=str(__doc__))
    result = measured(config)
    table = "\n".join(healthy_table(result))
    place = f"{result['machine']['cpu']}, {result['machine']['cores']} cores; commit {result['git_commit']}; "
    text = f"# Slices of healthy people\n\n{table}\n\nModel {result['model_digest']}. {place}{result['started_at'][:10]}.\n"
    Path(f"{config.output}.json").write_text(json.dumps(result, indent=1) + "\n")
    Path(f"{config.output}.md").write_text(text)
    if config.about:
        facts = {"about": config.about, "by_kind": result["by_kind"], "default": result["default"]}
        recorded.record(config.model, healthy=facts)
        _MANUAL.write_text(manual(_MANUAL.read_text(), result, config.about))
    log.info("%s", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
