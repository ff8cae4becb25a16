"""Nightly: listing − what this model has scored → new, changed, backfill → the same scoring → what a person sees in the morning."""

import json
import math
import time
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.commands.night_summary import COLUMNS, Found, by_due, morning, remembered
from mribatch.commands.paying import paying
from mribatch.commands.score import Scored, score_plan
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.predictions import history, ledger, lock, rewrite
from mribatch.predictions.lock import NIGHTS, new_run_id
from mribatch.reports.night import Night, night_page
from mribatch.settings.score import NightlyConfig
from mribatch.sources.listing import archive, list_scans
from mribatch.stores import uris

__all__ = ["Done", "Forecast", "next_time", "nightly"]

ALARM = 5
_NIGHTS = 30  # with which a night is compared
_SPARE = 3.0  # times what the fastest night would do until the deadline is planned; the rest is left untouched
_END_S = 30.0  # before the deadline no scan is begun any more: the last batches, the verification, the report


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a night would do."""

    listed: int
    planned: dict[str, int]
    seconds: float | None
    basis: str  # what the duration is taken from, or why it is not known
    exit_code: int = 0

    def table(self) -> str:
        total = sum(self.planned.values())
        lines = [("listed", self.listed), ("to score", total), *((f"  {due}", n) for due, n in self.planned.items())]
        width = max(len(name) for name, _ in lines)
        duration = "not known" if self.seconds is None else _rounded(self.seconds)
        return "\n".join(
            [
                *(f"{name:<{width}}  {n:>9,}" for name, n in lines),
                f"duration  {duration}, {self.basis}",
                "nothing was changed",
            ]
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


@paying
def nightly(config: NightlyConfig) -> Done | Forecast:
    """Score what config.model has not scored yet, new scans first, until the deadline, and report.

    Raises what `score` raises.
    """
    started = datetime.now(UTC)
    deadline = _end(config, started)
    until = time.monotonic() + (deadline - started).total_seconds() - _END_S if deadline else math.inf
    model = directory.load_model(lookup.locate(config.model))
    output, run_id = uris.absolute(config.output), new_run_id()
    if config.dry_run:
        return _forecast(config, model, list_scans(config.input, config.exclude), output)
    if config.report:
        uris.check_writable(config.report)
    with (
        lock.held(output, NIGHTS, run_id, lease_s=config.lease_s),
        lock.held(output, model.digest, run_id, lease_s=config.lease_s) as fence,
    ):
        listing, covers = archive(config.input, config.exclude)
        plan = ledger.plan(listing, output, model.digest, again=config.full)
        vanished = history.record_listing(output, listing, started, model.digest, covers)
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
    """Return the next moment, in UTC, at which the clock of a time zone shows HH:MM. now must be aware.

    An hour that comes twice, when the clock is set back, counts twice. A time that the clock skips, when it is set
    forward, is moved by as much as the clock: 02:30 becomes 03:30.
    """
    hour, minute = map(int, deadline.split(":"))
    zone = ZoneInfo(timezone)
    local = now.astimezone(zone).replace(tzinfo=None, hour=hour, minute=minute, second=0, microsecond=0)
    days = [local + timedelta(days=day) for day in (0, 1)]
    return min(moment for day in days for moment in _moments(day, zone) if moment > now)


def _moments(local: datetime, zone: ZoneInfo) -> set[datetime]:
    """Return the moments, in UTC, at which a clock shows a date and time: two, one, or what a skipped time stands for."""
    moments = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    shown = {moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None) == local}
    return shown or {max(moments)}


def _end(config: NightlyConfig, started: datetime) -> datetime | None:
    """Return the moment at which a night must have ended: its deadline or its greatest length, whichever comes first."""
    ends = []
    if config.deadline:
        ends.append(next_time(config.deadline, config.timezone, started))
    if config.max_hours is not None:
        ends.append(started + timedelta(hours=config.max_hours))
    return min(ends, default=None)


def _forecast(config: NightlyConfig, model: Model, listing: pa.Table, output: str) -> Forecast:
    todo = listing if config.full else ledger.pending(listing, output, model.digest)
    due = history.backlog(todo, output).slice(0, config.limit)
    seconds, basis = _expected(due.num_rows, history.runs(output, _NIGHTS), model.digest)
    return Forecast(listed=listing.num_rows, planned=by_due(due), seconds=seconds, basis=basis)


def _expected(scans: int, records: list[dict[str, Any]], digest: str) -> tuple[float | None, str]:
    """Return the seconds that some scans may take by the records of earlier runs, and what that is taken from."""
    if not scans:
        return 0.0, "nothing is due"
    own = _rates(each for each in records if each["model_digest"] == digest)
    used = own or _rates(records)
    if not used:
        return None, "no run has scored anything in this output yet"
    runs = f"{len(used)} earlier runs" if len(used) > 1 else "one earlier run"
    return scans / _typical(used), f"by {runs} of {'this model' if own else 'other models'} in this output"


def _rates(records: Iterable[dict[str, Any]]) -> list[tuple[float, int]]:
    """Return scans per second, start included, and scans of each run that scored some."""
    counts = [(each["counts"]["ok"] + each["counts"]["rejected"], each["seconds"]) for each in records]
    return [(scans / max(seconds, 0.001), scans) for scans, seconds in counts if scans]  # the record is rounded to 1 ms


def _typical(rates: list[tuple[float, int]]) -> float:
    """Return the median of rates, each weighted by its scans: a run of few scans is little more than its start."""
    ranked = sorted(rates)
    weights = list(accumulate(scans for _, scans in ranked))
    return ranked[bisect_left(weights, weights[-1] / 2)][0]


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


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
