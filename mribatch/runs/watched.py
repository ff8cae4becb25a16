"""A predictor whose deaths are counted: a scan that kills or hangs it costs that scan, never an endless restart.

Ray starts a dead actor again, and the batch it died with, for ever. So each batch is counted before it is scored; one
that was in work too often when its process died is taken apart, and its scans are scored alone.
"""

import hashlib
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mribatch import schema
from mribatch.errors import RunFailed
from mribatch.learning.predict import Predictor
from mribatch.schema import Reason, Status

__all__ = ["WatchedPredictor", "counts"]

_LOAD_S = 600.0  # for a model from a slow storage, and a GPU that compiles
_STARTS = 30  # deaths of one actor while it loads the model; then it is not someone's hand
_TOGETHER = 2  # deaths with a batch after which its scans are scored alone
_ALONE = 3  # deaths with one scan after which it is rejected


class Counts:
    """What was begun and has not ended, for all predictors of a run."""

    def __init__(self) -> None:
        self._begun: dict[str, list[float]] = {}

    def begin(self, work: str, limit_s: float, age_s: float) -> tuple[int, bool]:
        """How often this work was begun before without an end, and whether it took its limit the last time: it ended
        before the process that asks began, age_s ago."""
        now, before = time.monotonic(), self._begun.setdefault(work, [])
        hung = bool(before) and now - age_s - before[-1] >= limit_s
        before.append(now)
        return len(before) - 1, hung

    def end(self, work: str) -> None:
        self._begun.pop(work, None)


def counts() -> Any:
    """The counts, as an actor that lives and dies with the node of the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Counts)
    return actor.options(scheduling_strategy=here).remote()


class WatchedPredictor:
    """A `Predictor` in an actor. timeout_s is what one scan alone may take; eight in a batch take less."""

    def __init__(self, counts: Any, timeout_s: float, **predictor: Any) -> None:
        self._born = time.monotonic()
        self._counts, self._timeout_s = counts, timeout_s
        self._node = ray.get_runtime_context().get_node_id()
        start = f"start of {ray.get_runtime_context().get_actor_id()}"
        deaths, _ = self._begin(start, _LOAD_S)
        if deaths >= _STARTS:
            raise RunFailed(f"a predictor died {deaths} times while it loaded the model: is there memory enough? "
                            "Run the command again, it goes on where it was")  # fmt: skip
        with _alarm(_LOAD_S):
            self._predict = Predictor(**predictor)
            side_px = self._predict.model.image_spec.side_px
            self._predict.probabilities(np.zeros((1, side_px, side_px, 3), np.uint8))  # what this kills, no scan killed
        self._end(start)

    def __call__(self, table: pa.Table) -> pa.Table:
        """As `Predictor`, and `schema.WORK`."""
        work, limit_s = _name(table), self._timeout_s * max(2.0, table.num_rows / 8)
        deaths, _ = self._begin(work, limit_s)
        if deaths < _TOGETHER:
            with _alarm(limit_s):
                scored = self._predict(table)
        else:
            scored = pa.concat_tables([self._alone(table.slice(row, 1)) for row in range(table.num_rows)])
        self._end(work)
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        columns = {"predictor_peak_bytes": peak_bytes, "node": self._node}
        for name, value in columns.items():
            scored = scored.append_column(schema.WORK.field(name), pa.repeat(value, scored.num_rows))
        return scored

    def _alone(self, row: pa.Table) -> pa.Table:
        work = f"{_name(row)} alone"
        deaths, hung = self._begin(work, self._timeout_s)
        with _alarm(self._timeout_s):
            scored = self._predict(row if deaths < _ALONE else _rejected(row, deaths, hung))
        self._end(work)
        return scored

    def _begin(self, work: str, limit_s: float) -> tuple[int, bool]:
        deaths, hung = ray.get(self._counts.begin.remote(work, limit_s, time.monotonic() - self._born))
        return int(deaths), bool(hung)

    def _end(self, work: str) -> None:
        ray.get(self._counts.end.remote(work))


@contextmanager
def _alarm(limit_s: float) -> Iterator[None]:
    """SIGALRM ends this process when the time is over, in the midst of TensorFlow too."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _name(table: pa.Table) -> str:
    keys = [table[name].to_pylist() for name in schema.KEY]
    return hashlib.sha256(repr(list(zip(*keys, strict=True))).encode()).hexdigest()


def _rejected(row: pa.Table, deaths: int, hung: bool) -> pa.Table:
    reason = Reason.TIMED_OUT if hung else Reason.CRASHED_DECODER
    told = f"scoring it alone {'took too long' if hung else 'ended the process'}, {deaths} times"
    values = {"status": Status.REJECTED, "reason": reason, "detail": told, "pixels": None}
    for name, value in values.items():
        at = row.schema.get_field_index(name)
        row = row.set_column(at, row.schema.field(at), pa.array([value], row.schema.field(at).type))
    return row
