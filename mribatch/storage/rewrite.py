"""Parts rewritten as other parts: fewer ones, or without some rows. What is scored, and when, is not known here.

The new part comes first and the old ones go after it, so no row is ever missing to a reader; for a moment some stand
twice. A part that was rewritten sorts before those that were written by runs: where a crash comes between, the next run's plan
keeps it and removes the old ones.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet

from mribatch import schema
from mribatch.errors import RunFailed
from mribatch.storage import ledger, uris
from mribatch.storage.lock import Fence

__all__ = ["compact", "without"]


def without(fence: Fence, parts: Sequence[str], keys: pa.Table) -> int:
    """Remove the rows of some scans, schema PLAN, from some parts. How many rows."""
    removed = 0
    for name in sorted(parts):
        rows = ledger.read_parts(fence.output, fence.digest, [name])
        numbers = pa.array(range(rows.num_rows), pa.int64())
        left = rows.select(schema.PLAN.names).append_column("row", numbers)
        left = left.join(keys.select(schema.PLAN.names), keys=schema.PLAN.names, join_type="left anti")
        if left.num_rows < rows.num_rows:
            removed += rows.num_rows - left.num_rows
            _replace(fence, [name], rows.take(left["row"]))
    return removed


def compact(fence: Fence, part_rows: int) -> tuple[int, int]:
    """Small parts into few of about part_rows rows. How many parts there were and are. Raises OutputHeld, RunFailed."""
    names = ledger.part_names(fence.output, fence.digest)
    small = [name for name in names if ledger.part_rows(name) < part_rows // 2]
    for group in _groups(small, part_rows):
        _replace(fence, group, ledger.read_parts(fence.output, fence.digest, group))
    return len(names), len(ledger.part_names(fence.output, fence.digest))


def _groups(names: Sequence[str], part_rows: int) -> Iterator[list[str]]:
    group: list[str] = []
    for name in names:
        group.append(name)
        if sum(map(ledger.part_rows, group)) >= part_rows:
            yield group
            group = []
    if len(group) > 1:
        yield group


def _replace(fence: Fence, old: Sequence[str], rows: pa.Table) -> None:
    """Put rows in the place of some parts."""
    folder = ledger.model_folder(fence.output, fence.digest)
    made = _put(fence, rows) if rows.num_rows else None
    for name in old:
        fence.check()
        if name != made:
            uris.delete(uris.join(folder, name))


def _put(fence: Fence, rows: pa.Table) -> str:
    rows = rows.sort_by([(name, "ascending") for name in schema.KEY])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(rows, buffer, compression="zstd")
    names = (rows[name].to_pylist() for name in (*schema.KEY, "run_id"))
    key = hashlib.sha256(repr(list(zip(*names, strict=True))).encode()).hexdigest()[:12]
    part = f"part-0-{key}-{rows.num_rows}.parquet"
    fence.check()
    place = uris.join(ledger.model_folder(fence.output, fence.digest), part)
    uris.put(place, buffer.getvalue())
    kept = ledger.read_parts(fence.output, fence.digest, [part])
    if not kept.equals(rows):
        raise RunFailed(
            f"{place} does not hold the rows that were written to it: check the storage; nothing was removed"
        )
    return part
