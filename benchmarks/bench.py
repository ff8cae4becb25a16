"""Measure the speed of scoring and training, and the cost of Ray, reading and decoding.

In the root of the repository:  python benchmarks/bench.py

Bare computation and real job alternate, each in its own process: the engine alone, jobs/score.py, the engine
again, …; then the training step alone, jobs/train.py, the step again, …. Do not use the machine for anything else
meanwhile. Writes OUTPUT.json (all rounds, machine, versions, commands) and OUTPUT.md (the table).
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
from typing import Literal

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
BUSY_LOAD = 0.5  # load average before the start above which other processes distort the result


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Settings of the benchmark. The defaults take about 18 minutes on two cores."""

    model: str = "models/brain-mri-v2"
    """The model directory to score with."""

    data: str | None = None
    """A folder of scans to score. Default: ../shared/data/brain-tumor-mri/Testing, else copies of samples/."""

    scans: int = 655
    """Number of scans to score. If the folder has fewer, they are copied under other names."""

    batch_size: int = 32
    """Scans per forward pass, for both the bare function and the pipeline."""

    rounds: int = 3
    """Runs of jobs/score.py; the bare function is measured before, between and after them."""

    bare_seconds: float = 20.0
    """Time of each bare measurement in seconds, after its warm-up."""

    train_data: str | None = None
    """A folder per class of scans to train on. Default: ../shared/data/brain-tumor-mri/Training, else copies of
    samples/."""

    train_scans: int = 1024
    """Number of scans to train on; a tenth of them is used for validation."""

    train_rounds: int = 2
    """Runs of jobs/train.py; the bare step is measured before, between and after them."""

    epochs: int = 2
    """Epochs of each training run; the first one includes tracing and is not counted."""

    backbone: Backbone = "xception"
    """The network to train, starting from random weights."""

    image_side: int = 224
    """Side of the training images, in pixels."""

    train_batch_size: int = 32
    """Scans per training step and worker."""

    train_workers: Literal["auto"] | int = "auto"
    """Workers of a training run. The bare step is that of one process with all cores."""

    output: str = "benchmarks/results"
    """Path of the results without extension."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.train_rounds) < 1 or self.epochs < 2 or self.bare_seconds <= 0:
            raise ConfigError(
                "expected --rounds and --train-rounds of 1 or more, --epochs of 2 or more (the first is not counted) and "
                "--bare-seconds above 0"
            )
        if self.scans <= self.batch_size:
            raise ConfigError(f"a rate needs two batches: expected --scans above {self.batch_size}, got {self.scans}")

    def scoring(self) -> ScoreConfig:
        """Return the settings of the scoring job, with placeholders for the folders."""
        return ScoreConfig(model=self.model, input=("SCANS",), output="PREDICTIONS", batch_size=self.batch_size)

    def training(self) -> TrainConfig:
        """Return the settings of the training job, with placeholders for the folders."""
        return TrainConfig(
            data="LABELLED",
            output="MODEL",
            backbone=self.backbone,
            backbone_weights="none",
            image_side=self.image_side,
            epochs=self.epochs,
            patience=self.epochs,
            batch_size=self.train_batch_size,
            workers=self.train_workers,
        )


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that child processes end and temporary folders are deleted
    try:
        print(bench(tyro.cli(BenchConfig, args=argv, description=__doc__)))
    except MribatchError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("stopped; no results were written", file=sys.stderr)
        return 130
    return 0


def bench(config: BenchConfig) -> str:
    """Measure everything, write both files and return the Markdown.

    Raises ModelError or InputError if the model or scans are missing, RunFailed if a job fails.
    """
    directory.load_model(config.model)
    scoring, training = config.scoring(), config.training()
    Path(config.output).parent.mkdir(parents=True, exist_ok=True)
    started_at, start, load = datetime.now(UTC), time.monotonic(), round(os.getloadavg()[0], 2)
    if load > BUSY_LOAD:
        log.warning("the machine is busy (load %.1f), which distorts the result", load)
    with tempfile.TemporaryDirectory(prefix="mribatch-bench-") as name:
        work = Path(name)
        scans = material.gather(config.data, SCAN_FOLDER, config.scans, work / "scans")
        labelled = material.gather(config.train_data, TRAINING_FOLDER, config.train_scans, work / "labelled")
        log.info("scoring %s; training on %s", scans, labelled)
        score = measures.Scoring(scoring, work / "scans", work, config.bare_seconds)
        bare, pipeline = _alternate("function alone", score.bare, "jobs/score.py", score.job, config.rounds)
        train = measures.Training(training, work / "labelled", work, config.bare_seconds)
        step, loop = _alternate("step alone", train.bare, "jobs/train.py", train.job, config.train_rounds)
    facts = {
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        **machine.facts(),
        "load_before": load,
        "settings": results.settings(dataclasses.asdict(config)),
        "commands": results.commands(scoring, training, config.bare_seconds),
        "scans": {"scored": scans, "trained_on": labelled},
    }
    return results.write(config.output, facts | results.summary(bare, pipeline, step, loop))


def _alternate(
    bare_name: str, bare: Callable[[int], Round], job_name: str, job: Callable[[int], Round], rounds: int
) -> tuple[list[Round], list[Round]]:
    """Measure A B A … B A, so that a change in the machine's speed affects both, and return both lists of rounds."""
    bare_rounds, job_rounds = [_logged(bare_name, bare, 0)], []
    for number in range(rounds):
        job_rounds.append(_logged(job_name, job, number))
        bare_rounds.append(_logged(bare_name, bare, number + 1))
    return bare_rounds, job_rounds


def _logged(name: str, measure: Callable[[int], Round], number: int) -> Round:
    start = time.monotonic()
    measured = measure(number)
    rate, seconds = measured["scans_per_s"], time.monotonic() - start
    log.info("%s · round %d · %.1f scans/s · took %.0f s", name, number + 1, rate, seconds)
    return measured


if __name__ == "__main__":
    sys.exit(main())
