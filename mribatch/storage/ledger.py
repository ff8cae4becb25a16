"""What is done and what is left: the parts of an output, the plan, the verification, the run record.

The parts themselves are the only record of what is done; nothing here can disagree with them.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from mribatch import schema
from mribatch.errors import RunFailed
from mribatch.storage import uris
from mribatch.storage.lock import RUNS

__all__ = [
    "Plan",
    "Receipt",
    "model_folder",
    "part_names",
    "part_rows",
    "plan",
    "predictions",
    "verify",
    "write_record",
]

log = logging.getLogger("mribatch.ledger")

_KEYS = pa.schema([*schema.PLAN, pa.field("frame", pa.int32(), False)])


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What one write did."""

    part: str | None  # the part's name; None where all its scans failed
    rows: int
    rejected: dict[str, int]  # by reason
    failed: list[tuple[str, str]]  # scan_uri and why
    by_class: dict[str, int]
    node: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is to do, frozen when it begins."""

    listed: int
    done: int
    todo: pa.Table  # schema PLAN
    parts: frozenset[str]  # what was there already


def model_folder(output: str, digest: str) -> str:
    return uris.join(output, f"model={digest}")


def part_names(output: str, digest: str) -> list[str]:
    """The names of all visible parts, sorted."""
    return [name for name in uris.names(model_folder(output, digest)) if name.startswith("part-")]


def part_rows(name: str) -> int:
    """The rows of a part, which its name tells: part-<run>-<hash>-<rows>.parquet."""
    rows = name.removesuffix(".parquet").rpartition("-")[2]
    return int(rows) if rows.isdigit() else 0


def plan(listing: pa.Table, output: str, digest: str, limit: int | None = None) -> Plan:
    """A listing minus what has a row already. Also clears away what a crash left; the lock must be held.

    Where two parts hold one scan (a crash between a write and its retry), one of them goes and what only it held
    is planned again. Raises StorageError, RunFailed for a part that is no Parquet.
    """
    folder = model_folder(output, digest)
    for name in uris.names(folder):
        if name.startswith(".") and name.endswith(".tmp"):
            uris.delete(uris.join(folder, name))
    parts = _without_duplicates(output, digest, part_names(output, digest))
    done = _keys(output, digest, parts)
    keys = list(schema.PLAN.names)
    todo = listing.join(done.select(keys).group_by(keys).aggregate([]), keys=keys, join_type="left anti")
    todo = todo.select(keys).sort_by("scan_uri").cast(schema.PLAN)
    return Plan(
        listed=listing.num_rows,
        done=listing.num_rows - todo.num_rows,
        todo=todo if limit is None else todo.slice(0, limit),
        parts=frozenset(parts),
    )


def verify(planned: Plan, output: str, digest: str, receipts: Sequence[Receipt]) -> None:
    """Check that every planned scan has its row in the parts of this run, once, or failed. Removes foreign parts.

    Raises RunFailed, which a rerun mends.
    """
    own = {receipt.part for receipt in receipts if receipt.part}
    for name in set(part_names(output, digest)) - planned.parts - own:
        log.warning("removing %s, which no step of this run has accounted for", name)
        uris.delete(uris.join(model_folder(output, digest), name))
    found = _keys(output, digest, sorted(own))
    failed = {uri for receipt in receipts for uri, _ in receipt.failed}
    expected = planned.todo.filter(pc.invert(pc.is_in(planned.todo["scan_uri"], pa.array(sorted(failed), pa.string()))))
    twice = found.num_rows - found.group_by(list(_KEYS.names)).aggregate([]).num_rows
    scans = found.select(list(schema.PLAN.names)).group_by(list(schema.PLAN.names)).aggregate([])
    keys = list(schema.PLAN.names)
    missing = expected.join(scans, keys=keys, join_type="left anti").num_rows
    foreign = scans.join(expected, keys=keys, join_type="left anti").num_rows
    if missing or foreign or twice:
        raise RunFailed(f"the rows in {output} are not those planned: {missing} scans are missing, {twice} stand twice, "
                        f"{foreign} were not planned; run the command again, it completes what is missing")  # fmt: skip


def predictions(output: str, digest: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of one model, or some columns of them."""
    return _dataset(output, digest, part_names(output, digest)).to_table(columns=columns and list(columns))


def write_record(output: str, run_id: str, facts: dict[str, Any]) -> str:
    """The run's record, written last: it stands only where the run is complete. Its URI."""
    place = uris.join(output, RUNS, f"{run_id}.json")
    uris.put(place, json.dumps(facts, indent=1).encode())
    return place


def _keys(output: str, digest: str, parts: Iterable[str]) -> pa.Table:
    names = list(parts)
    if not names:
        return _KEYS.empty_table()
    return _dataset(output, digest, names).to_table(columns=list(_KEYS.names)).cast(_KEYS)


def _dataset(output: str, digest: str, parts: Sequence[str]) -> pyarrow.dataset.Dataset:
    filesystem, folder = uris.filesystem(model_folder(output, digest))
    paths = [f"{folder}/{name}" for name in parts]
    try:
        return pyarrow.dataset.dataset(paths, format="parquet", filesystem=filesystem)
    except (pa.ArrowInvalid, OSError) as err:
        raise RunFailed(f"a part in {model_folder(output, digest)} could not be read ({err}): "
                        "remove it, and its scans are scored again") from err  # fmt: skip


def _without_duplicates(output: str, digest: str, parts: list[str]) -> list[str]:
    keys = _keys(output, digest, parts)
    names = list(_KEYS.names)
    if keys.num_rows == keys.group_by(names).aggregate([]).num_rows:
        return parts
    kept: list[str] = []
    seen: set[tuple[Any, ...]] = set()
    for part in parts:
        rows = set(zip(*(_keys(output, digest, [part])[name].to_pylist() for name in names), strict=True))
        if rows & seen:
            log.warning("removing %s, whose scans stand in another part too", part)
            uris.delete(uris.join(model_folder(output, digest), part))
        else:
            kept.append(part)
            seen |= rows
    return kept
