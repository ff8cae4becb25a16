"""How fast is it, and what do Ray, reading and decoding cost? The bare computation and the real jobs, in turns.

In the repository's root:  python benchmarks/bench.py

Each measurement is a process of its own, one after the other: the frozen function alone, jobs/score.py, the function
again, …; then the training step alone, jobs/train.py, the step again, …. Leave the machine alone meanwhile.
Writes OUTPUT.json (all rounds, machine, versions, commands) and OUTPUT.md (the table).
"""

import dataclasses
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import material
import measures
import results
import tyro
from measures import Round

from mribatch.errors import ConfigError, MribatchError
from mribatch.models import directory
from mribatch.settings.score import ScoreConfig
from mribatch.settings.train import Backbone, TrainConfig

log = logging.getLogger("bench")

SCAN_FOLDER = "../shared/data/brain-tumor-mri/Testing"
TRAINING_FOLDER = "../shared/data/brain-tumor-mri/Training"
BUSY_LOAD = 0.5  # more runnable processes than this before the start, and the numbers say more of those


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured, and how long. The defaults take some 18 minutes on two cores."""

    model: str = "models/brain-mri-v1"
    """The model directory to score with."""

    data: str | None = None
    """A folder of scans to score. Default: ../shared/data/brain-tumor-mri/Testing, else copies of samples/."""

    scans: int = 655
    """Scans to score; where the folder has fewer, copies of them under other names."""

    batch_size: int = 32
    """Scans per forward pass, alone and in the pipeline."""

    rounds: int = 3
    """Runs of jobs/score.py; the function alone is measured before the first, between them and after the last."""

    bare_seconds: float = 20.0
    """How long each bare measurement counts, in seconds, after its warm-up."""

    train_data: str | None = None
    """A folder per class of scans to train on. Default: ../shared/data/brain-tumor-mri/Training, else copies of
    samples/."""

    train_scans: int = 1024
    """Scans to train on; a tenth of them validates."""

    train_rounds: int = 2
    """Runs of jobs/train.py, with the bare step before, between and after."""

    epochs: int = 2
    """Epochs of each training run; the first one traces and is not counted."""

    backbone: Backbone = "xception"
    """The network to train, from random weights."""

    image_side: int = 224
    """Side of the training images, in pixels."""

    train_batch_size: int = 32
    """Scans per training step."""

    output: str = "benchmarks/results"
    """Where to write, without the ending."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.train_rounds) < 1 or self.epochs < 2 or self.bare_seconds <= 0:
            raise ConfigError("expected --rounds and --train-rounds of 1 or more, --epochs of 2 or more (the first is "
                              "not counted) and --bare-seconds above 0")  # fmt: skip
        if self.scans <= self.batch_size:
            raise ConfigError(f"a rate needs two batches: expected --scans above {self.batch_size}, got {self.scans}")

    def scoring(self) -> ScoreConfig:
        """The scoring job's settings, with names in place of the folders."""
        return ScoreConfig(model=self.model, input=("SCANS",), output="PREDICTIONS", batch_size=self.batch_size)

    def training(self) -> TrainConfig:
        """The training job's settings, with names in place of the folders."""
        return TrainConfig(
            data="LABELLED", output="MODEL", backbone=self.backbone, backbone_weights="none",
            image_side=self.image_side, epochs=self.epochs, patience=self.epochs, batch_size=self.train_batch_size,
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children end and temporary folders go
    try:
        print(bench(tyro.cli(BenchConfig, args=argv, description=__doc__)))
    except MribatchError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("stopped; nothing is written", file=sys.stderr)
        return 130
    return 0


def bench(config: BenchConfig) -> str:
    """Measure everything and write both files. Returns the Markdown.

    Raises ModelError or InputError where model or scans are missing, RunFailed where a job fails.
    """
    directory.load_model(config.model)
    scoring, training = config.scoring(), config.training()
    Path(config.output).parent.mkdir(parents=True, exist_ok=True)
    started_at, begun, load = datetime.now(UTC), time.monotonic(), _load()
    with tempfile.TemporaryDirectory(prefix="mribatch-bench-") as name:
        work = Path(name)
        scans = material.gather(config.data, SCAN_FOLDER, config.scans, work / "scans")
        labelled = material.gather(config.train_data, TRAINING_FOLDER, config.train_scans, work / "labelled")
        log.info("scoring %s; training on %s", scans, labelled)
        score = measures.Scoring(scoring, work / "scans", work, config.bare_seconds)
        bare, pipeline = _in_turns("function alone", score.bare, "jobs/score.py", score.job, config.rounds)
        train = measures.Training(training, work / "labelled", work, config.bare_seconds)
        step, loop = _in_turns("step alone", train.bare, "jobs/train.py", train.job, config.train_rounds)
    facts = {
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - begun, 1),
        **machine.facts(),
        "load_before": load,
        "settings": results.settings(dataclasses.asdict(config)),
        "commands": results.commands(scoring, training, config.bare_seconds),
        "scans": {"scored": scans, "trained_on": labelled},
    }
    return results.write(config.output, facts | results.summary(bare, pipeline, step, loop))


def _in_turns(
    bare_name: str, bare: Callable[[int], Round], job_name: str, job: Callable[[int], Round], rounds: int
) -> tuple[list[Round], list[Round]]:
    """A B A … B A: a machine that drifts drifts for both."""
    alone, whole = [_said(bare_name, bare, 0)], []
    for number in range(rounds):
        whole.append(_said(job_name, job, number))
        alone.append(_said(bare_name, bare, number + 1))
    return alone, whole


def _said(name: str, measure: Callable[[int], Round], number: int) -> Round:
    begun = time.monotonic()
    measured: dict[str, Any] = measure(number)
    log.info("%s · round %d · %.1f scans/s · took %.0f s", name, number + 1, measured["scans_per_s"],
             time.monotonic() - begun)  # fmt: skip
    return measured


def _load() -> float:
    load = round(os.getloadavg()[0], 2)
    if load > BUSY_LOAD:
        log.warning("the machine is busy (load %.1f): these numbers will tell of that too", load)
    return load


if __name__ == "__main__":
    sys.exit(main())
