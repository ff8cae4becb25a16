"""Feed a training worker: select and order the scans of an epoch and stream their pixels in batches.

Each epoch is a separate Ray Dataset over scan URIs in a new order. Shuffling therefore takes no memory or time, an epoch
is the same each time it is started, and its global batches are the same for any number of workers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from mribatch.training.augment_lesions import painted
from mribatch.training.step import Batch

__all__ = ["Augment", "Decode", "Feed", "ahead"]

Decode = Callable[[pa.Table, ImageSpec], Any]
"""Streams the scans of a table as a Ray Dataset of decoded rows."""

Augment = Callable[[NDArray[np.uint8], Sequence[tuple[int, ...]]], NDArray[np.uint8]]
"""Changes scans, (N, side, side, 3) uint8, at random by a key for each, such as `augment.strong`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Feed:
    """The scans of one of several workers, which all make the same number of steps.

    training, validation: tables with `scan_uri`, `scan_version` and `class_number` (int64), for all workers together.
    batch_scans: per worker and step. restart_flag: the flag of the user's command that starts a new training.
    decode: such as `cluster.streaming.decoded`. augment: changes each training scan where it was decoded, by the seed, the
    epoch and the scan's row; None leaves all changes to the step. no_tumour: the class number of scans whose lesion was
    painted out by the boxes in the column `lesion` of `training` (four shares, or null); None paints nothing.
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
    augment: Augment | None = None
    no_tumour: int | None = None

    @property
    def global_batch_scans(self) -> int:
        return self.workers * self.batch_scans

    @property
    def steps(self) -> int:
        """Training steps per epoch; the scans that do not fill a global batch are left out of this epoch."""
        return int(self.training.num_rows // self.global_batch_scans)

    def training_rows(self, epoch: int) -> NDArray[np.int64]:
        """Return this worker's rows of the training table in the order of an epoch, (steps × batch_scans,)."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.training.num_rows)
        used = order[: self.steps * self.global_batch_scans]
        return used.reshape(self.steps, self.workers, self.batch_scans)[:, self.rank].ravel()

    def validation_rows(self) -> NDArray[np.int64]:
        """Return this worker's rows of the validation table; row numbers beyond its end are padding."""
        rows = self.validation.num_rows
        return np.arange(self.rank, rows + -rows % self.workers, self.workers)

    def train(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of an epoch. Raises RunFailed for a scan that can no longer be decoded."""
        change = None
        if self.augment is not None:
            change = partial(_augmented, augment=self.augment, key=(self.seed, epoch), no_tumour=self.no_tumour)
        return self._batches(self.training, self.training_rows(epoch), change)

    def validate(self) -> Iterator[Batch]:
        """Return all validation scans in batches; padding has weight 0. Raises as `train` does."""
        return self._batches(self.validation, self.validation_rows())

    def _batches(
        self, table: pa.Table, rows: NDArray[np.int64], change: Callable[[pa.Table], pa.Table] | None = None
    ) -> Iterator[Batch]:
        weights = pa.array(rows < table.num_rows).cast(pa.float32())
        chosen = table.take(np.minimum(rows, table.num_rows - 1)).append_column("weight", weights)
        chosen = chosen.append_column("row", pa.array(rows))
        scans = self.decode(chosen, ImageSpec(side_px=self.side_px))
        check = partial(_examples, restart_flag=self.restart_flag, change=change)
        examples = scans.map_batches(check, batch_format="pyarrow", batch_size=None)
        for batch in examples.iter_batches(batch_size=self.batch_scans, batch_format="pyarrow", prefetch_batches=2):
            block: pa.Table = batch
            pixels = np.frombuffer(b"".join(block["pixels"].to_pylist()), np.uint8)
            images = pixels.reshape(-1, self.side_px, self.side_px, 3)
            yield images, block["class_number"].to_numpy(), block["weight"].to_numpy()


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Start fetching the first batch in a background thread now; yield the same batches."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="mribatch-ahead")
    first = thread.submit(next, batches, None)
    thread.shutdown(wait=False)

    def fetched() -> Iterator[Batch]:
        batch = first.result()
        if batch is not None:
            yield batch
            yield from batches

    return fetched()


def _examples(block: pa.Table, restart_flag: str, change: Callable[[pa.Table], pa.Table] | None) -> pa.Table:
    """Return the columns that a step needs, after a change of the scans if there is one.

    Raises RunFailed for unreadable scans: without them, workers lose step.
    """
    lost = pc.sum(pc.not_equal(block["status"], Status.OK)).as_py()
    if lost:
        raise RunFailed(
            f"{lost} training scans changed, vanished or can no longer be decoded: run the command with a new "
            f"{restart_flag}"
        )
    changed = block if change is None else change(block)
    return changed.select(["pixels", "class_number", "weight"])


def _augmented(block: pa.Table, augment: Augment, key: tuple[int, int], no_tumour: int | None) -> pa.Table:
    """Return the rows with other pixels, and another class where the lesion is lost. key: seed and epoch."""
    column = block["pixels"]
    side = math.isqrt(column.type.byte_width // 3)
    pixels = np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, side, side, 3)
    keys = [(*key, row) for row in block["row"].to_pylist()]
    if no_tumour is not None:
        classes = block["class_number"].to_numpy()
        pixels, lost = painted(pixels, block["lesion"].to_pylist(), classes == no_tumour, keys)
        numbers = pa.array(np.where(lost, no_tumour, classes))
        block = block.set_column(block.schema.get_field_index("class_number"), "class_number", numbers)
    changed = augment(pixels, keys)
    data = pa.array([scan.tobytes() for scan in changed], column.type)
    return block.set_column(block.schema.get_field_index("pixels"), "pixels", data)
