"""A predictor whose deaths are counted: a scan that kills, hangs or breaks it costs that scan, never an endless restart.

Ray starts a dead actor again, and the batch it died with, for ever. So each batch is counted before it is scored; one
that was in work too often when its process died is taken apart, and its scans are scored alone.
"""

import hashlib
import math
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mribatch import schema
from mribatch.causes import cause
from mribatch.errors import MribatchError, RunFailed
from mribatch.models.predictor import Predictor
from mribatch.schema import Reason, Status

__all__ = ["WatchedPredictor", "counts", "is_over"]

_LOAD_S = 600.0  # for a model from a slow storage, and a GPU that compiles
_GRACE_S = 10.0
_STARTS = 30  # deaths of one actor while it loads the model; then it is not someone's hand
_TOGETHER = 1  # deaths with a batch after which its scans are scored alone
_ALONE = 2  # deaths with one scan after which it is rejected


class Counts:
    """What was begun and has not ended, for all predictors of a run, and whether its time is over."""

    def __init__(self, until: float) -> None:
        self._begun: Counter[str] = Counter()
        self._hung: set[str] = set()
        self._until = until  # of the clock of the driver's machine, on which this lives: a new start changes nothing

    def is_over(self) -> bool:
        return time.monotonic() >= self._until

    def begin(self, work: str) -> tuple[int, bool]:
        """How often this work was begun before without an end, and whether it took too long."""
        self._begun[work] += 1
        return self._begun[work] - 1, work in self._hung

    def hang(self, work: str) -> None:
        self._hung.add(work)

    def end(self, work: str) -> None:
        self._begun.pop(work, None)
        self._hung.discard(work)


def counts(until: float = math.inf) -> Any:
    """The counts, as an actor that lives and dies with the node of the driver; the time is over at `until` of time.monotonic."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Counts)
    return actor.options(scheduling_strategy=here).remote(until)


def is_over(counts: Any) -> bool:
    """Is the time of the run over? One clock tells all nodes, that of the driver's."""
    return bool(ray.get(counts.is_over.remote()))


class WatchedPredictor:
    """A `Predictor` in an actor. timeout_s is what one scan alone may take; eight in a batch take less. A run that is
    timed asks before each batch whether its time is over."""

    def __init__(self, counts: Any, timeout_s: float, timed: bool, **predictor: Any) -> None:
        self._counts, self._timeout_s, self._timed = counts, timeout_s, timed
        self._node = ray.get_runtime_context().get_node_id()
        start = f"start of {ray.get_runtime_context().get_actor_id()}"
        deaths, _ = self._begin(start)
        if deaths >= _STARTS:
            raise RunFailed(f"a predictor died {deaths} times while it loaded the model: is there memory enough? "
                            "Run the command again, it goes on where it was")  # fmt: skip
        with self._alarm(start, _LOAD_S):
            self._predict = Predictor(**predictor)
            side_px = self._predict.model.image_spec.side_px
            self._predict.probabilities(np.zeros((1, side_px, side_px, 3), np.uint8))  # what this kills, no scan killed
        self._end(start)

    def __call__(self, table: pa.Table) -> pa.Table:
        """As `Predictor`, and `schema.WORK`."""
        work, limit_s = _name(table), self._timeout_s * max(2.0, table.num_rows / 8)
        if self._timed and is_over(self._counts):
            table = _with(table, status=Status.LEFT, pixels=None)
        deaths, _ = self._begin(work)
        scored = None
        if deaths < _TOGETHER:
            with self._alarm(work, limit_s), suppress(Exception):  # what it was, each scan tells when it is alone
                scored = self._predict(table)
        if scored is None:
            scored = pa.concat_tables([self._alone(table.slice(row, 1)) for row in range(table.num_rows)])
        self._end(work)
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        columns = {"predictor_peak_bytes": peak_bytes, "node": self._node}
        for name, value in columns.items():
            scored = scored.append_column(schema.WORK.field(name), pa.repeat(value, scored.num_rows))
        return scored

    def _alone(self, row: pa.Table) -> pa.Table:
        work = f"{_name(row)} alone"
        deaths, hung = self._begin(work)
        with self._alarm(work, self._timeout_s):
            try:
                scored = self._predict(row if deaths < _ALONE else _rejected(row, deaths, hung))
            except Exception as err:
                self._check_model(row, err)
                scored = self._predict(_failed(row, err))
        self._end(work)
        return scored

    def _check_model(self, row: pa.Table, err: Exception) -> None:
        """Score a black scan in the place of one that raised an error. Raises RunFailed where that fails too: then it
        is the model or the machine, and no scan."""
        side_px = self._predict.model.image_spec.side_px
        black = _with(row, scan_uri="black", status=Status.OK, pixels=bytes(side_px * side_px * 3))
        try:
            self._predict(black)
        except MribatchError:
            raise
        except Exception as again:
            raise RunFailed(f"model {self._predict.model.digest} scores no scan any more ({cause(err)}): check the machine's "
                            "memory and GPU, or train the model again; then run the command again") from again  # fmt: skip

    def _begin(self, work: str) -> tuple[int, bool]:
        deaths, hung = ray.get(self._counts.begin.remote(work))
        return int(deaths), bool(hung)

    def _end(self, work: str) -> None:
        ray.get(self._counts.end.remote(work))

    @contextmanager
    def _alarm(self, work: str, limit_s: float) -> Iterator[None]:
        """End this process when the time is over: by a thread that tells why, or by a signal where none gets to run."""
        timer = threading.Timer(limit_s, self._give_up, [work])
        timer.daemon = True
        timer.start()
        signal.setitimer(signal.ITIMER_REAL, limit_s + _GRACE_S)
        try:
            yield
        finally:
            timer.cancel()
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _give_up(self, work: str) -> None:
        ray.get(self._counts.hang.remote(work))
        os.kill(os.getpid(), signal.SIGKILL)


def _name(table: pa.Table) -> str:
    keys = [table[name].to_pylist() for name in schema.KEY]
    return hashlib.sha256(repr(list(zip(*keys, strict=True))).encode()).hexdigest()


def _rejected(row: pa.Table, deaths: int, hung: bool) -> pa.Table:
    reason = Reason.TIMED_OUT if hung else Reason.CRASHED_DECODER
    told = f"scoring it alone {'took too long' if hung else 'ended the process'}, {deaths} times"
    return _with(row, status=Status.REJECTED, reason=reason, detail=told, pixels=None)


def _failed(row: pa.Table, err: Exception) -> pa.Table:
    return _with(row, status=Status.FAILED, reason=Reason.UNFORESEEN, detail=f"scoring it: {cause(err)}", pixels=None)


def _with(table: pa.Table, **values: str | bytes | None) -> pa.Table:
    """A table with other values in some columns."""
    for name, value in values.items():
        field = table.schema.field(name)
        column = pa.array([value] * table.num_rows, field.type)
        table = table.set_column(table.schema.get_field_index(name), field, column)
    return table
