"""Compact: merge small Parquet parts into larger ones, and delete old rows of scans that have a newer one."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.commands.paying import paying
from mribatch.commands.screen import Block, Shown, Table
from mribatch.errors import InputError
from mribatch.predictions import history, ledger, lock, rewrite
from mribatch.predictions.files import of_files
from mribatch.predictions.lock import NIGHTS, new_run_id
from mribatch.settings.score import CompactConfig
from mribatch.stores import uris

__all__ = ["Compacted", "compact"]

log = logging.getLogger("mribatch.compact")

_ROW = (*schema.KEY, "container", "reason", "model_digest", "scored_at")


@paying
def compact(config: CompactConfig) -> "Compacted":
    """Rewrite the parts of all models in config.output, one model after the other, each under its lock.

    Others may read meanwhile: no row is ever missing, but some are there twice for a moment. Raises StorageMissing,
    InputError if there are no predictions, OutputHeld if a run is writing.
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
                ledger.plan(schema.PLAN.empty_table(), output, digest)  # cleans up after a crash
                log.info("compacting the predictions of model %s …", digest)
                before = ledger.part_names(output, digest)
                outdated = _outdated(config, output, digest)
                removed = rewrite.without(fence, before, outdated) if outdated.num_rows else 0
                _, now = rewrite.compact(fence, config.part_rows)
                done[digest] = (len(before), now, removed)
    return Compacted(models=done)


@dataclass(frozen=True, kw_only=True)
class Compacted(Shown):
    """The parts of each model before and after, and how many rows were removed."""

    models: dict[str, tuple[int, int, int]]
    exit_code: int = 0

    def blocks(self) -> list[Block]:
        """Return a row for each model."""
        rows = [(name, *(f"{count:,}" for count in counts)) for name, counts in self.models.items()]
        return [Table(rows, ("model", "parts", "now", "rows removed"))]


def _outdated(config: CompactConfig, output: str, digest: str) -> pa.Table:
    """Return the scans, schema PLAN, whose rows of a model may be deleted.

    These rows are not the newest of their scan, and they are too old or of an old model.
    """
    if config.keep_days is None and config.keep_models is None:
        return schema.PLAN.empty_table()
    rows = pa.concat_tables([ledger.predictions(output, name, _ROW) for name in ledger.digests(output)])
    listed = history.last_listing(output)
    newest, rows = of_files(history.newest(rows, listed)), of_files(rows)
    own, current = rows.filter(pc.equal(rows["model_digest"], digest)), digest == history.last_model(listed)
    old = _before(own, config.keep_days) if current or digest in _kept_models(rows, config.keep_models) else own
    if current:  # a listed scan without its row would be scored again
        old = old.join(listed.select(schema.PLAN.names), keys=schema.PLAN.names, join_type="left anti")
    keys = [*schema.PLAN.names, "model_digest"]
    return old.join(newest.select(keys), keys=keys, join_type="left anti").select(schema.PLAN.names).cast(schema.PLAN)


def _kept_models(rows: pa.Table, keep: int | None) -> list[str]:
    """Return the digests of the models that scored last, all if `keep` is None."""
    last = rows.group_by("model_digest").aggregate([("scored_at", "max")]).sort_by([("scored_at_max", "descending")])
    names: list[str] = last["model_digest"].to_pylist()
    return names if keep is None else names[:keep]


def _before(rows: pa.Table, days: int | None) -> pa.Table:
    if days is None:
        return rows.slice(0, 0)
    moment = pa.scalar(datetime.now(UTC) - timedelta(days=days), rows["scored_at"].type)
    return rows.filter(pc.less(rows["scored_at"], moment))
