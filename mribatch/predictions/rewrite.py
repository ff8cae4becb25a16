"""Rewrite parts: merge small ones, or remove the rows of some scans.

A new part is written before the old ones are deleted, so readers never miss a row but may see some twice for a moment.
After a crash in between, the next plan removes the duplicate rows (`ledger.plan`).
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from mribatch import schema
from mribatch.predictions import ledger
from mribatch.predictions.lock import Fence
from mribatch.predictions.parts import replace

__all__ = ["compact", "without"]


def without(fence: Fence, parts: Sequence[str], keys: pa.Table) -> int:
    """Remove the rows of some scans (schema PLAN) from some parts. Return the number of rows removed."""
    removed = 0
    for name in sorted(parts):
        rows = ledger.read_parts(fence.output, fence.digest, [name])
        numbers = pa.array(range(rows.num_rows), pa.int64())
        kept = rows.select(schema.PLAN.names).append_column("row", numbers)
        kept = kept.join(keys.select(schema.PLAN.names), keys=schema.PLAN.names, join_type="left anti")
        if kept.num_rows < rows.num_rows:
            removed += rows.num_rows - kept.num_rows
            replace(fence.output, fence.digest, [name], rows.take(kept["row"]), fence.check)
    return removed


def compact(fence: Fence, part_rows: int) -> tuple[int, int]:
    """Merge small parts to about `part_rows` rows. Return the number of parts before and after.

    Raises OutputHeld and RunFailed.
    """
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
