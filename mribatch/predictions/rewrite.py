"""Rewrite parts: merge small ones, or remove the rows of some scans.

A new part is written before the old ones are deleted, so readers never miss a row but may see some twice for a moment.
After a crash in between, the next plan removes the duplicate rows (`ledger.plan`).
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.predictions import ledger
from mribatch.predictions.files import of_files
from mribatch.predictions.ledger import Plan
from mribatch.predictions.lock import Fence
from mribatch.predictions.parts import replace

__all__ = ["compact", "supersede", "without"]


def without(fence: Fence, parts: Sequence[str], keys: pa.Table) -> int:
    """Remove the rows of some files (schema PLAN) from some parts. Return the number of rows removed."""
    removed = 0
    for name in sorted(parts):
        rows = ledger.read_parts(fence.output, fence.digest, [name])
        numbers = pa.array(range(rows.num_rows), pa.int64())
        kept = of_files(rows).select(schema.PLAN.names).append_column("row", numbers)
        kept = kept.join(keys.select(schema.PLAN.names), keys=schema.PLAN.names, join_type="left anti")
        if kept.num_rows < rows.num_rows:
            removed += rows.num_rows - kept.num_rows
            replace(fence.output, fence.digest, [name], rows.take(kept["row"]), fence.check)
    return removed


def supersede(fence: Fence, planned: Plan, parts: Sequence[str]) -> int:
    """Remove the rows of other readings of those planned scans that have rows in a run's parts now.

    Rows that only say that a scan had vanished or changed replace nothing. Return the number of rows removed.
    """
    if not planned.outdated.num_rows:
        return 0
    rows = ledger.read_parts(fence.output, fence.digest, sorted(parts), [*schema.PLAN.names, "container", "reason"])
    new = of_files(rows.filter(pc.invert(ledger.was_gone(rows)))).select(schema.PLAN.names)
    keys = planned.outdated.join(new, keys=schema.PLAN.names, join_type="left semi")
    return without(fence, sorted(planned.parts), keys)


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
