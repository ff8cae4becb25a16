"""Score scans in one process beside the driver's, without Ray: few scans, or all of them where there are few cores."""

import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import pyarrow as pa

from mribatch import child
from mribatch.causes import cause
from mribatch.cluster.batch_rows import with_values, with_work
from mribatch.cluster.decoding import decode_blocks
from mribatch.errors import MribatchError
from mribatch.models.engine import Name
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.scans.sandbox import Decoder, decoder
from mribatch.schema import WORK, Status
from mribatch.stores.access import Witness

__all__ = ["NODE", "OneProcess", "Order", "ProcessLost", "cores", "serve"]

log = logging.getLogger("mribatch.progress")

T = TypeVar("T")

NODE = "this machine"
"""Stands for a node of a cluster in the rows and in the record of a run."""

_MAIN = "from mribatch.cluster.one_process import serve; serve()"
_START_S = 120.0  # for Python and its imports, from a slow disk
_LOAD_S = 600.0  # for a model from a slow storage
_QUIET_S = 600.0
_GRACE_S = 5.0
_MOST_DECODERS = 2  # where most files are skipped, to read them takes more time than to score the others
_MODEL_BYTES = 1 << 30
_MOST_PIXEL_BYTES = 40 << 20  # in a batch
_AHEAD = 2  # decoded batches of each that wait for the model
_AT_ONCE = 2  # batches that are scored: the second keeps the cores at work while the rows of the first are made
_MOST_THREADS = 16
_CGROUP = "/sys/fs/cgroup"  # the control group of a container


class ProcessLost(Exception):
    """The process has ended, or raised an error that does not end a run: a scan or the machine may be at fault."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the process is to score, and how. `todo` holds no rows but its own: a slice is sent with its parent's."""

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

    def __init__(self, order: Order) -> None:
        self._order = order
        self.ready_at: float | None = None

    def batches(self) -> Iterator[pa.Table]:
        """Start the process, yield the rows of each batch in order, with the columns of `schema.WORK`, and end it.

        Raises ProcessLost, and the MribatchError that ends a run.
        """
        try:
            process, line = child.start(_MAIN, send_s=_START_S)
        except OSError as err:
            raise ProcessLost(cause(err)) from err
        try:
            line.send(self._order)
            if not line.poll(_START_S + _LOAD_S):
                raise ProcessLost("it did not load the model")
            self.ready_at = _received(line)
            while (rows := _received(line)) is not None:
                yield rows
        except (EOFError, OSError) as err:
            raise ProcessLost(_ending(process)) from err
        finally:
            line.close()
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)


def _received(line: Connection) -> Any:
    """Return an answer, or raise the error that came in its place. Says so when none has come for long."""
    while not line.poll(_QUIET_S):
        log.warning("no scan was scored for %d min: does the storage answer?", _QUIET_S / 60)
    answer = line.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _ending(process: "subprocess.Popen[bytes]") -> str:
    """Say how a process ended that no longer answers, after a moment to end in."""
    try:
        return f"it ended by {child.ending(process.wait(_GRACE_S))}"
    except subprocess.TimeoutExpired:
        return "it no longer answers"


# The process


def serve() -> None:
    """Run as the process: send the moment at which the model is loaded, the rows of each batch, then None; or an error."""
    line = child.parent()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even inside a C library
    order: Order = line.recv()
    threading.Thread(target=_end_with, args=[line], daemon=True).start()
    try:
        for answer in _answers(order):
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


def _answers(order: Order) -> Iterator[float | pa.Table]:
    from mribatch.models.predictor import Predictor  # meanwhile, the decoders start

    batches = _decoded(order)
    with child.limited(_LOAD_S):
        predict = Predictor(order.model, order.digest, cores(), order.engine)
    yield time.monotonic()
    for rows in _scored(order, predict, batches):
        yield with_work(rows, NODE)


def _scored(order: Order, predict: Callable[[pa.Table], pa.Table], batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of each batch, in order. A batch that takes too long ends the process."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    begun: deque[tuple[int, Future[pa.Table]]] = deque()

    def first() -> pa.Table:
        count, rows = begun.popleft()
        with child.limited(order.timeout_s * max(2.0, count / (4 * cores()))):
            return rows.result()

    try:
        for table in batches:
            if _is_over(order.until):
                table = with_values(table, status=Status.LEFT, pixels=None)
            begun.append((table.num_rows, pool.submit(_predicted, predict, table)))
            if len(begun) == _AT_ONCE:
                yield first()
    except MribatchError:  # no scan can be read any more
        yield from (first() for _ in range(len(begun)))
        raise
    yield from (first() for _ in range(len(begun)))


def _predicted(predict: Callable[[pa.Table], pa.Table], table: pa.Table) -> pa.Table:
    """Raises ProcessLost for any error: a scan may be at fault, which Ray's predictors find out."""
    try:
        return predict(table)
    except Exception as err:
        raise ProcessLost(cause(err)) from err


def _decoded(order: Order) -> Iterator[pa.Table]:
    """Begin to decode, and return an iterator over the rows, in order, in batches of `batch_size` at most.

    An error in one decoder is raised when the rows before it have come.
    """
    most = max(1, min(order.batch_size, _MOST_PIXEL_BYTES // (3 * order.spec.side_px**2)))
    slices = [(start, most) for start in range(0, order.todo.num_rows, most)]
    count = _decoders(order.spec.max_memory_bytes)
    first = _ahead(_blocks(order, slices[::count]))

    def rows() -> Iterator[pa.Table]:
        others = [_ahead(_blocks(order, slices[number::count])) for number in range(1, count)]  # the model has loaded
        decoders = [first, *others]
        for number in range(len(slices)):
            yield from iter(partial(next, decoders[number % count]), None)

    return rows()


def _decoders(scan_bytes: int) -> int:
    """Return how many decoders run at once: two only where the memory holds a scan of the largest size in each."""
    return _MOST_DECODERS if cores() > 1 and _memory() >= _MODEL_BYTES + _MOST_DECODERS * scan_bytes else 1


def _blocks(order: Order, slices: Sequence[tuple[int, int]]) -> Iterator[pa.Table | None]:
    """Yield the decoded rows of slices of the plan, each with its start and length, and None after each slice."""
    for start, most in slices:
        blocks = decode_blocks(
            order.todo.slice(start, most),
            spec=order.spec,
            reading=order.reading,
            timeout_s=order.timeout_s,
            over=partial(_is_over, order.until),
            among=order.among,
        )
        for block in blocks:
            block = _with_decoder_alone(block, decoder(order.spec, order.timeout_s, order.reading))
            for first in range(0, block.num_rows, most):
                yield block.slice(first, most)
        yield None


def _with_decoder_alone(block: pa.Table, by: Decoder) -> pa.Table:
    """Return decoded rows with the memory of the decoder: this process, which reads the scans, holds the model, too."""
    field = WORK.field("decoder_peak_bytes")
    index = block.schema.get_field_index(field.name)
    return block.set_column(index, field, pa.repeat(pa.scalar(by.peak_bytes(), field.type), block.num_rows))


def _is_over(until: float) -> bool:
    return time.monotonic() >= until


@dataclass(frozen=True)
class _Ended:
    err: BaseException | None


def _ahead(values: Iterator[T]) -> Iterator[T]:
    """Begin at once to compute values in a thread, and return an iterator over them, which raises what computing them raises."""
    waiting: queue.Queue[T | _Ended] = queue.Queue(_AHEAD)

    def compute() -> None:
        try:
            for value in values:
                waiting.put(value)
            waiting.put(_Ended(None))
        except BaseException as err:
            waiting.put(_Ended(err))

    threading.Thread(target=compute, daemon=True).start()

    def arrived() -> Iterator[T]:
        while not isinstance(value := waiting.get(), _Ended):
            yield value
        if isinstance(value.err, Exception):
            raise value.err
        if value.err is not None:
            raise ProcessLost(cause(value.err)) from value.err

    return arrived()


def cores() -> int:
    """Return the cores that this process may use, as its affinity and its control group say, but 16 at most."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        with open(os.path.join(_CGROUP, "cpu.max")) as file:
            quota, period = file.read().split()
        if quota != "max":
            count = min(count, int(quota) / int(period))
    except (OSError, ValueError):
        pass  # not in a container, or one without a limit
    return max(1, min(_MOST_THREADS, round(count)))


def _memory() -> int:
    """Return the bytes of memory that this process may use: those of the machine, or of its control group."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open(os.path.join(_CGROUP, "memory.max")) as file:
            return min(size, int(file.read()))
    except (OSError, ValueError):
        return size  # not in a container, or one without a limit
