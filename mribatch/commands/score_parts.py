"""Score the scans of a plan on Ray, within a session: read → decode → predict → Parquet parts."""

import logging
import math
from collections.abc import Callable
from functools import partial

from mribatch.cluster import sink, streaming
from mribatch.cluster.blocks import at_once, growing
from mribatch.cluster.guarded import WatchedPredictor
from mribatch.cluster.nodes import addresses, check_seen, predictors, working_cores, working_nodes
from mribatch.cluster.notes import is_over, ready_at, run_notes
from mribatch.cluster.progress import watched
from mribatch.commands.scored import WrittenParts
from mribatch.models.engine import chosen, library, takes_gpus
from mribatch.models.format import Model
from mribatch.predictions.ledger import Plan
from mribatch.predictions.lock import Fence
from mribatch.scans.reading import Reading
from mribatch.settings.score import ScoreConfig
from mribatch.stores import uris

__all__ = ["write_parts"]

log = logging.getLogger("mribatch.score")

_CORES_PER_WRITER = 0.25  # Ray's default of 1 would take the cores that predictors and decoders leave


def write_parts(
    config: ScoreConfig,
    model: Model,
    plan: Plan,
    fence: Fence,
    reading: Reading,
    until: float,
    show: Callable[[int, int], object],
) -> WrittenParts:
    """Score the scans of a plan in its order. Those not begun at the moment `until` (of time.monotonic) are left.

    show: as for `progress.watched`.
    """
    check_seen(_landmarks(model, plan, fence))
    notes, timed = run_notes(until), math.isfinite(until)
    parts = sink.PartSink(fence, model.labels, config.part_rows, notes)
    threads, pool = predictors(working_nodes(), use_gpus=takes_gpus(config.engine, model))
    engine = chosen(config.engine, model, on_gpu="num_gpus" in pool)
    side_px, cores = model.image_spec.side_px, working_cores()
    batch_size = at_once(plan.todo.num_rows, config.batch_size, threads, side_px, cores)
    log.info("loading the model … (%s %s)", engine, library(engine))
    with watched(notes, show):
        (
            streaming.decoded(
                plan.todo,
                model.image_spec,
                reading=reading,
                block_rows=growing(plan.todo, config.batch_size, side_px, cores),
                timeout_s=config.scan_timeout_s,
                over=partial(is_over, notes) if timed else None,
                among=plan.witnesses,
            )
            .map_batches(
                WatchedPredictor,
                fn_constructor_args=(notes, config.scan_timeout_s, timed),
                fn_constructor_kwargs={
                    "model": model.uri,
                    "digest": model.digest,
                    "threads": threads,
                    "engine": engine,
                },
                batch_size=batch_size,
                batch_format="pyarrow",
                zero_copy_batch=True,
                **pool,
            )
            .write_datasink(parts, ray_remote_args={"num_cpus": _CORES_PER_WRITER})
        )
    return WrittenParts(
        receipts=parts.receipts,
        addresses=addresses(),
        ready_at=ready_at(notes),
        engine={"name": engine, "version": library(engine)},
    )


def _landmarks(model: Model, plan: Plan, fence: Fence) -> dict[str, str | None]:
    """Return a file of the model, of the input and of the output, which every node must see."""
    first = plan.todo.slice(0, 1).to_pylist()[0]
    return {uris.join(model.uri, "model.json"): None, first["scan_uri"]: first["scan_version"], fence.uri: None}
