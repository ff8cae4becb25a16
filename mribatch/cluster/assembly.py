"""Bring the frames of a scan together that Ray Data has spread over several writes, so that they enter one part."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mribatch import schema

__all__ = ["Assembler", "assembler", "whole_scans"]

_KEPT_SCANS = 64  # complete ones, for writes that Ray retries

_Key = tuple[str, ...]


class Assembler:
    """Holds rows of scans of which some frames have not arrived yet. A write that brings the last ones gets them all.

    A write that Ray repeats brings the same rows again and gets the same ones.
    """

    def __init__(self) -> None:
        self._open: dict[_Key, dict[int, pa.Table]] = {}  # rows by scan and write
        self._owners: dict[_Key, int] = {}  # of complete scans: the write that got them
        self._complete: dict[_Key, pa.Table] = {}  # the last ones

    def add(self, write: int, rows: pa.Table) -> pa.Table:
        """Take rows of incomplete scans that a write has. Return all rows of those scans that it must write."""
        mine = [rows.slice(0, 0)]
        for key, frames in _scans(rows):
            if key not in self._owners:
                self._collect(key, write, frames)
            if self._owners.get(key) == write and key in self._complete:
                mine.append(self._complete[key])
        return pa.concat_tables(mine)

    def _collect(self, key: _Key, write: int, rows: pa.Table) -> None:
        tables = self._open.setdefault(key, {})
        tables[write] = rows
        if sum(table.num_rows for table in tables.values()) < rows["frames"][0].as_py():
            return
        self._owners[key], self._complete[key] = write, pa.concat_tables(self._open.pop(key).values())
        for old in list(self._complete)[:-_KEPT_SCANS]:
            del self._complete[old]


def assembler() -> Any:
    """Start an Assembler as an actor on the driver's node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Assembler)
    return actor.options(scheduling_strategy=here).remote()


def whole_scans(rows: pa.Table) -> pa.ChunkedArray:
    """Return for each row whether all frames of its scan are in the table."""
    whole = np.ones(rows.num_rows, bool)
    if (pc.max(rows["frames"]).as_py() or 0) > 1:
        for _, numbers in _rows_of_scans(rows):
            whole[numbers] = len(numbers) == rows["frames"][numbers[0]].as_py()
    return pa.chunked_array([pa.array(whole)])


def _scans(rows: pa.Table) -> Iterator[tuple[_Key, pa.Table]]:
    yield from ((key, rows.take(pa.array(numbers))) for key, numbers in _rows_of_scans(rows))


def _rows_of_scans(rows: pa.Table) -> Iterator[tuple[_Key, list[int]]]:
    """Yield each scan with the numbers of its rows."""
    numbers: dict[_Key, list[int]] = {}
    for number, key in enumerate(zip(*(rows[name].to_pylist() for name in schema.PLAN.names), strict=True)):
        numbers.setdefault(key, []).append(number)
    yield from numbers.items()
