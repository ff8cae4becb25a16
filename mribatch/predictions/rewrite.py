"""Parts rewritten as other parts: fewer ones, or without some rows. What is scored, and when, is not known here.

A new part comes before the old ones go, so no row is ever missing to a reader; for a moment some stand twice. Where a crash
comes between, the next plan removes what stands twice, row by row (`ledger.plan`).
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from mribatch import schema
from mribatch.predictions import ledger
from mribatch.predictions.lock import Fence
from mribatch.predictions.parts import replace

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
            replace(fence.output, fence.digest, [name], rows.take(left["row"]), fence.check)
    return removed


def compact(fence: Fence, part_rows: int) -> tuple[int, int]:
    """Small parts into few of about part_rows rows. How many parts there were and are. Raises OutputHeld, RunFailed."""
    names = ledger.part_names(fence.output, fence.digest)
    small = [name for name in names if ledger.part_rows(name) < part_rows // 2]
    for group in _groups(small, part_rows):
        rows = ledger.read_parts(fence.output, fence.digest, group)
        replace(fence.output, fence.digest, group, rows, fence.check)
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
