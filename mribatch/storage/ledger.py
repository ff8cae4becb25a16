"""What is done and what is left: the parts of an output, the plan, the verification, the run record.

The parts themselves are the only record of what is done; nothing here can disagree with them.
"""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from mribatch import schema
from mribatch.errors import RunFailed, StorageMissing
from mribatch.storage import uris
from mribatch.storage.lock import RUNS, Fence

__all__ = [
    "Plan",
    "Receipt",
    "digests",
    "model_folder",
    "part_names",
    "part_rows",
    "pending",
    "plan",
    "predictions",
    "read_parts",
    "verify",
    "write_record",
]

log = logging.getLogger("mribatch.ledger")

_KEYS = pa.schema([*schema.PLAN, pa.field("frame", pa.int32(), False)])
_READERS = 16  # parts read at once: S3 answers slowly, and to many at a time
_TRIES = 5  # readings of an output whose parts are being compacted


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What one write did."""

    part: str | None  # the part's name; None where none of its scans has a row
    rows: int
    rejected: dict[str, int]  # by reason
    failed: list[tuple[str, str]]  # scan_uri and why
    left: list[str]  # scan_uri; the time was over
    by_class: dict[str, int]
    by_node: dict[str, int]  # scans, by the ID of the node that scored them
    peak_bytes: dict[str, int]  # the most memory that a process has had, by its role


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is to do, frozen when it begins."""

    listed: int
    done: int
    todo: pa.Table  # schema PLAN, in the order in which it is to be done
    parts: frozenset[str]  # what was there already

    def without_row(self, receipts: Sequence[Receipt]) -> pa.Table:
        """Of todo, the scans that failed or were left."""
        names = {uri for receipt in receipts for uri, _ in receipt.failed}.union(*(r.left for r in receipts))
        return self.todo.filter(pc.is_in(self.todo["scan_uri"], pa.array(sorted(names), pa.string())))


def model_folder(output: str, digest: str) -> str:
    return uris.join(output, f"model={digest}")


def part_names(output: str, digest: str) -> list[str]:
    """The names of all visible parts, sorted."""
    return [name for name in uris.names(model_folder(output, digest), "part-") if name.endswith(".parquet")]


def part_rows(name: str) -> int:
    """The rows of a part, which its name tells: part-<run>-<hash>-<rows>.parquet."""
    rows = name.removesuffix(".parquet").rpartition("-")[2]
    return int(rows) if rows.isdecimal() else 0


def plan(listing: pa.Table, output: str, digest: str, limit: int | None = None, *, again: bool = False) -> Plan:
    """A listing minus what has a row already, or all of it `again`. Clears away what a crash left; the lock must be held.

    Where two parts hold one scan (a crash between a write and its retry), one of them goes and what only it held
    is planned again. Raises StorageError, RunFailed for a part that is no Parquet.
    """
    folder = model_folder(output, digest)
    for name in uris.names(folder, "."):
        if name.endswith(".tmp"):
            uris.delete(uris.join(folder, name))
    parts, done = _without_duplicates(output, digest, part_names(output, digest))
    todo = _todo(listing, done.slice(0, 0) if again else done)
    return Plan(
        listed=listing.num_rows,
        done=listing.num_rows - todo.num_rows,
        todo=todo if limit is None else todo.slice(0, limit),
        parts=frozenset(parts),
    )


def pending(listing: pa.Table, output: str, digest: str) -> pa.Table:
    """What `plan` would find to do, schema PLAN. Changes nothing and needs no lock."""
    return _todo(listing, _keys(output, digest, part_names(output, digest)))


def digests(output: str) -> list[str]:
    """The models that an output has rows of."""
    return [name.removeprefix("model=") for name in uris.folders(output) if name.startswith("model=")]


def verify(planned: Plan, output: str, digest: str, receipts: Sequence[Receipt], fence: Fence | None = None) -> None:
    """Check that every planned scan has its row in the parts of this run, once, or failed or was left. Removes foreign parts.

    A part is foreign that was not there when the run began and that none of its receipts names: a write whose retry
    was counted in its place, or one that a run slipped in that had lost the lock. The fence is asked before anything
    is removed: to a run that lost the lock itself, the parts of its successor would look foreign. Raises OutputHeld
    then, and RunFailed, which a rerun mends, where the rows are not those planned.
    """
    own = {receipt.part for receipt in receipts if receipt.part}
    there = set(part_names(output, digest))
    for name in sorted(there - planned.parts - own):
        if fence:
            fence.check()
        log.warning("removing %s, which no step of this run has accounted for", name)
        uris.delete(uris.join(model_folder(output, digest), name))
    found = _keys(output, digest, sorted(own & there))
    expected = _minus(planned.todo, planned.without_row(receipts))
    twice = found.num_rows - _distinct(found, _KEYS.names).num_rows
    scans = _distinct(found, schema.PLAN.names)
    missing, foreign = _minus(expected, scans).num_rows, _minus(scans, expected).num_rows
    if missing or foreign or twice:
        raise RunFailed(f"the rows in {output} are not those planned: {missing} scans are missing, {twice} stand twice, "
                        f"{foreign} were not planned; run the command again, it completes what is missing")  # fmt: skip


def predictions(output: str, digest: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of one model, or some columns of them; without parts, no rows and no p_<label> columns."""
    for _ in range(_TRIES):
        try:
            return read_parts(output, digest, part_names(output, digest), columns)
        except StorageMissing:
            continue  # a part that was listed has since become part of another one
    return read_parts(output, digest, part_names(output, digest), columns)


def read_parts(output: str, digest: str, names: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of some parts, or some columns of them; see `predictions`."""
    if not names:
        empty = schema.prediction_schema(()).empty_table()
        return empty if columns is None else empty.select([name for name in columns if name in empty.column_names])
    return pa.concat_tables(_read(output, digest, names, columns), promote_options="default")


def write_record(output: str, run_id: str, facts: dict[str, Any]) -> str:
    """The run's record, written last: it stands only where the run is complete. Its URI."""
    place = uris.join(output, RUNS, f"{run_id}.json")
    uris.put(place, json.dumps(facts, indent=1).encode())
    return place


def _keys(output: str, digest: str, parts: Sequence[str]) -> pa.Table:
    """The keys of all rows, and in the column `part` which of the parts holds each."""
    columns = pa.schema([*_KEYS, pa.field("part", pa.int32(), False)])
    tables = [
        table.append_column("part", pa.repeat(pa.scalar(number, pa.int32()), table.num_rows)).cast(columns)
        for number, table in enumerate(_read(output, digest, parts, _KEYS.names))
    ]
    return pa.concat_tables([columns.empty_table(), *tables])


def _read(output: str, digest: str, parts: Sequence[str], columns: Sequence[str] | None) -> list[pa.Table]:
    folder = model_folder(output, digest)

    def read(name: str) -> pa.Table:
        data = uris.read(uris.join(folder, name))
        try:
            table = pyarrow.parquet.ParquetFile(pa.BufferReader(data)).read(
                columns and list(columns), use_threads=False
            )
            return table if columns is None else table.select(list(columns))
        except (pa.ArrowException, OSError, KeyError) as err:
            raise RunFailed(f"the part {name} in {folder} could not be read ({' '.join(str(err).split())}): "
                            "remove it, and its scans are scored again") from err  # fmt: skip

    with ThreadPoolExecutor(_READERS) as threads:
        return list(threads.map(read, parts))


def _todo(listing: pa.Table, done: pa.Table) -> pa.Table:
    return _minus(listing, done).select(schema.PLAN.names).sort_by("scan_uri").cast(schema.PLAN)


def _distinct(table: pa.Table, names: Sequence[str]) -> pa.Table:
    return table.group_by(list(names)).aggregate([])


def _minus(table: pa.Table, other: pa.Table) -> pa.Table:
    """The rows whose scan is not in the other table."""
    keys = schema.PLAN.names
    return table.join(other.select(keys), keys=keys, join_type="left anti")


def _without_duplicates(output: str, digest: str, parts: list[str]) -> tuple[list[str], pa.Table]:
    """Remove parts until no key stands twice. What is left, and its keys."""
    keys = _keys(output, digest, parts)
    counted = keys.group_by(_KEYS.names).aggregate([("part", "count")])
    if counted.num_rows == keys.num_rows:
        return parts, keys
    doubles = counted.filter(pc.greater(counted["part_count"], 1))
    surplus = _surplus(keys.join(doubles, keys=_KEYS.names, join_type="inner").select([*_KEYS.names, "part"]))
    for number in sorted(surplus):
        log.warning("removing %s, whose scans stand in another part too", parts[number])
        uris.delete(uris.join(model_folder(output, digest), parts[number]))
    left = keys.filter(pc.invert(pc.is_in(keys["part"], pa.array(sorted(surplus), pa.int32()))))
    return [part for number, part in enumerate(parts) if number not in surplus], left


def _surplus(doubles: pa.Table) -> set[int]:
    """Of the parts that share keys, those that go: each that repeats a key of itself or of an earlier one that stays."""
    held: dict[int, list[tuple[Any, ...]]] = {}
    for *key, part in zip(*(column.to_pylist() for column in doubles.columns), strict=True):
        held.setdefault(part, []).append(tuple(key))
    seen: set[tuple[Any, ...]] = set()
    surplus = set()
    for part in sorted(held):
        rows = set(held[part])
        if len(rows) < len(held[part]) or rows & seen:
            surplus.add(part)
        else:
            seen |= rows
    return surplus
