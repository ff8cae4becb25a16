"""Plan a run against the parts of an output, verify its rows afterwards, and write its record.

The parts themselves are the only record of what is done, so that nothing can disagree with them.
"""

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch import schema
from mribatch.errors import InputError, RunFailed, StorageMissing
from mribatch.predictions.files import file_uris, is_done, of_files
from mribatch.predictions.lock import RUNS, Fence
from mribatch.predictions.parts import (
    codes,
    digests,
    model_folder,
    part_names,
    part_rows,
    predictions,
    read_each,
    read_parts,
    replace,
    was_gone,
)
from mribatch.stores import uris
from mribatch.stores.access import Witness, witnesses

__all__ = [
    "Plan",
    "Receipt",
    "check_output",
    "digests",
    "model_folder",
    "part_names",
    "part_rows",
    "pending",
    "plan",
    "predictions",
    "read_parts",
    "verify",
    "was_gone",
    "write_record",
]

log = logging.getLogger("mribatch.ledger")

_KEYS = pa.schema([*schema.PLAN, pa.field("frame", pa.int32(), False), pa.field("container", pa.string())])
_DONE = (*_KEYS.names, "reason", "reading")  # decide which files are done
_RANKING = ("reason", "run_id", "scored_at")  # decide which of two rows with one key is kept


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Summary of one write."""

    part: str | None  # name of the part; None if none of its scans has a row
    rows: int
    scored: int = 0  # scans of which at least one frame has a prediction
    rejected: dict[str, int]  # scans by reason
    skipped: dict[str, int] = field(default_factory=dict)  # scans by reason
    failed: list[tuple[str, str]]  # scan_uri and cause
    left: list[str]  # scan_uri of scans not reached before the deadline
    by_class: dict[str, int]  # frames
    referred: dict[str, int] = field(default_factory=dict)  # frames by reason
    by_node: dict[str, int]  # scans, by the ID of the node that scored them
    peak_bytes: dict[str, int]  # peak memory of a process, by its role


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of a run, fixed when it begins."""

    listed: int
    done: int
    todo: pa.Table  # schema PLAN, in the order of scoring
    parts: frozenset[str]  # names of the parts that existed already
    outdated: pa.Table = field(default_factory=schema.PLAN.empty_table)  # scans of `todo` with rows of another reading
    witnesses: tuple[Witness, ...] = ()  # scans sampled from the listing, done or not: see `stores.access`

    def without_row(self, receipts: Sequence[Receipt]) -> pa.Table:
        """Return the scans of `todo` that failed or were left."""
        names = {uri for receipt in receipts for uri, _ in receipt.failed}.union(*(r.left for r in receipts))
        return self.todo.filter(pc.is_in(self.todo["scan_uri"], pa.array(sorted(names), pa.string())))


def plan(
    listing: pa.Table,
    output: str,
    digest: str,
    limit: int | None = None,
    *,
    again: bool = False,
    readings: Collection[str] | None = None,
) -> Plan:
    """Plan the scans of a listing that have no row yet, or all of them if `again`. The lock must be held.

    readings: of this run, see `scans.reading.Reading`; scans whose rows depend on another one are planned again. None
    takes every row as it is.

    Removes what a crash left behind. If a scan has rows of two writes (after a crash between a write and its retry, or
    while parts were rewritten), those scored last are kept. Parts are rewritten without the others. Raises StorageError,
    and RunFailed for a part that is not Parquet.
    """
    folder = model_folder(output, digest)
    for name in uris.names(folder, "."):
        if name.endswith(".tmp"):
            uris.delete(uris.join(folder, name))
    _remove_duplicates(output, digest)
    parts = part_names(output, digest)
    rows = read_parts(output, digest, parts, _DONE)
    todo = _todo(listing, rows.slice(0, 0) if again else _done(rows, readings))
    planned = todo if limit is None else todo.slice(0, limit)
    return Plan(
        listed=listing.num_rows,
        done=listing.num_rows - todo.num_rows,
        todo=planned,
        parts=frozenset(parts),
        outdated=schema.PLAN.empty_table() if again else _both(planned, of_files(rows)),
        witnesses=witnesses(listing),
    )


def check_output(output: str) -> None:
    """Check that a run has written to a folder. Raises StorageMissing if it does not exist, otherwise InputError."""
    names = uris.names(output)
    if RUNS in names or digests(output):
        return
    if not names and not uris.exists(output):
        raise StorageMissing(f"no folder at {output}: give the --output of `mribatch score` or `mribatch nightly`")
    expected = "a folder that `mribatch score` or `mribatch nightly` wrote, with folders called model=…"
    raise InputError(f"no predictions in {output}: expected {expected}")


def pending(listing: pa.Table, output: str, digest: str, readings: Collection[str] | None = None) -> pa.Table:
    """Return the scans that `plan` would plan (schema PLAN). Changes nothing and needs no lock."""
    return _todo(listing, _done(predictions(output, digest, _DONE), readings))


def verify(planned: Plan, output: str, digest: str, receipts: Sequence[Receipt], fence: Fence | None = None) -> None:
    """Check that each planned file failed, was left, or has all frames and members in the parts of this run, each once.

    Removes foreign parts.

    A part is foreign if it did not exist when the run began and none of the run's receipts names it. It is a write
    whose retry was counted instead, or a write of a run that had lost the lock. The fence is checked before anything is
    removed, because to a run that has lost the lock the parts of its successor look foreign. Raises OutputHeld in that
    case, and RunFailed, which a rerun fixes, if the rows are not those planned.
    """
    own = {receipt.part for receipt in receipts if receipt.part}
    present = set(part_names(output, digest))
    for name in sorted(present - planned.parts - own):
        if fence:
            fence.check()
        log.warning("removing %s, which no receipt of this run accounts for", name)
        uris.delete(uris.join(model_folder(output, digest), name))
    keys = read_parts(output, digest, sorted(own & present), [*_KEYS.names, "frames", "member", "members"])
    expected = _minus(planned.todo, planned.without_row(receipts))
    twice = keys.num_rows - _distinct(keys, schema.KEY).num_rows
    files = _distinct(of_files(keys), schema.PLAN.names)
    missing, foreign = _minus(expected, files).num_rows, _minus(files, expected).num_rows
    partial = _incomplete(keys, "frame", "frames") + _incomplete(of_files(keys), "member", "members")
    if missing or foreign or twice or partial:
        raise RunFailed(
            f"the rows in {output} are not those planned: {missing} scans are missing, {twice} appear twice, {foreign} "
            f"were not planned, {partial} lack some of their frames or members; run the command again to add what is missing"
        )


def write_record(output: str, run_id: str, facts: dict[str, Any]) -> str:
    """Write the run's record and return its URI. It is written last, so that only complete runs have one."""
    uri = uris.join(output, RUNS, f"{run_id}.json")
    uris.put(uri, json.dumps(facts, indent=1).encode())
    return uri


def _done(rows: pa.Table, readings: Collection[str] | None) -> pa.Table:
    """Return the files that are done: those with a row that is, except archives with a member that is not."""
    is_current = is_done(rows, readings)
    outdated = rows.filter(pc.and_(pc.invert(is_current), pc.is_valid(rows["container"])))
    return _minus(of_files(rows.filter(is_current)).select(schema.PLAN.names), of_files(outdated))


def _todo(listing: pa.Table, done: pa.Table) -> pa.Table:
    return _minus(listing, done).select(schema.PLAN.names).sort_by("scan_uri").cast(schema.PLAN)


def _distinct(table: pa.Table, names: Sequence[str]) -> pa.Table:
    return table.group_by(list(names)).aggregate([])


def _minus(table: pa.Table, other: pa.Table) -> pa.Table:
    """Return the rows whose scan is not in the other table."""
    keys = schema.PLAN.names
    return table.join(other.select(keys), keys=keys, join_type="left anti")


def _both(table: pa.Table, rows: pa.Table) -> pa.Table:
    """Return the scans of a table that have rows."""
    keys = schema.PLAN.names
    return table.join(rows.select(keys), keys=keys, join_type="left semi").select(keys).cast(schema.PLAN)


def _incomplete(keys: pa.Table, name: str, names: str) -> int:
    """Return how many scans, or files, have other frames, or members, than 0 … n - 1. Null stands for the only one."""
    numbers = keys.select(schema.PLAN.names).append_column("number", pc.fill_null(keys[name], 0))
    numbers = numbers.append_column("count", pc.fill_null(keys[names], 1))
    groups = numbers.group_by(schema.PLAN.names).aggregate(
        [("number", "max"), ("number", "count_distinct"), ("count", "max")]
    )
    count = groups["count_max"]
    is_complete = pc.and_(
        pc.equal(groups["number_count_distinct"], count), pc.equal(groups["number_max"], pc.subtract(count, 1))
    )
    return int(pc.sum(pc.invert(is_complete)).as_py() or 0)


def _keys(output: str, digest: str, parts: Sequence[str]) -> pa.Table:
    """Return the keys of all rows of some parts."""
    tables = [table.cast(_KEYS) for table in read_each(output, digest, parts, _KEYS.names)]
    return pa.concat_tables([_KEYS.empty_table(), *tables])


def _remove_duplicates(output: str, digest: str) -> None:
    """Rewrite parts so that no key appears twice. Of two rows with one key the better one is kept.

    An archive that has a row of its own and rows of members has been written twice, too.
    """
    parts = part_names(output, digest)
    keys = _keys(output, digest, parts)
    members = keys.filter(pc.is_valid(keys["container"]))
    is_mixed = False
    if members.num_rows:
        own = keys.select(schema.PLAN.names).filter(pc.is_null(keys["container"]))
        is_mixed = _both(own, of_files(members)).num_rows > 0
    if _distinct(keys, schema.KEY).num_rows == keys.num_rows and not is_mixed:
        return
    tables = read_each(output, digest, parts, [*_KEYS.names, *_RANKING])
    kept = _best_rows(pa.concat_tables(tables, promote_options="default"), [table.num_rows for table in tables])
    begins = np.cumsum([0, *(table.num_rows for table in tables)])
    for name, first, last in zip(parts, begins[:-1], begins[1:], strict=True):
        if not kept[first:last].all():
            log.warning("removing rows from %s that another part has too", name)
            rows = read_parts(output, digest, [name]).filter(pa.array(kept[first:last]))
            # Nothing to check: the lock is held, and a successor would rewrite the part in the same way.
            replace(output, digest, [name], rows, check=lambda: None)


def _best_rows(rows: pa.Table, sizes: Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask of the rows to keep: for each file, the frames and members of one write, each once.

    A write is a run's rows in one part. Preferred is one that says more than that the scan had vanished, then the
    latest, then the one in the larger part.
    """
    keys = np.stack([codes(file_uris(rows)), codes(rows["scan_version"])])
    file = np.unique(keys, axis=1, return_inverse=True)[1].ravel()
    part, run, frame = np.repeat(np.arange(len(sizes)), sizes), codes(rows["run_id"]), codes(rows["frame"])
    at = rows["scored_at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((frame, -np.repeat(sizes, sizes), -at, was_gone(rows).to_numpy(), file))
    first = np.r_[True, np.diff(file[order]) != 0]
    winner = order[first][np.cumsum(first) - 1]  # for each row in order, the best row of its file
    chosen = order[(part[order] == part[winner]) & (run[order] == run[winner])]
    scan = codes(rows["scan_uri"])
    _, once = np.unique(np.stack([file[chosen], scan[chosen], frame[chosen]]), axis=1, return_index=True)
    kept = np.zeros(rows.num_rows, bool)
    kept[chosen[once]] = True
    return kept
