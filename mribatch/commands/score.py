"""Score: listing − what is done → read → decode → predict → Parquet parts → verification → record.

`nightly` passes in its own plan, order and deadline; how a plan becomes rows is decided here.
"""

import logging
import math
import time
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import pyarrow as pa

from mribatch.cluster import decoding, sink
from mribatch.cluster.assembly import assembler
from mribatch.cluster.guarded import WatchedPredictor, is_over, ready_at, work_log
from mribatch.cluster.nodes import addresses, check_seen, predictors, working_nodes
from mribatch.cluster.progress import watched
from mribatch.cluster.session import session
from mribatch.commands.paying import paying
from mribatch.commands.reading import reading_of
from mribatch.commands.required_acceptance import required_acceptance
from mribatch.commands.scored import Scored, record, sum_up
from mribatch.commands.screen import progress
from mribatch.models import directory, lookup
from mribatch.models.engine import chosen, library
from mribatch.models.format import Model
from mribatch.predictions import ledger, lock, rewrite
from mribatch.predictions.ledger import Plan, Receipt
from mribatch.predictions.lock import new_run_id
from mribatch.scans.reading import Reading
from mribatch.settings.score import ScoreConfig
from mribatch.sources.listing import list_scans
from mribatch.stores import uris

__all__ = ["score", "score_listing", "score_plan"]

log = logging.getLogger("mribatch.score")

_CORES_PER_WRITER = 0.25  # Ray's default of 1 would take the cores that predictors and decoders leave


@paying
def score(config: ScoreConfig) -> Scored:
    """Score every scan at config.input that config.model has not scored yet, one row each, into config.output.

    Raises InputError, ModelError, StorageError, OutputHeld (another run writes there), RunFailed (a rerun resumes).
    """
    model = directory.load_model(lookup.locate(config.model))
    required_acceptance(config, model)  # before a listing that may take long
    log.info("listing %s …", ", ".join(config.input))
    return score_listing(config, model, list_scans(config.input, config.exclude))


def score_listing(config: ScoreConfig, model: Model, listing: pa.Table) -> Scored:
    """Score a listing (schema PLAN). See `score`."""
    output, reading = uris.absolute(config.output), reading_of(config)
    with lock.held(output, model.digest, new_run_id(), lease_s=config.lease_s) as fence:
        plan = ledger.plan(listing, output, model.digest, config.limit, readings=reading.digests)
        scored = score_plan(config, model, plan, fence, reading)
        rewrite.supersede(fence, plan, scored.parts)
        return scored


def score_plan(
    config: ScoreConfig, model: Model, plan: Plan, fence: lock.Fence, reading: Reading, until: float = math.inf
) -> Scored:
    """Score the scans of a plan in its order. Those not begun at the moment `until` (of time.monotonic) are left.

    The lock must be held. See `score`.
    """
    begun, started_at = time.monotonic(), datetime.now(UTC)
    accepted = required_acceptance(config, model)
    written = _Written([], {}, None, {})
    if plan.todo.num_rows:
        written = _write_parts(config, model, plan, fence, reading, until)
    log.info("checking that every scan has its row …")
    ledger.verify(plan, fence.output, model.digest, written.receipts, fence)
    startup_s = None if written.ready_at is None else written.ready_at - begun
    scored = sum_up(
        config, plan, written.receipts, fence, time.monotonic() - begun, startup_s, refers=model.has_referral
    )
    if plan.todo.num_rows:
        facts = record(config, scored, written.receipts, written.addresses, started_at)
        facts |= {"engine": written.engine}
        facts |= {"acceptance": accepted} if accepted else {}
        ledger.write_record(fence.output, fence.run_id, facts)
    return scored


class _Written(NamedTuple):
    """What came of the parts of a run."""

    receipts: list[Receipt]
    addresses: dict[str, str]  # by node ID
    ready_at: float | None  # of time.monotonic: the first model was loaded
    engine: dict[str, str | None]  # its name and version, as on the driver's machine


def _write_parts(
    config: ScoreConfig, model: Model, plan: Plan, fence: lock.Fence, reading: Reading, until: float
) -> _Written:
    log.info("scoring %d of %d scans with model %s", plan.todo.num_rows, plan.listed, model.digest)
    with progress("scoring", plan.todo.num_rows, "scans") as bar, session():
        check_seen(_landmarks(model, plan, fence))
        parts = sink.PartSink(fence, model.labels, config.part_rows, assembler())
        threads, pool = predictors(working_nodes(), use_gpus=config.engine != "openvino")
        engine = chosen(config.engine, model, on_gpu="num_gpus" in pool)
        work, timed = work_log(until), math.isfinite(until)
        log.info("loading the model … (%s %s)", engine, library(engine))
        with watched(work, bar.count):
            (
                decoding.decoded(
                    plan.todo,
                    model.image_spec,
                    reading=reading,
                    block_rows=config.batch_size,
                    timeout_s=config.scan_timeout_s,
                    over=partial(is_over, work) if timed else None,
                    among=plan.witnesses,
                )
                .map_batches(
                    WatchedPredictor,
                    fn_constructor_args=(work, config.scan_timeout_s, timed),
                    fn_constructor_kwargs={
                        "model": model.uri,
                        "digest": model.digest,
                        "threads": threads,
                        "engine": engine,
                    },
                    batch_size=config.batch_size,
                    batch_format="pyarrow",
                    zero_copy_batch=True,
                    **pool,
                )
                .write_datasink(parts, ray_remote_args={"num_cpus": _CORES_PER_WRITER})
            )
        return _Written(parts.receipts, addresses(), ready_at(work), {"name": engine, "version": library(engine)})


def _landmarks(model: Model, plan: Plan, fence: lock.Fence) -> dict[str, str | None]:
    """Return a file of the model, of the input and of the output, which every node must see."""
    first = plan.todo.slice(0, 1).to_pylist()[0]
    return {uris.join(model.uri, "model.json"): None, first["scan_uri"]: first["scan_version"], fence.uri: None}
