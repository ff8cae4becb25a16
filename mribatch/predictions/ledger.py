"""What is done and what is left: the parts of an output, the plan, the verification, the run record.

The parts themselves are the only record of what is done; nothing here can disagree with them.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch import schema
from mribatch.errors import InputError, RunFailed, StorageMissing
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

_KEYS = pa.schema([*schema.PLAN, pa.field("frame", pa.int32(), False)])
_WORTH = ("reason", "scored_at")  # which of two rows of one key stays


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
    witnesses: tuple[Witness, ...] = ()  # some scans of the listing, done or not: see `source.decoded`

    def without_row(self, receipts: Sequence[Receipt]) -> pa.Table:
        """Of todo, the scans that failed or were left."""
        names = {uri for receipt in receipts for uri, _ in receipt.failed}.union(*(r.left for r in receipts))
        return self.todo.filter(pc.is_in(self.todo["scan_uri"], pa.array(sorted(names), pa.string())))


def plan(listing: pa.Table, output: str, digest: str, limit: int | None = None, *, again: bool = False) -> Plan:
    """A listing minus what has a row already, or all of it `again`. Clears away what a crash left; the lock must be held.

    Where a scan has two rows (a crash between a write and its retry, or while parts were rewritten), the one scored last
    stays, and parts are rewritten without the other. Raises StorageError, RunFailed for a part that is no Parquet.
    """
    folder = model_folder(output, digest)
    for name in uris.names(folder, "."):
        if name.endswith(".tmp"):
            uris.delete(uris.join(folder, name))
    _remove_doubles(output, digest)
    parts = part_names(output, digest)
    done = _keys(output, digest, parts)
    todo = _todo(listing, done.slice(0, 0) if again else done)
    return Plan(
        listed=listing.num_rows,
        done=listing.num_rows - todo.num_rows,
        todo=todo if limit is None else todo.slice(0, limit),
        parts=frozenset(parts),
        witnesses=witnesses(listing),
    )


def check_output(output: str) -> None:
    """Raise StorageMissing where there is no folder, InputError for one that no run has written to."""
    held = uris.names(output)
    if RUNS in held or digests(output):
        return
    if not held and not uris.exists(output):
        raise StorageMissing(f"no folder at {output}: give the --output of jobs/score.py or jobs/nightly.py")
    raise InputError(f"no predictions in {output}: expected a folder that jobs/score.py or jobs/nightly.py wrote, "
                     "with folders called model=…")  # fmt: skip


def pending(listing: pa.Table, output: str, digest: str) -> pa.Table:
    """What `plan` would find to do, schema PLAN. Changes nothing and needs no lock."""
    return _todo(listing, predictions(output, digest, schema.PLAN.names))


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


def write_record(output: str, run_id: str, facts: dict[str, Any]) -> str:
    """The run's record, written last: it stands only where the run is complete. Its URI."""
    place = uris.join(output, RUNS, f"{run_id}.json")
    uris.put(place, json.dumps(facts, indent=1).encode())
    return place


def _todo(listing: pa.Table, done: pa.Table) -> pa.Table:
    return _minus(listing, done).select(schema.PLAN.names).sort_by("scan_uri").cast(schema.PLAN)


def _distinct(table: pa.Table, names: Sequence[str]) -> pa.Table:
    return table.group_by(list(names)).aggregate([])


def _minus(table: pa.Table, other: pa.Table) -> pa.Table:
    """The rows whose scan is not in the other table."""
    keys = schema.PLAN.names
    return table.join(other.select(keys), keys=keys, join_type="left anti")


def _keys(output: str, digest: str, parts: Sequence[str]) -> pa.Table:
    """The keys of all rows of some parts."""
    tables = [table.cast(_KEYS) for table in read_each(output, digest, parts, _KEYS.names)]
    return pa.concat_tables([_KEYS.empty_table(), *tables])


def _remove_doubles(output: str, digest: str) -> None:
    """Rewrite parts until no key stands twice. Of two rows of a key the better one stays."""
    parts = part_names(output, digest)
    keys = _keys(output, digest, parts)
    if _distinct(keys, _KEYS.names).num_rows == keys.num_rows:
        return
    tables = read_each(output, digest, parts, [*_KEYS.names, *_WORTH])
    stays = _better(pa.concat_tables(tables, promote_options="default"), [t.num_rows for t in tables])
    begins = np.cumsum([0, *(table.num_rows for table in tables)])
    for name, first, last in zip(parts, begins[:-1], begins[1:], strict=True):
        if not stays[first:last].all():
            log.warning("removing rows from %s that stand in another part too", name)
            rows = read_parts(output, digest, [name])
            replace(output, digest, [name], rows.filter(pa.array(stays[first:last])), _no_check)


def _better(rows: pa.Table, sizes: Sequence[int]) -> NDArray[np.bool_]:
    """For each row, does it stay? Of each key one does: not one that tells that the scan was gone, if another one tells
    more; else the one scored last; of copies the one in the larger part."""
    keys = np.stack([codes(rows[name]) for name in _KEYS.names])
    gone = was_gone(rows).to_numpy()
    at = rows["scored_at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((-np.repeat(sizes, sizes), -at, gone, *keys))
    first = np.r_[True, (np.diff(keys[:, order]) != 0).any(axis=0)]
    stays = np.zeros(rows.num_rows, bool)
    stays[order[first]] = True
    return stays


def _no_check() -> None:
    """The plan holds the lock; what it rewrites, a successor would rewrite alike."""
