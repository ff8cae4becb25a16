"""Score batches in actors that survive bad scans: one that kills, hangs or breaks a predictor costs only itself.

Ray restarts a dead actor and retries its batch without end. So each batch is noted before it is scored; a batch that was
being scored when its process died is taken apart, and its scans are scored one at a time.
"""

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from mribatch import schema
from mribatch.causes import cause
from mribatch.cluster.batch_rows import progress_of, with_values, with_work
from mribatch.cluster.notes import is_over
from mribatch.errors import MribatchError, RunFailed
from mribatch.models.predictor import Predictor
from mribatch.schema import Reason, Status

__all__ = ["WatchedPredictor"]

_LOAD_S = 600.0  # for a model from a slow storage, and a GPU that compiles
_GRACE_S = 10.0
_STARTS = (
    30  # give up when one actor has died this often while loading the model; fewer deaths may be someone killing it
)
_GPU_THREADS = 2  # for the limit of a batch
_TOGETHER = 1  # deaths with a batch after which its scans are scored alone
_ALONE = 2  # deaths with one scan after which it is rejected


class WatchedPredictor:
    """A `Predictor` in an actor.

    timeout_s is the limit for one scan alone. A batch may take that long for every eight scans of each thread, and twice that
    long in any case. A timed run asks before each batch whether its time is over.
    """

    def __init__(self, notes: Any, timeout_s: float, timed: bool, **predictor: Any) -> None:
        self._notes, self._timeout_s, self._timed = notes, timeout_s, timed
        self._threads = predictor.get("threads") or _GPU_THREADS
        self._node = ray.get_runtime_context().get_node_id()
        start = f"start of {ray.get_runtime_context().get_actor_id()}"
        deaths, _ = self._begin(start)
        if deaths >= _STARTS:
            raise RunFailed(
                f"a predictor died {deaths} times while loading the model: check that the node has enough memory, "
                "then run the command again to resume"
            )
        with self._alarm(start, _LOAD_S):
            self._predict = Predictor(**predictor)
            side_px = self._predict.model.image_spec.side_px
            self._predict.probabilities(np.zeros((1, side_px, side_px, 3), np.uint8))  # what this kills, no scan killed
        self._end(start)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return what `Predictor` does, with the columns of `schema.WORK`."""
        work, limit_s = _name(table), self._timeout_s * max(2.0, table.num_rows / (8 * self._threads))
        if self._timed and is_over(self._notes):
            table = with_values(table, status=Status.LEFT, pixels=None)
        deaths, _ = self._begin(work)
        result = None
        if deaths < _TOGETHER:
            with self._alarm(work, limit_s), suppress(Exception):  # scored alone, each scan shows the error again
                result = self._predict(table)
        if result is None:
            result = pa.concat_tables([self._alone(table.slice(row, 1)) for row in range(table.num_rows)])
        self._end(work, *progress_of(result))
        return with_work(result, self._node)

    def _alone(self, row: pa.Table) -> pa.Table:
        work = f"{_name(row)} alone"
        deaths, hung = self._begin(work)
        if deaths >= _ALONE:
            row = _rejected(row, deaths, hung)
        with self._alarm(work, self._timeout_s):
            try:
                result = self._predict(row)
            except Exception as err:
                self._check_model(row, err)
                detail = f"scoring it: {cause(err)}"
                failed = with_values(row, status=Status.FAILED, reason=Reason.UNFORESEEN, detail=detail, pixels=None)
                result = self._predict(failed)
        self._end(work)
        return result

    def _check_model(self, row: pa.Table, err: Exception) -> None:
        """Score a black scan in place of one that raised an error.

        Raises RunFailed if that fails too: then the cause is the model or the machine, not the scan.
        """
        side_px = self._predict.model.image_spec.side_px
        black = with_values(row, scan_uri="black", status=Status.OK, pixels=bytes(side_px * side_px * 3))
        try:
            self._predict(black)
        except MribatchError:
            raise
        except Exception as again:
            raise RunFailed(
                f"model {self._predict.model.digest} can no longer score any scan ({cause(err)}): check the machine's "
                "memory and GPU, or train the model again; then run the command again to resume"
            ) from again

    def _begin(self, work: str) -> tuple[int, bool]:
        deaths, hung = ray.get(self._notes.begin.remote(work))
        return int(deaths), bool(hung)

    def _end(self, work: str, scored: int = 0, rejected: int = 0) -> None:
        ray.get(self._notes.end.remote(work, scored, rejected))

    @contextmanager
    def _alarm(self, work: str, limit_s: float) -> Iterator[None]:
        """Kill this process at the limit: by a thread that notes why, or by a signal if no thread gets to run."""
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
        ray.get(self._notes.hang.remote(work))
        os.kill(os.getpid(), signal.SIGKILL)


def _name(table: pa.Table) -> str:
    keys = [table[name].to_pylist() for name in schema.KEY]
    return hashlib.sha256(repr(list(zip(*keys, strict=True))).encode()).hexdigest()


def _rejected(row: pa.Table, deaths: int, hung: bool) -> pa.Table:
    reason = Reason.TIMED_OUT if hung else Reason.CRASHED_DECODER
    detail = f"scoring it alone {'took too long' if hung else 'ended the process'}, {deaths} times"
    return with_values(row, status=Status.REJECTED, reason=reason, detail=detail, pixels=None)
