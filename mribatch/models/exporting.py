"""Compare a network with its copy in another precision, before that is written: answers, referrals and speed."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.models.predictor import Predictor, load_engine

__all__ = ["ANSWERS", "Copy", "CopyPredictor", "Rates", "measured_rates"]

ANSWERS = ("before", "after", "before_referral", "after_referral")

_ROUNDS = 7


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A network's copy in another precision. files: as for `directory.save_exported`; model, digest: of the network."""

    model: str
    digest: str
    precision: str
    files: Mapping[str, tuple[str, bytes]]

    @contextmanager
    def stored(self) -> Iterator[tuple[Model, Model]]:
        """Open the network, and its copy in a folder that exists while this lasts."""
        model = directory.open_model(self.model, self.digest)
        with tempfile.TemporaryDirectory() as folder:
            facts = model.facts | {"precision": self.precision}
            yield model, directory.save_exported(model, folder, self.files, facts, "{digest}")


class Rates(NamedTuple):
    """Scans per second of a core, before and after, and how many times as fast the copy is. processor: its name."""

    before: float
    after: float
    ratio: float
    processor: str


class CopyPredictor:
    """Add the columns ANSWERS to tables of decoded scans: what `Predictor` gives with a network and with its copy.

    threads: cores to compute with; None takes all of the machine. Raises as `Predictor`.
    """

    def __init__(self, copy: Copy, threads: int | None = None) -> None:
        with copy.stored() as models:
            self._predictors = [Predictor(model.uri, model.digest, threads, "openvino") for model in models]

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with the columns and without pixels; they are null where pixels are."""
        scored = [predict(table) for predict in self._predictors]
        columns = [rows[name] for name in ("predicted_class", "referral") for rows in scored]
        table = table.drop_columns(["pixels"])
        for name, column in zip(ANSWERS, columns, strict=True):
            table = table.append_column(name, column)
        return table


def measured_rates(copy: Copy, pixels: NDArray[np.uint8], rounds: int = _ROUNDS) -> Rates:
    """Compute scans, (N, side, side, 3) uint8 RGB, with a network and its copy in turns, and return the medians.

    Seconds of a core are those of this process, so other processes disturb them little.
    """
    with copy.stored() as models:
        engines = [load_engine(model, None, "openvino") for model in models]
    seconds: list[list[float]] = [[], []]
    for number in range(1 + rounds):
        for taken, compute in zip(seconds, engines, strict=True):
            begun = time.process_time()
            compute(pixels)
            if number:  # the first time, memory is allocated
                taken.append(time.process_time() - begun)
    before, after = (len(pixels) / median(taken) for taken in seconds)
    ratio = median(first / second for first, second in zip(*seconds, strict=True))
    return Rates(before, after, ratio, _processor())


def _processor() -> str:
    """Return the name of this machine's processor, as Linux gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "an unnamed processor")
