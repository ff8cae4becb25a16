"""Run the four measurements as child processes and compute their rates from what they write.

The rates of jobs come from their normal output: `scored_at` in the predictions, `train_scans_per_s` in the history.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.dataset
import pyarrow.parquet
from bare import BareScoreConfig, BareTrainConfig
from children import Ended, run

from mribatch.errors import RunFailed
from mribatch.settings.score import ScoreConfig
from mribatch.settings.train import TrainConfig

__all__ = ["Round", "Scoring", "Training"]

Round = dict[str, Any]
"""A measurement as it is written to the JSON file; `scans_per_s` is its rate."""


@dataclass(frozen=True)
class Scoring:
    """Measure jobs/score.py on a folder of scans, and the engine alone."""

    config: ScoreConfig
    scans: Path
    work: Path
    seconds: float

    def bare(self, number: int) -> Round:
        """Measure the function alone."""
        output = self.work / f"bare-score-{number}.json"
        settings = asdict(self.config) | {"input": (str(self.scans),), "output": str(output)}
        command = BareScoreConfig(**settings, seconds=self.seconds).command("benchmarks/bare_score.py")
        run(command, self.work / "bare-score.log")
        return _read(output)

    def job(self, number: int) -> Round:
        """Measure the job as a user runs it; scans_per_s is its steady rate."""
        output = self.work / f"predictions-{number}"
        config = replace(self.config, input=(str(self.scans),), output=str(output))
        ended = run(config.command("jobs/score.py"), self.work / "score.log")
        rows = pyarrow.dataset.dataset(str(output), format="parquet").to_table(columns=["scored_at"])
        return timeline([row["scored_at"] for row in rows.to_pylist()], ended)


@dataclass(frozen=True)
class Training:
    """Measure jobs/train.py on a few labelled scans, and its step alone."""

    config: TrainConfig
    scans: Path
    work: Path
    seconds: float

    def bare(self, number: int) -> Round:
        """Measure the step alone."""
        output = self.work / f"bare-train-{number}.json"
        settings = asdict(self.config) | {"data": str(self.scans), "output": str(output)}
        command = BareTrainConfig(**settings, seconds=self.seconds).command("benchmarks/bare_train.py")
        run(command, self.work / "bare-train.log")
        return _read(output)

    def job(self, number: int) -> Round:
        """Measure the job as a user runs it; scans_per_s is the median of all epochs except the first, which traces."""
        output = self.work / f"train-{number}" / "model"
        config = replace(self.config, data=str(self.scans), output=str(output))
        ended = run(config.command("jobs/train.py"), self.work / "train.log")
        history = pyarrow.parquet.read_table(output / "history.parquet").to_pylist()
        rates = [float(epoch["train_scans_per_s"]) for epoch in history]
        return {"scans_per_s": median(rates[1:]), "epoch_scans_per_s": rates, "wall_s": round(ended.seconds, 1)}


def timeline(scored_at: list[datetime], ended: Ended) -> Round:
    """Return the rates of a scoring run from the times of its rows; the rows of a batch have the time of its end.

    The steady rate is that of all batches after the first, from the end of the first to the end of the last.
    """
    batches = sorted(Counter(scored_at).items())
    (first, first_rows), (last, _) = batches[0], batches[-1]
    if first == last:
        raise RunFailed("all scans were scored in one batch, but a rate needs two: raise --scans or lower --batch-size")
    return {
        "scans_per_s": (len(scored_at) - first_rows) / (last - first).total_seconds(),
        "command_scans_per_s": len(scored_at) / ended.seconds,
        "scans": len(scored_at),
        "first_row_s": round((first - ended.started_at).total_seconds(), 3),
        "last_row_s": round((last - ended.started_at).total_seconds(), 3),
        "wall_s": round(ended.seconds, 3),
        "batches": [[round((end - ended.started_at).total_seconds(), 3), rows] for end, rows in batches],
    }


def _read(output: Path) -> Round:
    measured: Round = json.loads(output.read_text())
    return measured
