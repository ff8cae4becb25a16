"""Score scans in one process beside the driver's, without Ray, whose start takes longer than to score a few scans."""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from mribatch import child
from mribatch.causes import cause
from mribatch.cluster.batch_rows import with_values, with_work
from mribatch.cluster.decoding import decode_blocks
from mribatch.errors import MribatchError
from mribatch.models.engine import Name
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.schema import Status
from mribatch.stores.access import Witness

__all__ = ["NODE", "OneProcess", "ProcessLost", "Work", "serve"]

NODE = "this machine"
"""Stands for a node of a cluster in the rows and in the record of a run."""

_MAIN = "from mribatch.cluster.one_process import serve; serve()"
_LOAD_S = 600.0  # for a model from a slow storage
_GRACE_S = 5.0
_AHEAD = 2  # decoded batches that wait for the model
_MOST_THREADS = 16
_CGROUP = "/sys/fs/cgroup/cpu.max"


class ProcessLost(Exception):
    """The process has ended, or raised an error that does not end a run: a scan or the machine may be at fault."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the process is to score, and how."""

    todo: pa.Table  # schema PLAN
    model: str
    digest: str
    spec: ImageSpec
    engine: Name
    reading: Reading
    batch_size: int
    timeout_s: float  # for one scan, decoding or scoring it
    until: float  # of time.monotonic: scans that are not begun by then are left
    among: tuple[Witness, ...]  # see `decode_blocks`


class OneProcess:
    """The process, as the driver sees it. `ready_at` is the moment of time.monotonic at which it had loaded the model."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.ready_at: float | None = None

    def batches(self) -> Iterator[pa.Table]:
        """Start the process, yield the rows of each batch in order, with the columns of `schema.WORK`, and end it.

        Raises ProcessLost, and the MribatchError that ends a run.
        """
        try:
            process, line = child.start(_MAIN)
        except OSError as err:
            raise ProcessLost(cause(err)) from err
        try:
            line.send(self._work)
            self.ready_at = self._received(line)
            while (rows := self._received(line)) is not None:
                yield rows
        except (EOFError, OSError) as err:
            raise ProcessLost(_ending(process)) from err
        finally:
            line.close()
            process.kill()
            process.wait()

    def _received(self, line: Connection) -> Any:
        answer = line.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _ending(process: "subprocess.Popen[bytes]") -> str:
    """Say how a process ended that no longer answers, after a moment to end in."""
    try:
        code = process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return "it no longer answers"
    return f"it ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


# The process


def serve() -> None:
    """Run as the process: send the moment at which the model is loaded, the rows of each batch, then None; or an error."""
    line = child.parent()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even inside a C library
    work: Work = line.recv()
    threading.Thread(target=_end_with, args=[line], daemon=True).start()
    try:
        for answer in _answers(work):
            line.send(answer)
        line.send(None)
    except MribatchError as err:
        line.send(err)
    except Exception as err:
        line.send(ProcessLost(cause(err)))


def _end_with(line: Connection) -> None:
    """Wait until the driver closes its end, and end this process at once."""
    try:
        line.recv()
    finally:
        os._exit(0)


def _answers(work: Work) -> Iterator[float | pa.Table]:
    from mribatch.models.predictor import Predictor  # meanwhile, the decoder starts

    batches = _ahead(_decoded(work))
    with _limited(_LOAD_S):
        predict = Predictor(work.model, work.digest, _threads(), work.engine)
    yield time.monotonic()
    for table in batches:
        if _is_over(work.until):
            table = with_values(table, status=Status.LEFT, pixels=None)
        with _limited(work.timeout_s * max(2.0, table.num_rows / 8)):
            rows = predict(table)
        yield with_work(rows, NODE)


def _decoded(work: Work) -> Iterator[pa.Table]:
    """Yield decoded rows in batches of `batch_size` at most."""
    for start in range(0, work.todo.num_rows, work.batch_size):
        blocks = decode_blocks(
            work.todo.slice(start, work.batch_size),
            spec=work.spec,
            reading=work.reading,
            timeout_s=work.timeout_s,
            over=partial(_is_over, work.until),
            among=work.among,
        )
        for block in blocks:
            for first in range(0, block.num_rows, work.batch_size):
                yield block.slice(first, work.batch_size)


def _is_over(until: float) -> bool:
    return time.monotonic() >= until


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Begin at once to compute tables in a thread, and return an iterator over them, which raises what computing them raises."""
    waiting: queue.Queue[pa.Table | Exception | None] = queue.Queue(_AHEAD)

    def compute() -> None:
        try:
            for table in tables:
                waiting.put(table)
            waiting.put(None)
        except Exception as err:
            waiting.put(err)

    threading.Thread(target=compute, daemon=True).start()

    def arrived() -> Iterator[pa.Table]:
        while (table := waiting.get()) is not None:
            if isinstance(table, Exception):
                raise table
            yield table

    return arrived()


@contextmanager
def _limited(limit_s: float) -> Iterator[None]:
    """Let SIGALRM end this process at the limit."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _threads() -> int:
    """Return the cores that this process may use, as its affinity and its control group say, but 16 at most."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        with open(_CGROUP) as file:
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        pass  # not in a container, or one without a limit
    return max(1, min(_MOST_THREADS, round(cores)))
