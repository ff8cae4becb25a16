"""Nightly: listing − what this model has scored → new, changed, backfill → the same scoring → the morning's report."""

import json
import logging
import math
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.commands.index import write_index
from mribatch.commands.night_summary import COLUMNS, NightData, by_due, night_facts, summarize
from mribatch.commands.paying import paying
from mribatch.commands.pictures import small_pictures
from mribatch.commands.reading import reading_of, selection_of
from mribatch.commands.required_acceptance import required_acceptance
from mribatch.commands.score import score_plan
from mribatch.commands.scored import Scored
from mribatch.commands.screen import Block, Shown, Table, duration
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.predictions import history, ledger, lock, rewrite
from mribatch.predictions.files import file_uris, of_files
from mribatch.predictions.lock import NIGHTS, RUNS, new_run_id
from mribatch.reports.night import Night, night_page
from mribatch.scans.reading import Reading
from mribatch.settings.score import NightlyConfig
from mribatch.sources.listing import archive, list_scans
from mribatch.stores import uris

__all__ = ["Done", "Forecast", "expected_seconds", "next_time", "night_end", "nightly"]

log = logging.getLogger("mribatch.nightly")

ALARM = 5
_NIGHTS = 30  # earlier nights that a night is compared with
_SPARE = 3.0  # plan this many times what the fastest night would score before the deadline; the rest stays untouched
_END_S = 30.0  # start no scan this close to the deadline: the last batches, the verification and the report take time


@paying
def nightly(config: NightlyConfig) -> "Done | Forecast":
    """Score what config.model has not scored yet, new scans first, until the deadline, and write a report.

    Raises what `score` raises.
    """
    started = datetime.now(UTC)
    deadline = night_end(config, started)
    until = time.monotonic() + (deadline - started).total_seconds() - _END_S if deadline else math.inf
    model = directory.load_model(lookup.locate(config.model))
    required_acceptance(config, model)
    output, run_id = uris.absolute(config.output), new_run_id()
    if config.dry_run:
        return _forecast(config, model, list_scans(config.input, config.exclude), output)
    if config.report:
        uris.check_writable(config.report)
    reading = reading_of(config)
    with (
        lock.held(output, NIGHTS, run_id, lease_s=config.lease_s),
        lock.held(output, model.digest, run_id, lease_s=config.lease_s) as fence,
    ):
        listing, covers = archive(config.input, config.exclude)
        plan = ledger.plan(listing, output, model.digest, again=config.full, readings=reading.digests)
        vanished = history.record_listing(output, listing, started, model.digest, covers)
        earlier = history.nights(output, _NIGHTS)
        due = history.backlog(plan.todo, output).slice(0, config.limit)
        plan = replace(plan, todo=due.select(schema.PLAN.names).slice(0, _reachable(earlier, until)))
        scored, facts = score_plan(config, model, plan, fence, reading, until)
        log.info("writing the report …")
        unreported = history.unreported(output, plan.parts)
        interrupted = {} if config.full else unreported
        rows, late, before = _rows(plan, scored, interrupted, fence)
        if config.full:
            _replace_rows(fence, plan, rows)
        else:
            rewrite.supersede(fence, plan, scored.parts)
        data = NightData(
            model=model,
            due=due,
            rows=rows,
            late=late,
            before=before,
            vanished=vanished,
            earlier=earlier,
            started=started,
            deadline=deadline,
        )
        night = summarize(config, scored, data)
        report = _write(config, night, reading)
        if scored.planned:  # after the report: the next night reports the scans of a run without a record
            ledger.write_record(output, run_id, facts)
        if scored.planned or interrupted:
            history.remember_night(output, run_id, night_facts(night))
        write_index(output)
        history.mark_reported(output, unreported)
    return Done(scored=scored, night=night, report=report)


@dataclass(frozen=True, kw_only=True)
class Forecast(Shown):
    """What a night would do."""

    listed: int
    planned: dict[str, int]
    seconds: float | None
    basis: str  # the runs that the duration is taken from, or why it is unknown
    exit_code: int = 0

    def blocks(self) -> list[Block]:
        """Return the scans to score by reason, and how long that may take."""
        counts = {"listed": self.listed, "to score": sum(self.planned.values())}
        counts |= {f"  {due}": scans for due, scans in self.planned.items()}
        expected = "unknown" if self.seconds is None else duration(self.seconds)
        return [
            Table([(name, f"{count:,}") for name, count in counts.items()]),
            f"duration  {expected}, {self.basis}",
            "nothing was changed",
        ]


@dataclass(frozen=True, kw_only=True)
class Done(Shown):
    """What a night did."""

    scored: Scored
    night: Night
    report: str

    @property
    def exit_code(self) -> int:
        return ALARM if self.night.alarms else 0

    def blocks(self) -> list[Block]:
        """Return what was scored, why it was planned, the alarms, and where the report is."""
        due = ", ".join(f"{count:,} {due}" for due, count in self.night.tally.planned.items())
        alarms = (f"ALARM    {alarm}" for alarm in self.night.alarms)
        return [*self.scored.blocks(), f"planned  {due}", *alarms, f"report   {self.report}"]


# The clock


def night_end(config: NightlyConfig, started: datetime) -> datetime | None:
    """Return when a night must have ended: at its deadline or after --max-hours, whichever comes first; None for neither."""
    ends = []
    if config.deadline:
        ends.append(next_time(config.deadline, config.timezone, started))
    if config.max_hours is not None:
        ends.append(started + timedelta(hours=config.max_hours))
    return min(ends, default=None)


def next_time(deadline: str, timezone: str, now: datetime) -> datetime:
    """Return the next moment, in UTC, at which a clock in a time zone shows HH:MM. now must be aware.

    A time that occurs twice, when clocks are set back, counts twice. A time that is skipped, when they are set forward, is
    moved by as much as the clock: 02:30 becomes 03:30.
    """
    hour, minute = map(int, deadline.split(":"))
    zone = ZoneInfo(timezone)
    local = now.astimezone(zone).replace(tzinfo=None, hour=hour, minute=minute, second=0, microsecond=0)
    days = [local + timedelta(days=day) for day in (0, 1)]
    return min(moment for day in days for moment in _moments(day, zone) if moment > now)


def _moments(local: datetime, zone: ZoneInfo) -> set[datetime]:
    """Return the moments, in UTC, at which a clock shows a date and time: two, one, or what a skipped time is moved to."""
    moments = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    shown = {moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None) == local}
    return shown or {max(moments)}


def _reachable(earlier: Sequence[Mapping[str, Any]], until: float) -> int | None:
    """Return how many scans could be started before the deadline at most; None for all."""
    done = [(night["scored"] + night.get("skipped", 0), night["seconds"]) for night in earlier]
    rates = [float(scans / seconds) for scans, seconds in done if scans]
    if math.isinf(until) or not rates:
        return None
    return math.ceil(_SPARE * max(rates) * max(until - time.monotonic(), 0.0)) + 1


# What a night would take


def _forecast(config: NightlyConfig, model: Model, listing: pa.Table, output: str) -> Forecast:
    readings = Reading(selection=selection_of(config)).digests
    todo = listing if config.full else ledger.pending(listing, output, model.digest, readings)
    due = history.backlog(todo, output).slice(0, config.limit)
    seconds, basis = expected_seconds(due.num_rows, history.runs(output, _NIGHTS), model.digest)
    return Forecast(listed=listing.num_rows, planned=by_due(due), seconds=seconds, basis=basis)


def expected_seconds(scans: int, records: Sequence[Mapping[str, Any]], digest: str) -> tuple[float | None, str]:
    """Return how long some scans may take by the records of earlier runs, and which runs these are."""
    if not scans:
        return 0.0, "nothing is due"
    own = _rates(record for record in records if record["model_digest"] == digest)
    used = own or _rates(records)
    if not used:
        return None, "no run has scored anything in this output yet"
    runs = f"{len(used)} earlier runs" if len(used) > 1 else "one earlier run"
    return scans / _weighted_median(used), f"by {runs} of {'this model' if own else 'other models'} in this output"


def _rates(records: Iterable[Mapping[str, Any]]) -> list[tuple[float, int]]:
    """Return scans per second, start-up included, and scans of each run that scored some."""
    outcomes = ("ok", "rejected", "skipped")
    counts = [(sum(record["counts"].get(name, 0) for name in outcomes), record["seconds"]) for record in records]
    return [(scans / max(seconds, 0.001), scans) for scans, seconds in counts if scans]  # the record is rounded to 1 ms


def _weighted_median(rates: Sequence[tuple[float, int]]) -> float:
    """Return the median of rates, each weighted by its scans: a run of few scans is little more than its start-up."""
    ranked = sorted(rates)
    weights = list(accumulate(scans for _, scans in ranked))
    return ranked[bisect_left(weights, weights[-1] / 2)][0]


# Rows before and after


def _rows(
    plan: ledger.Plan, scored: Scored, interrupted: Mapping[str, Sequence[str]], fence: lock.Fence
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return this night's rows, those of interrupted runs, and the newest row before these of each of their scans."""
    late_parts = [part for parts in interrupted.values() for part in parts]
    rows = ledger.read_parts(fence.output, fence.digest, scored.parts, COLUMNS)
    late = ledger.read_parts(fence.output, fence.digest, late_parts, COLUMNS)
    new = pa.concat_tables([rows, late], promote_options="default")
    if not new.num_rows:
        return rows, late, new
    others = [digest for digest in ledger.digests(fence.output) if digest != fence.digest]
    tables = [ledger.read_parts(fence.output, fence.digest, sorted(plan.parts - {*late_parts}), COLUMNS)]
    tables += [ledger.predictions(fence.output, digest, COLUMNS) for digest in others]
    known = pa.concat_tables(tables, promote_options="default")
    return rows, late, history.newest(known.filter(pc.is_in(file_uris(known), file_uris(new).combine_chunks())))


def _replace_rows(fence: lock.Fence, plan: ledger.Plan, rows: pa.Table) -> None:
    """Remove the old rows of scans that have new ones; a scan that vanished before its turn keeps its old row."""
    vanished = rows.filter(ledger.was_gone(rows)).select(schema.PLAN.names)
    replaced = of_files(rows).select(schema.PLAN.names).join(vanished, keys=schema.PLAN.names, join_type="left anti")
    rewrite.without(fence, sorted(plan.parts), replaced)
    ledger.plan(schema.PLAN.empty_table(), fence.output, fence.digest)  # removes rows that are still there twice


def _write(config: NightlyConfig, night: Night, reading: Reading) -> str:
    """Write nightly.json and nightly.html, and return the page's URI."""
    default = uris.join(config.output, "_nights", night.run_id)
    folder, columns = config.report or default, schema.prediction_schema(())
    keys = pa.schema([columns.field(name) for name in (*schema.KEY, "container")])
    work = pa.Table.from_pylist([asdict(scan) for scan in night.worklist], schema=keys)
    files = {"nightly.json": "all of this page, and the lists in full"}
    if not config.report:
        files |= {
            f"../../model={night.model_digest}/": "a row for each scan, as Parquet",
            f"../../{RUNS}/index.html": "all runs of this output",
        }
    pictures = small_pictures(work, len(night.worklist), reading) if night.worklist else {}
    facts = json.dumps(asdict(night), indent=1, default=datetime.isoformat)
    uris.put(uris.join(folder, "nightly.json"), facts.encode())
    uris.put(uris.join(folder, "nightly.html"), night_page(night, pictures, files).encode())
    return uris.join(folder, "nightly.html")
