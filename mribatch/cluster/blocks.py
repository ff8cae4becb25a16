"""Cut a table of scans into blocks, and hand each block to the task that works on it."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from mribatch.sources.listing import keys_of
from mribatch.stores import uris

__all__ = ["PIXEL_BYTES", "at_once", "even", "growing", "rows_of", "tasks_of"]

PIXEL_BYTES = 40 << 20
"""The most of a block after decoding: 256 scans of 224 px, 128 of 299 px."""

_MOST_ROWS = 256
"""Larger blocks save nothing: the 0.1 core-seconds that Ray takes for each are spread over enough scans."""

_FILE_BYTES = 64 << 20  # files of many frames decode for long; a task that is lost is done again
_BLOCKS_PER_CORE = 2
_ROWS_PER_THREAD = 32  # at the end of a batch, threads wait for the last one: 1% of the time, with 4 rows each 5%


def even(rows: int, most: int) -> list[int]:
    """Return how many rows each block holds: `most`, and the last one what is left. No rows make one empty block."""
    return [min(most, rows - at) for at in range(0, rows, most)] or [0]


def growing(table: pa.Table, batch_size: int, side_px: int, cores: int) -> list[int]:
    """Return how many scans each block holds. Blocks are whole batches, but for the last one.

    The first block is one batch, so that predictors do not wait for a large one. Each block may have twice the scans of the one
    before, up to 256 scans, 40 MB of pixels or 64 MB of files, and leaves every core at least two blocks.
    """
    most = max(batch_size, _fitting(table.num_rows, side_px, cores) // batch_size * batch_size)
    blocks: list[int] = []
    rows = size = 0
    limit = batch_size
    for at in range(0, table.num_rows, batch_size):
        batch = table.slice(at, batch_size)
        batch_bytes = sum(uris.size(uri, version) for uri, version in keys_of(batch))
        if rows and (rows + batch.num_rows > limit or size + batch_bytes > _FILE_BYTES):
            blocks.append(rows)
            rows, size, limit = 0, 0, min(2 * limit, most)
        rows, size = rows + batch.num_rows, size + batch_bytes
    return [*blocks, rows]


def at_once(rows: int, batch_size: int, threads: int | None, side_px: int, cores: int) -> int:
    """Return how many scans a predictor gets at once: `batch_size`, and more where each of its threads needs more.

    threads: None for a GPU. The limits are those of `growing`.
    """
    wanted = min(_ROWS_PER_THREAD * (threads or 0), _fitting(rows, side_px, cores))
    return max(batch_size, wanted // batch_size * batch_size)


def _fitting(rows: int, side_px: int, cores: int) -> int:
    return min(_MOST_ROWS, PIXEL_BYTES // (3 * side_px * side_px), rows // (_BLOCKS_PER_CORE * cores))


def rows_of(table: pa.Table, blocks: Sequence[int], **resources: float) -> "ray.data.Dataset":
    """Stream the rows of a table in its order, in blocks of these sizes.

    A task gets its rows with the call, and can do further work on them if that asks for the same `resources`. So the
    first block does not wait for the others, as it does in Ray's `from_arrow`, which runs a task for each block first.
    """
    options: dict[str, Any] = {"override_num_blocks": len(blocks), **resources}
    rows: ray.data.Dataset = ray.data.read_datasource(_Table(table, blocks), **options)
    return rows


def tasks_of(table: pa.Table, blocks: Sequence[int]) -> list[ReadTask]:
    """Return a task for each block, which yields its rows. Only these are sent with it."""
    return [
        ReadTask(
            _Rows(table.slice(start, end - start)),
            BlockMetadata(num_rows=end - start, size_bytes=None, input_files=None, exec_stats=None),
        )
        for start, end in pairwise(accumulate(blocks, initial=0))
    ]


class _Rows:
    """Returns the rows of a block. Pickled, a slice of a table would bring the whole of it."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def __call__(self) -> list[pa.Table]:
        return [self._rows]

    def __getstate__(self) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._rows.schema) as stream:
            stream.write_table(self._rows)
        return bytes(sink.getvalue())

    def __setstate__(self, state: bytes) -> None:
        self._rows = pa.ipc.open_stream(state).read_all()


class _Table(Datasource):
    def __init__(self, table: pa.Table, blocks: Sequence[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray gives it no types
        self._tasks = tasks_of(table, blocks)

    def estimate_inmemory_data_size(self) -> int | None:
        """Return that the size is unknown: else Ray cuts the blocks to a size of its own."""
        return None

    def get_read_tasks(self, *_: object, **__: object) -> list[ReadTask]:
        """Return a task for each block, however many Ray asks for."""
        return self._tasks
