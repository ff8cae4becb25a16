"""What a training worker sees of the scans: which of them in which epoch, in what order, and their pixels in batches.

Each epoch is a Ray Dataset of its own, over names in a new order: shuffling costs neither memory nor time, an epoch is
the same however often it is begun, and all its global batches are the same for any number of workers.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch.errors import RunFailed
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Status
from mribatch.training.step import Batch

__all__ = ["Decode", "Feed", "ahead"]

Decode = Callable[[pa.Table, ImageSpec], Any]
"""Streams the scans of a table, as a Ray Dataset of decoded rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Feed:
    """The share of one of several workers, which all make as many steps.

    training, validation: tables with `scan_uri`, `scan_version` and `class_number` (int64), of all workers together.
    batch_scans: of each worker, per step. restart_flag: of the user's command, which begins a training anew.
    decode: stream the scans of a table as decoded rows, as `cluster.decoding.decoded` does.
    """

    training: pa.Table
    validation: pa.Table
    side_px: int
    batch_scans: int
    workers: int
    rank: int
    seed: int
    restart_flag: str
    decode: Decode

    @property
    def global_batch_scans(self) -> int:
        return self.workers * self.batch_scans

    @property
    def steps(self) -> int:
        """Training steps of an epoch; what does not fill a global batch waits for the order of another epoch."""
        return int(self.training.num_rows // self.global_batch_scans)

    def training_rows(self, epoch: int) -> NDArray[np.int64]:
        """This worker's rows of the training table, in the order in which an epoch sees them, (steps × batch_scans,)."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.training.num_rows)
        whole = order[: self.steps * self.global_batch_scans]
        return whole.reshape(self.steps, self.workers, self.batch_scans)[:, self.rank].ravel()

    def validation_rows(self) -> NDArray[np.int64]:
        """This worker's rows of the validation table; those behind its end are padding."""
        rows = self.validation.num_rows
        return np.arange(self.rank, rows + -rows % self.workers, self.workers)

    def train(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch. Raises RunFailed for a scan that can be decoded no more."""
        return self._batches(self.training, self.training_rows(epoch))

    def validate(self) -> Iterator[Batch]:
        """All validation scans, padding with weight 0. Raises as `train`."""
        return self._batches(self.validation, self.validation_rows())

    def _batches(self, table: pa.Table, rows: NDArray[np.int64]) -> Iterator[Batch]:
        weights = pa.array(rows < table.num_rows).cast(pa.float32())
        chosen = table.take(np.minimum(rows, table.num_rows - 1)).append_column("weight", weights)
        scans = self.decode(chosen, ImageSpec(side_px=self.side_px))
        ready = scans.map_batches(
            partial(_readable, restart_flag=self.restart_flag), batch_format="pyarrow", batch_size=None
        )
        for batch in ready.iter_batches(batch_size=self.batch_scans, batch_format="pyarrow", prefetch_batches=2):
            block: pa.Table = batch
            pixels = np.frombuffer(b"".join(block["pixels"].to_pylist()), np.uint8)
            images = pixels.reshape(-1, self.side_px, self.side_px, 3)
            yield images, block["class_number"].to_numpy(), block["weight"].to_numpy()


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches. The first is fetched from now on, in a thread, while its reader still does something else."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="mribatch-ahead")
    first = thread.submit(next, batches, None)
    thread.shutdown(wait=False)
    return _after(first, batches)


def _after(first: Future[Batch | None], batches: Iterator[Batch]) -> Iterator[Batch]:
    batch = first.result()
    if batch is not None:
        yield batch
        yield from batches


def _readable(block: pa.Table, restart_flag: str) -> pa.Table:
    """Rows for the step. A scan that was readable when surveyed must be so still, or the workers lose step."""
    lost = pc.sum(pc.not_equal(block["status"], Status.OK)).as_py()
    if lost:
        raise RunFailed(f"{lost} training scans changed, vanished or could not be decoded any more: run the command with a new "
                        f"{restart_flag}")  # fmt: skip
    return block.select(["pixels", "class_number", "weight"])
