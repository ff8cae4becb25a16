"""Score: listing − what is done → read → decode → predict → Parquet parts → verification → record.

Which scans are due, in which order and until when, may be said by another run; what the rows are is said here.
"""

import logging
import math
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from mribatch.cluster import decoding, sink
from mribatch.cluster.guarded import WatchedPredictor, counts, is_over
from mribatch.cluster.nodes import addresses, check_seen, predictors, working_nodes
from mribatch.cluster.session import session
from mribatch.commands.paying import paying
from mribatch.errors import MribatchError
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.predictions import ledger, lock
from mribatch.predictions.ledger import Plan, Receipt
from mribatch.predictions.lock import new_run_id
from mribatch.settings.score import ScoreConfig
from mribatch.sources.listing import list_scans
from mribatch.stores import uris

__all__ = ["TOO_MANY_REJECTS", "Scored", "failure_lines", "score", "score_listing", "score_plan"]

log = logging.getLogger("mribatch.score")

TOO_MANY_REJECTS = 3
_LINE_EVERY_S = 10.0
_QUIET_S = 600.0
_SHOWN = 3  # failed scans on the screen, of each cause; the record has them all
_CORES_PER_WRITER = 0.25  # Ray's own share is 1, which predictors and decoders may not leave


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a run did; all of it is in its record too."""

    run_id: str
    output: str
    digest: str
    listed: int
    done: int
    planned: int
    by_class: dict[str, int]
    rejected: dict[str, int]
    failed: int
    failures: dict[str, tuple[str, ...]]  # by their cause, the scans that failed
    left: int
    parts: tuple[str, ...]
    seconds: float
    max_reject_rate: float

    @property
    def exit_code(self) -> int:
        lost = sum(self.rejected.values()) + self.failed
        return TOO_MANY_REJECTS if lost > self.max_reject_rate * self.planned else 0

    @property
    def waiting(self) -> int:
        """Listed scans that are neither done nor failed: beyond --limit, or not begun in time."""
        return self.listed - self.done - self.planned + self.left

    def table(self) -> str:
        """The run on a screen."""
        if not self.planned:
            return f"nothing to do: all {self.listed} scans have a row by model {self.digest} in {self.output}"
        lines = [("scored", sum(self.by_class.values()))]
        lines += [(f"  {name}", count) for name, count in sorted(self.by_class.items())]
        lines += [("rejected", sum(self.rejected.values()))]
        lines += [(f"  {name}", count) for name, count in sorted(self.rejected.items())]
        lines += [("failed, to be tried again", self.failed)]
        lines += [(f"  {cause}", len(scans)) for cause, scans in sorted(self.failures.items())]
        lines += [("left for the next run", self.waiting), ("done before", self.done)]
        width = max(len(name) for name, _ in lines)
        rows = [f"{name:<{width}}  {count:>9,}" for name, count in lines]
        rows += failure_lines(self.failures)
        place = ledger.model_folder(self.output, self.digest)
        rate = (self.planned - self.left - self.failed) / self.seconds
        return "\n".join([*rows, f"{rate:.1f} scans/s with the start, predictions in {place}"])


def failure_lines(failures: dict[str, tuple[str, ...]]) -> list[str]:
    """Some of the scans that failed, for a screen."""
    return [
        f"failed: {cause}: {', '.join(scans[:_SHOWN])}{' …' if len(scans) > _SHOWN else ''}"
        for cause, scans in sorted(failures.items())
    ]


@paying
def score(config: ScoreConfig) -> Scored:
    """Score every scan at config.input that config.model has not scored yet, one row each, into config.output.

    Raises InputError, ModelError, StorageError, OutputHeld (another run writes there), RunFailed (a rerun goes on).
    """
    model = directory.load_model(lookup.locate(config.model))
    return score_listing(config, model, list_scans(config.input, config.exclude))


def score_listing(config: ScoreConfig, model: Model, listing: pa.Table) -> Scored:
    """Score a listing (schema PLAN). See `score`."""
    output = uris.absolute(config.output)
    with lock.held(output, model.digest, new_run_id(), lease_s=config.lease_s) as fence:
        return score_plan(config, model, ledger.plan(listing, output, model.digest, config.limit), fence)


def score_plan(config: ScoreConfig, model: Model, plan: Plan, fence: lock.Fence, until: float = math.inf) -> Scored:
    """Score what is to do, in its order; what has not begun at the moment `until` (of time.monotonic) is left.

    The lock must be held. See `score`.
    """
    begun, started_at = time.monotonic(), datetime.now(UTC)
    receipts, nodes = _run(config, model, plan, fence, until) if plan.todo.num_rows else ([], {})
    ledger.verify(plan, fence.output, model.digest, receipts, fence)
    scored = _scored(config, plan, receipts, fence, time.monotonic() - begun)
    if plan.todo.num_rows:
        ledger.write_record(fence.output, fence.run_id, _record(config, scored, receipts, nodes, started_at))
    return scored


def _run(
    config: ScoreConfig, model: Model, plan: Plan, fence: lock.Fence, until: float
) -> tuple[list[Receipt], dict[str, str]]:
    """The receipts of all parts, and the addresses of the nodes by their IDs."""
    log.info("scoring %d of %d scans with model %s", plan.todo.num_rows, plan.listed, model.digest)
    parts = sink.PartSink(fence, model.labels, config.part_rows)
    with session(), _progress(plan, fence):
        check_seen(_landmarks(model, plan, fence))
        threads, pool = predictors(working_nodes())
        watch, timed = counts(until), math.isfinite(until)
        (
            decoding.decoded(
                plan.todo,
                model.image_spec,
                block_rows=config.batch_size,
                timeout_s=config.scan_timeout_s,
                over=partial(is_over, watch) if timed else None,
                among=plan.witnesses,
            )
            .map_batches(
                WatchedPredictor,
                fn_constructor_args=(watch, config.scan_timeout_s, timed),
                fn_constructor_kwargs={"model": model.uri, "digest": model.digest, "threads": threads},
                batch_size=config.batch_size,
                batch_format="pyarrow",
                zero_copy_batch=True,
                **pool,
            )
            .write_datasink(parts, ray_remote_args={"num_cpus": _CORES_PER_WRITER})
        )
        return parts.receipts, addresses()


def _landmarks(model: Model, plan: Plan, fence: lock.Fence) -> dict[str, str | None]:
    """A file of the model, of the input and of the output: what every node must see."""
    first = plan.todo.slice(0, 1).to_pylist()[0]
    return {uris.join(model.uri, "model.json"): None, first["scan_uri"]: first["scan_version"], fence.uri: None}


@contextmanager
def _progress(plan: Plan, fence: lock.Fence) -> Iterator[None]:
    """Say now and then how many rows are visible."""
    stop = threading.Event()
    begun = time.monotonic()

    def watch() -> None:
        said, said_at = 0, begun
        while not stop.wait(_LINE_EVERY_S):
            try:
                new = set(ledger.part_names(fence.output, fence.digest)) - plan.parts
            except MribatchError as err:
                log.warning("progress is not known at the moment: %s", err)
                continue
            rows, total = sum(map(ledger.part_rows, new)), plan.todo.num_rows
            if rows > said:
                said, said_at = rows, time.monotonic()
                rate = rows / (said_at - begun)
                log.info("%d/%d scans · %.1f scans/s · %d s left", rows, total, rate, math.ceil((total - rows) / rate))
            elif time.monotonic() - said_at > _QUIET_S:
                said_at = time.monotonic()
                log.warning("no new rows for %d min: `ray status` shows whether the cluster has room", _QUIET_S / 60)

    thread = threading.Thread(target=watch, name="mribatch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _scored(config: ScoreConfig, plan: Plan, receipts: Sequence[Receipt], fence: lock.Fence, seconds: float) -> Scored:
    def total(counts: Iterator[dict[str, int]]) -> dict[str, int]:
        return dict(sum((Counter(count) for count in counts), Counter()))

    return Scored(
        run_id=fence.run_id,
        output=fence.output,
        digest=fence.digest,
        listed=plan.listed,
        done=plan.done,
        planned=plan.todo.num_rows,
        by_class=total(receipt.by_class for receipt in receipts),
        rejected=total(receipt.rejected for receipt in receipts),
        failed=sum(len(receipt.failed) for receipt in receipts),
        failures=_failures(receipts),
        left=sum(len(receipt.left) for receipt in receipts),
        parts=tuple(receipt.part for receipt in receipts if receipt.part),
        seconds=seconds,
        max_reject_rate=config.max_reject_rate,
    )


def _failures(receipts: Sequence[Receipt]) -> dict[str, tuple[str, ...]]:
    by_cause: dict[str, list[str]] = {}
    for receipt in receipts:
        for uri, cause in receipt.failed:
            by_cause.setdefault(cause or "unknown", []).append(uri)
    return {cause: tuple(sorted(scans)) for cause, scans in by_cause.items()}


def _record(
    config: ScoreConfig, scored: Scored, receipts: Sequence[Receipt], nodes: dict[str, str], started_at: datetime
) -> dict[str, Any]:
    driver_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    by_node = sum((Counter(receipt.by_node) for receipt in receipts), Counter[str]())
    roles = sorted({role for receipt in receipts for role in receipt.peak_bytes})
    return {
        "run_id": scored.run_id,
        "model_digest": scored.digest,
        "config": config.as_dict(),
        "started_at": started_at.isoformat(),
        "ended_at": datetime.now(UTC).isoformat(),
        "seconds": round(scored.seconds, 3),
        "plan": {"listed": scored.listed, "done": scored.done, "planned": scored.planned},
        "counts": {
            "ok": sum(scored.by_class.values()),
            "rejected": sum(scored.rejected.values()),
            "failed": scored.failed,
            "left": scored.left,
        },
        "by_class": scored.by_class,
        "rejected_by_reason": scored.rejected,
        "failed_by_cause": {cause: len(scans) for cause, scans in scored.failures.items()},
        "failed": [{"scan_uri": uri, "detail": detail} for receipt in receipts for uri, detail in receipt.failed],
        "parts": [{"name": r.part, "rows": r.rows} for r in receipts if r.part],
        "nodes": [{"id": i, "address": nodes.get(i), "scans": scans} for i, scans in sorted(by_node.items())],
        "peak_memory_bytes": {"driver": driver_bytes}
        | {role: max(receipt.peak_bytes.get(role, 0) for receipt in receipts) for role in roles},
    }
