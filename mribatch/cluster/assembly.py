"""Bring the rows of a file together that arrive in several batches or writes, so that they enter one part."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mribatch.predictions.files import file_uris
from mribatch.schema import Status

__all__ = ["Assembler", "whole_files"]

_KEPT_FILES = 64  # complete ones, for writes that Ray retries

_Key = tuple[str, ...]


class Assembler:
    """Holds rows of files of which some frames or members have not arrived yet. A write that brings the last ones gets all.

    A write that Ray repeats brings the same rows again and gets the same ones.
    """

    def __init__(self) -> None:
        self._open: dict[_Key, dict[int, pa.Table]] = {}  # rows by file and write
        self._owners: dict[_Key, int] = {}  # of complete files: the write that got them
        self._complete: dict[_Key, pa.Table] = {}  # the last ones

    def add(self, write: int, rows: pa.Table) -> pa.Table:
        """Take rows of incomplete files that a write has. Return all rows of those files that it must write."""
        mine = [rows.slice(0, 0)]
        for key, numbers in _rows_of_files(rows):
            if key not in self._owners:
                self._collect(key, write, rows.take(pa.array(numbers)))
            if self._owners.get(key) == write and key in self._complete:
                mine.append(self._complete[key])
        return pa.concat_tables(mine)

    def _collect(self, key: _Key, write: int, rows: pa.Table) -> None:
        tables = self._open.setdefault(key, {})
        tables[write] = rows
        collected = pa.concat_tables(tables.values())
        if not _is_complete(_Places(collected), range(collected.num_rows)):
            return
        self._owners[key], self._complete[key] = write, collected
        del self._open[key]
        for old in list(self._complete)[:-_KEPT_FILES]:
            del self._complete[old]


def whole_files(rows: pa.Table) -> pa.ChunkedArray:
    """Return for each row whether all frames and members of its file are in the table, or one that failed.

    A file that failed has no row in the end, so its other rows need not be waited for.
    """
    is_whole = np.ones(rows.num_rows, bool)
    if max(pc.max(rows[name]).as_py() or 0 for name in ("frames", "members")) > 1:
        places = _Places(rows)
        for _, numbers in _rows_of_files(rows):
            is_whole[numbers] = _is_complete(places, numbers)
    return pa.chunked_array([pa.array(is_whole)])


class _Places:
    """Where rows belong in their files, as Python lists."""

    def __init__(self, rows: pa.Table) -> None:
        self.frames, self.member, self.members, self.status = (
            rows[name].to_pylist() for name in ("frames", "member", "members", "status")
        )


def _is_complete(places: _Places, numbers: Sequence[int]) -> bool:
    """Return whether these rows of one file are all that it has."""
    if any(places.status[number] == Status.FAILED for number in numbers):
        return True
    frames = {places.member[number]: places.frames[number] for number in numbers}  # of each member
    return len(frames) == (places.members[numbers[0]] or 1) and len(numbers) == sum(frames.values())


def _rows_of_files(rows: pa.Table) -> Iterator[tuple[_Key, list[int]]]:
    """Yield each file with the numbers of its rows."""
    numbers: dict[_Key, list[int]] = {}
    keys = zip(file_uris(rows).to_pylist(), rows["scan_version"].to_pylist(), strict=True)
    for number, key in enumerate(keys):
        numbers.setdefault(key, []).append(number)
    yield from numbers.items()
