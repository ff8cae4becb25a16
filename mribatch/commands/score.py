"""Score: listing − what is done → read → decode → predict → Parquet parts → verification → record.

`nightly` passes in its own plan, order and deadline; how a plan becomes rows is decided here.
"""

import logging
import math
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mribatch.commands import score_alone
from mribatch.commands.index import write_index
from mribatch.commands.paying import paying
from mribatch.commands.reading import reading_of
from mribatch.commands.required_acceptance import required_acceptance
from mribatch.commands.scored import Scored, WrittenParts, record, sum_up
from mribatch.commands.screen import progress
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.predictions import ledger, lock, rewrite
from mribatch.predictions.ledger import Plan
from mribatch.predictions.lock import new_run_id
from mribatch.scans.reading import Reading
from mribatch.settings.score import ScoreConfig
from mribatch.sources.listing import list_scans
from mribatch.stores import uris

__all__ = ["score", "score_listing", "score_plan"]

log = logging.getLogger("mribatch.score")


@paying
def score(config: ScoreConfig) -> Scored:
    """Score every scan at config.input that config.model has not scored yet, one row each, into config.output.

    Raises InputError, ModelError, StorageError, OutputHeld (another run writes there), RunFailed (a rerun resumes).
    """
    model = directory.load_model(lookup.locate(config.model))
    required_acceptance(config, model)  # before a listing that may take long
    scored = score_listing(config, model, list_scans(config.input, config.exclude))
    if scored.planned:
        write_index(scored.output)
    return scored


def score_listing(config: ScoreConfig, model: Model, listing: pa.Table) -> Scored:
    """Score a listing (schema PLAN). See `score`."""
    output, reading = uris.absolute(config.output), reading_of(config)
    with lock.held(output, model.digest, new_run_id(), lease_s=config.lease_s) as fence:
        plan = ledger.plan(listing, output, model.digest, config.limit, readings=reading.digests)
        scored, facts = score_plan(config, model, plan, fence, reading)
        if scored.planned:
            ledger.write_record(output, fence.run_id, facts)
        rewrite.supersede(fence, plan, scored.parts)
        return scored


def score_plan(
    config: ScoreConfig, model: Model, plan: Plan, fence: lock.Fence, reading: Reading, until: float = math.inf
) -> tuple[Scored, dict[str, Any]]:
    """Score the scans of a plan in its order. Those not begun at the moment `until` (of time.monotonic) are left.

    Return what was done and the run's record, for the caller to write. The lock must be held. See `score`.
    """
    begun, started_at = time.monotonic(), datetime.now(UTC)
    accepted = required_acceptance(config, model)
    written = _write_parts(config, model, plan, fence, reading, until)
    log.info("checking that every scan has its row …")
    ledger.verify(plan, fence.output, model.digest, written.receipts, fence)
    startup_s = None if written.ready_at is None else written.ready_at - begun
    scored = sum_up(
        config, plan, written.receipts, fence, time.monotonic() - begun, startup_s, refers=model.has_referral
    )
    facts = record(config, scored, written.receipts, written.addresses, started_at) | {"engine": written.engine}
    return scored, facts | ({"acceptance": accepted} if accepted else {})


def _write_parts(
    config: ScoreConfig, model: Model, plan: Plan, fence: lock.Fence, reading: Reading, until: float
) -> WrittenParts:
    """Write the parts of a plan: without Ray where one process is sooner, and with Ray what is left of it then."""
    if not plan.todo.num_rows:
        return WrittenParts()
    log.info("scoring %d of %d scans with model %s", plan.todo.num_rows, plan.listed, model.digest)
    with progress("scoring", plan.todo.num_rows, "scans") as bar:
        before = WrittenParts()
        if score_alone.needs_no_ray(config, model, plan.todo):
            before, left = score_alone.write_parts(config, model, plan, fence, reading, until, bar.count)
            if not left.num_rows:
                return before
            plan = replace(plan, todo=left)
        from mribatch.cluster.session import session

        with session():
            from mribatch.commands import score_parts

            done = before.progress

            def show(scored: int, rejected: int) -> None:
                bar.count(scored + done[0], rejected + done[1])

            return before.and_then(score_parts.write_parts(config, model, plan, fence, reading, until, show))
