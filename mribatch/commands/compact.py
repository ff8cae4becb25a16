"""Compact: of each model many small parts → few; rows that are too old, of scans that have a newer one, go."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.commands.paying import paying
from mribatch.errors import InputError
from mribatch.predictions import history, ledger, lock, rewrite
from mribatch.predictions.lock import NIGHTS, new_run_id
from mribatch.settings.score import CompactConfig
from mribatch.stores import uris

__all__ = ["Compacted", "compact"]

log = logging.getLogger("mribatch.compact")

_ROW = (*schema.KEY, "reason", "model_digest", "scored_at")


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What became of the parts, by model: before, after, and how many rows went."""

    models: dict[str, tuple[int, int, int]]
    exit_code: int = 0

    def table(self) -> str:
        lines = [f"{'model':<12}  {'parts':>7}  {'now':>7}  {'rows removed':>12}"]
        lines += [f"{name:<12}  {old:>7,}  {new:>7,}  {gone:>12,}" for name, (old, new, gone) in self.models.items()]
        return "\n".join(lines)


@paying
def compact(config: CompactConfig) -> Compacted:
    """Rewrite the parts of all models in config.output, one model after the other, each under its lock.

    Readers may go on: no row is ever missing, some stand twice for a moment. Raises StorageMissing, InputError where there
    are no predictions, OutputHeld where a run is writing.
    """
    output = uris.absolute(config.output)
    ledger.check_output(output)
    digests = ledger.digests(output)
    if not digests:
        raise InputError(
            f"no predictions in {output}: its runs have written no row yet, so there is nothing to compact"
        )
    done = {}
    with lock.held(output, NIGHTS, new_run_id(), lease_s=config.lease_s):
        for digest in digests:
            with lock.held(output, digest, new_run_id(), lease_s=config.lease_s) as fence:
                ledger.plan(schema.PLAN.empty_table(), output, digest)  # heals what a crash left
                before = ledger.part_names(output, digest)
                gone = _outdated(config, output, digest)
                removed = rewrite.without(fence, before, gone) if gone.num_rows else 0
                _, now = rewrite.compact(fence, config.part_rows)
                done[digest] = (len(before), now, removed)
    return Compacted(models=done)


def _outdated(config: CompactConfig, output: str, digest: str) -> pa.Table:
    """The scans, schema PLAN, whose rows of a model may go: not the newest of their scan, and too old or of an old model."""
    if config.keep_days is None and config.keep_models is None:
        return schema.PLAN.empty_table()
    rows = pa.concat_tables([ledger.predictions(output, name, _ROW) for name in ledger.digests(output)])
    seen = history.last_listing(output)
    newest = history.newest(rows, seen)
    own, current = rows.filter(pc.equal(rows["model_digest"], digest)), digest == history.last_model(seen)
    old = _before(own, config.keep_days) if current or digest in _kept_models(rows, config.keep_models) else own
    if current:  # without its row, what is listed would be scored again
        old = old.join(seen.select(schema.PLAN.names), keys=schema.PLAN.names, join_type="left anti")
    keys = [*schema.PLAN.names, "model_digest"]
    return old.join(newest.select(keys), keys=keys, join_type="left anti").select(schema.PLAN.names).cast(schema.PLAN)


def _kept_models(rows: pa.Table, keep: int | None) -> list[str]:
    """The models that scored last."""
    last = rows.group_by("model_digest").aggregate([("scored_at", "max")]).sort_by([("scored_at_max", "descending")])
    names: list[str] = last["model_digest"].to_pylist()
    return names if keep is None else names[:keep]


def _before(rows: pa.Table, days: int | None) -> pa.Table:
    if days is None:
        return rows.slice(0, 0)
    moment = pa.scalar(datetime.now(UTC) - timedelta(days=days), rows["scored_at"].type)
    return rows.filter(pc.less(rows["scored_at"], moment))
