"""Nightly: listing − what this model has scored → new, changed, backfill → the same scoring → what a person sees in the morning."""

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.config import NightlyConfig
from mribatch.learning import artifact
from mribatch.reports.night import Night, night_page
from mribatch.runs.morning import COLUMNS, Found, by_due, morning, remembered
from mribatch.runs.score import Scored, new_run_id, score_plan
from mribatch.storage import history, ledger, lock, rewrite, source, uris

__all__ = ["NIGHTS", "Done", "Forecast", "next_time", "nightly"]

ALARM = 5
NIGHTS = "nights"  # the lock that a night holds beside its model's: two nights never write one output
_NIGHTS = 30  # with which a night is compared
_SPARE = 3.0  # times what the fastest night would do until the deadline is planned; the rest is left untouched
_END_S = 30.0  # before the deadline no scan is begun any more: the last batches, the verification, the report


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a night would do."""

    listed: int
    planned: dict[str, int]
    seconds: float | None
    exit_code: int = 0

    def table(self) -> str:
        total = sum(self.planned.values())
        lines = [("listed", self.listed), ("to score", total), *((f"  {due}", n) for due, n in self.planned.items())]
        width = max(len(name) for name, _ in lines)
        known = "not known, no run here has scored yet" if self.seconds is None else f"{self.seconds / 60:.0f} min"
        return "\n".join(
            [*(f"{name:<{width}}  {n:>9,}" for name, n in lines), f"duration  {known}", "nothing was changed"]
        )


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a night did."""

    scored: Scored
    night: Night
    report: str

    @property
    def exit_code(self) -> int:
        return ALARM if self.night.alarms else 0

    def table(self) -> str:
        due = ", ".join(f"{count:,} {due}" for due, count in self.night.tally.planned.items())
        lines = [self.scored.table(), f"planned  {due}", *(f"ALARM    {alarm}" for alarm in self.night.alarms)]
        return "\n".join([*lines, f"report   {self.report}"])


def nightly(config: NightlyConfig) -> Done | Forecast:
    """Score what config.model has not scored yet, new scans first, until the deadline, and report.

    Raises what `score` raises.
    """
    started = datetime.now(UTC)
    deadline = next_time(config.deadline, config.timezone, started) if config.deadline else None
    until = time.monotonic() + (deadline - started).total_seconds() - _END_S if deadline else math.inf
    model = artifact.read(config.model)
    output, run_id = uris.absolute(config.output), new_run_id()
    if config.dry_run:
        return _forecast(config, model, source.listing(config.input, config.exclude), output)
    if config.report:
        uris.check_writable(config.report)
    with (
        lock.held(output, NIGHTS, run_id, lease_s=config.lease_s),
        lock.held(output, model.digest, run_id, lease_s=config.lease_s) as fence,
    ):
        listing, covers = source.archive(config.input, config.exclude)
        plan = ledger.plan(listing, output, model.digest, again=config.full)
        vanished = history.mark_seen(output, listing, started, model.digest, covers)
        earlier = history.nights(output, _NIGHTS)
        due = history.backlog(plan.todo, output).slice(0, config.limit)
        plan = replace(plan, todo=due.select(schema.PLAN.names).slice(0, _worth_a_try(earlier, until)))
        scored = score_plan(config, model, plan, fence, until)
        rows = ledger.read_parts(output, model.digest, scored.parts, COLUMNS)
        cut = history.unreported(output, plan.parts)
        interrupted = [] if config.full else [part for parts in cut.values() for part in parts]
        late = ledger.read_parts(output, model.digest, interrupted, COLUMNS)
        before = _before(pa.concat_tables([rows, late], promote_options="default"), plan.parts - {*interrupted}, fence)
        if config.full:
            _take_the_place(fence, plan, rows)
        night = morning(config, scored, Found(model=model, due=due, rows=rows, late=late, before=before, vanished=vanished,
                                              earlier=earlier, started=started, deadline=deadline))  # fmt: skip
        if scored.planned or interrupted:
            history.remember_night(output, scored.run_id, remembered(night))
        history.mark_reported(output, cut)
    return Done(scored=scored, night=night, report=_write(config, night))


def next_time(deadline: str, timezone: str, now: datetime) -> datetime:
    """The next moment at which the clock of a time zone shows HH:MM. now is aware; so is what comes."""
    hour, minute = map(int, deadline.split(":"))
    local = now.astimezone(ZoneInfo(timezone))
    for day in (0, 1):
        moment = (local + timedelta(days=day)).replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
        if moment.astimezone(UTC) > now:
            return moment.astimezone(UTC)
    raise AssertionError("a day has passed without the time")


def _forecast(config: NightlyConfig, model: artifact.Model, listing: pa.Table, output: str) -> Forecast:
    todo = listing if config.full else ledger.pending(listing, output, model.digest)
    due = history.backlog(todo, output).slice(0, config.limit)
    rates = [night["scored"] / night["seconds"] for night in history.nights(output, _NIGHTS) if night["scored"]]
    seconds = due.num_rows / median(rates) if rates else None
    return Forecast(listed=listing.num_rows, planned=by_due(due), seconds=seconds)


def _worth_a_try(earlier: list[dict[str, Any]], until: float) -> int | None:
    """How many scans may come to their turn until the deadline; None for all."""
    rates = [float(night["scored"] / night["seconds"]) for night in earlier if night["scored"]]
    if math.isinf(until) or not rates:
        return None
    return math.ceil(_SPARE * max(rates) * max(until - time.monotonic(), 0.0)) + 1


def _take_the_place(fence: lock.Fence, plan: ledger.Plan, rows: pa.Table) -> None:
    """New rows go into the place of old ones; where a scan was gone when its turn came, the old row stays."""
    gone = rows.filter(ledger.was_gone(rows))
    told = rows.select(schema.PLAN.names).join(
        gone.select(schema.PLAN.names), keys=schema.PLAN.names, join_type="left anti"
    )
    rewrite.without(fence, sorted(plan.parts), told)
    ledger.plan(schema.PLAN.empty_table(), fence.output, fence.digest)  # removes what still stands twice


def _before(rows: pa.Table, parts: frozenset[str], fence: lock.Fence) -> pa.Table:
    """The newest row, in some parts and of other models, of each scan that has a row now."""
    if not rows.num_rows:
        return rows
    others = [digest for digest in ledger.digests(fence.output) if digest != fence.digest]
    tables = [ledger.read_parts(fence.output, fence.digest, sorted(parts), COLUMNS)]
    tables += [ledger.predictions(fence.output, digest, COLUMNS) for digest in others]
    known = pa.concat_tables(tables, promote_options="default")
    return history.newest(known.filter(pc.is_in(known["scan_uri"], rows["scan_uri"].combine_chunks())))


def _write(config: NightlyConfig, night: Night) -> str:
    """nightly.json and nightly.html; the page's URI."""
    place = config.report or uris.join(config.output, "_nights", night.run_id)
    facts = json.dumps(asdict(night), indent=1, default=datetime.isoformat)
    uris.put(uris.join(place, "nightly.json"), facts.encode())
    uris.put(uris.join(place, "nightly.html"), night_page(night).encode())
    return uris.join(place, "nightly.html")
