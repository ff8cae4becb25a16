"""A night's re-scoring becomes one HTML page that a person reads in a minute in the morning. Numbers come ready-made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from mribatch.reports import bars, html
from mribatch.reports.bars import Comparison
from mribatch.reports.html import percent, text

__all__ = ["Change", "Comparison", "Night", "Reject", "Tally", "night_page"]

_SHOWN = 200  # of a list; more than a person looks at in a morning, and the Parquet has them all

_WHY = {
    "new": "New",
    "changed": "Changed since they were scored",
    "backfill": "Backfill, unchanged since they were scored",
    "interrupted": "Scored by a run that was cut off",
}
_WHAT_CHANGED = {"version": "the scan", "model": "the model"}


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Scans by what became of them.

    planned, scored: by why they were planned (`new`, `changed`, `backfill`); scored ones have a prediction.
    done_before: listed, and had their row under this model. vanished: listed by the night before, and not any more.
    failed: have no row, and are planned again. left_over: planned, and not begun when the deadline came.
    """

    listed: int
    done_before: int
    vanished: int
    planned: Mapping[str, int]
    scored: Mapping[str, int]
    failed: int
    left_over: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A scan that got another class than its previous version did, or than the previous model gave it."""

    scan_uri: str
    why: Literal["version", "model"]
    before: str
    before_confidence: float
    after: str
    after_confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """A scan without a prediction by its own fault."""

    scan_uri: str
    reason: str
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class Night:
    """What the page shows.

    alarms: sentences for a person; any of them makes the night one to look at.
    started, ended, deadline: aware, and shown in the time zone that they have.
    changes, rejects: all of them, those to be seen first in front; the page counts all and lists the first 200.
    facts: what else there is to know, the settings for example, shown as it is.
    """

    title: str
    run_id: str
    model: str
    model_digest: str
    started: datetime
    ended: datetime
    deadline: datetime | None = None
    alarms: Sequence[str] = ()
    tally: Tally
    classes: Comparison
    confidence: Comparison
    changes: Sequence[Change] = ()
    rejects: Sequence[Reject] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


def night_page(night: Night) -> str:
    """The page as HTML text, to be written as UTF-8. Every text of the night is escaped."""
    sections = (
        _state(night),
        html.section("Result", _tiles(night)),
        html.section("Why they were planned", _planned(night.tally), "beside"),
        html.section("Archive", _archive(night.tally), "beside"),
        html.section("Drift", bars.both(night.classes, night.confidence)),
        html.section("Class changes", _changes(night.changes)),
        html.section("Rejected scans", _rejects(night.rejects)),
        html.section("Run", html.facts(_facts(night))),
    )
    return html.document(night.title, sections, bars.STYLE + _STYLE)


def _state(night: Night) -> str:
    """How the night went, in words and as the first thing; colour only repeats it."""
    left = night.tally.left_over
    stopped = f"The deadline stopped the run with {_scans(left)} left over. The next run takes them up."
    if night.alarms:
        reasons = [*night.alarms, stopped] if left else night.alarms
        body = "".join(f"<li>{text(reason)}</li>" for reason in reasons)
        return html.section("ALARM: somebody has to look at this", f"<ul>{body}</ul>", "state alarm")
    if left:
        return html.section("Stopped by the deadline", f"<p>{stopped}</p>", "state stopped")
    return html.section("All well", f"<p>{_done(night)}</p>", "state well")


def _done(night: Night) -> str:
    if not sum(night.tally.planned.values()):
        return "There was nothing to score."
    scored, rejected, failed = sum(night.tally.scored.values()), len(night.rejects), night.tally.failed
    return f"{_scans(scored)} scored, {rejected:,} rejected, {failed:,} failed, none left over."


def _tiles(night: Night) -> str:
    tally, took = night.tally, night.ended - night.started
    planned, scored, rejected = sum(tally.planned.values()), sum(tally.scored.values()), len(night.rejects)
    rate = (scored + rejected) / took.total_seconds() if took else None
    return html.tiles(
        (
            ("Scored", f"{scored:,}", f"of {planned:,} planned"),
            ("Rejected", f"{rejected:,}", "the scan's own fault, final"),
            ("Failed", f"{tally.failed:,}", "planned again by the next run"),
            ("Left over", f"{tally.left_over:,}", "when the deadline came"),
            ("Duration", _duration(took), "from the start to the end of the run"),
            ("Scans per second", "–" if rate is None else f"{rate:.1f}", "scored and rejected, start-up included"),
        )
    )


def _planned(tally: Tally) -> str:
    reasons = [*_WHY, *sorted({*tally.planned, *tally.scored} - {*_WHY})]
    rows = [(_WHY.get(why, why), tally.planned.get(why, 0), tally.scored.get(why, 0)) for why in reasons]
    total = ("All", sum(tally.planned.values()), sum(tally.scored.values()))
    return html.table(("Why", "Planned", "Scored"), rows, [total])


def _archive(tally: Tally) -> str:
    rows = (
        ("Listed", tally.listed),
        ("Done before, by this model", tally.done_before),
        ("Vanished since the night before", tally.vanished),
    )
    return html.table(("Archive", "Scans"), rows)


def _changes(changes: Sequence[Change]) -> str:
    if not changes:
        return "<p>None.</p>"
    causes = Counter(change.why for change in changes)
    cause = "; ".join(f"{count:,} because {_WHAT_CHANGED[why]} changed" for why, count in sorted(causes.items()))
    rows = (
        (
            change.scan_uri,
            _WHAT_CHANGED[change.why],
            f"{change.before} {percent(change.before_confidence)}",
            f"{change.after} {percent(change.after_confidence)}",
        )
        for change in changes[:_SHOWN]
    )
    return (
        f"<p>{_scans(len(changes))} got another class: {cause}.</p>{_crossed(changes)}<h3>One by one</h3>{_first(changes)}"
        + html.table(("Scan", "What changed", "Before", "After"), rows, kind="texts long")
    )


def _crossed(changes: Sequence[Change]) -> str:
    counts = Counter((change.before, change.after) for change in changes)
    old, new = sorted({before for before, _ in counts}), sorted({after for _, after in counts})
    rows: list[tuple[str | int, ...]] = [(before, *(counts[before, after] for after in new)) for before in old]
    return "<p>Rows are classes before, columns after.</p>" + html.table(("Class before", *new), rows)


def _rejects(rejects: Sequence[Reject]) -> str:
    if not rejects:
        return "<p>None.</p>"
    reasons = Counter(reject.reason for reject in rejects)
    counts = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    rows = ((reject.scan_uri, reject.reason, reject.detail or "") for reject in rejects[:_SHOWN])
    return (
        html.table(("Reason", "Scans"), counts, [("All", len(rejects))])
        + f"<h3>One by one</h3>{_first(rejects)}"
        + html.table(("Rejected scan", "Reason", "Detail"), rows, kind="texts long left")
    )


def _facts(night: Night) -> dict[str, object]:
    return {
        "Model": night.model,
        "Model digest": night.model_digest,
        "Run": night.run_id,
        "Started": _moment(night.started),
        "Ended": _moment(night.ended),
        "Deadline": _moment(night.deadline) if night.deadline else "none",
        "Time zone": night.started.tzinfo,
        **night.facts,
    }


def _first(items: Sequence[object]) -> str:
    return f"<p>The first {_SHOWN} of {len(items):,}.</p>" if len(items) > _SHOWN else ""


def _scans(count: int) -> str:
    return "1 scan" if count == 1 else f"{count:,} scans"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}"


def _duration(took: timedelta) -> str:
    minutes, seconds = divmod(round(took.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


_STYLE = """
:root { --good: #1b6e3c; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --good: #6fd08c; --bad: #ff8a80 } }
.state { margin-top: 1.5rem; padding: .75rem 1.25rem; border: 1px solid; border-left-width: .6rem; border-radius: 6px }
.state :is(h2, p, ul) { margin: 0 }
.state h2 { font-size: 1.3rem } .state :is(p, ul) { color: var(--ink) }
.well { color: var(--good) } .stopped { color: var(--warn) }
.alarm { color: var(--bad); border-width: 3px; border-left-width: .6rem }
h3 { margin: 1.25rem 0 .4rem; font-size: .95rem } p { margin: 0 0 .5rem }
.tiles { grid-template-columns: repeat(auto-fit, minmax(max(11.5rem, 30%), 1fr)) }
.long { max-height: 32rem; overflow-y: auto; border-bottom: 1px solid var(--line) }
.long thead th { position: sticky; top: 0; background: var(--page) }
.texts td { white-space: nowrap }
.texts.left :is(th, td):last-child { min-width: 12rem; text-align: left; white-space: normal }
@media print {
  :root { --good: #000; --bad: #000 }
  .long { max-height: none; border: 0 }
  .texts { font-size: 8pt } .texts tbody th { min-width: 0; font-size: 7pt }
  .beside { break-inside: avoid } h3 { break-after: avoid }
}
"""
