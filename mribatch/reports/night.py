"""Write the results of a night as one self-contained HTML page that can be read in a minute."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from mribatch.reports.rendering import Picture, render
from mribatch.reports.trends import Trend, over_the_nights
from mribatch.statistics.drift import Drift

__all__ = ["WHAT_CHANGED", "Change", "Comparison", "Night", "Referred", "Reject", "Tally", "Work", "night_page"]

_LIST_LIMIT = 200  # more than anyone reads in a morning; the Parquet files hold all of them

_REASONS = {
    "new": "New",
    "changed": "Changed since last scored",
    "backfill": "Backfill (unchanged since last scored)",
    "interrupted": "Scored by an interrupted run",
}
WHAT_CHANGED = {"version": "the scan", "model": "the model", "reading": "the way it is read"}
"""What has changed about a scan whose class differs, by `Change.why`."""


class Bin(NamedTuple):
    """A bin of two histograms: counts, and shares of all scans (None if the histogram is empty)."""

    name: str
    scans_before: int
    scans_tonight: int
    before: float | None
    tonight: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Counts of the last `runs` runs and of tonight in the same bins, in the order of `names`, and their drift."""

    runs: int
    names: Sequence[str]
    before: Sequence[int]
    tonight: Sequence[int]
    drift: Drift

    @property
    def bins(self) -> list[Bin]:
        columns = (self.names, self.before, self.tonight, _shares(self.before), _shares(self.tonight))
        return [Bin(*values) for values in zip(*columns, strict=True)]

    @property
    def widest(self) -> float:
        """The largest share, which the longest bar shows; 1 without scans."""
        return max((share for share in (*_shares(self.before), *_shares(self.tonight)) if share), default=1.0)


def _shares(counts: Sequence[int]) -> list[float | None]:
    total = sum(counts)
    return [count / total if total else None for count in counts]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Numbers of scans by outcome.

    planned, scored: by reason for scoring (`new`, `changed`, `backfill` …); scored scans have a prediction.
    done_before: listed scans that already had a row of this model. vanished: listed the night before, but not tonight.
    failed: without a row; the next run plans them again. left_over: planned, but not started before the deadline.
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
    """A scan whose class differs from that of its previous version, model or reading (such as another --window)."""

    scan_uri: str
    why: Literal["version", "model", "reading"]
    before: str
    before_confidence: float
    after: str
    after_confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """A scan without a prediction because its file cannot be used."""

    scan_uri: str
    reason: str
    detail: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Referred:
    """A scan that a person should look at, and why."""

    scan_uri: str
    referral_reason: str
    predicted_class: str
    confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A frame of a scan for the worklist, and why it is on it."""

    scan_uri: str
    scan_version: str
    frame: int
    why: str
    predicted_class: str
    confidence: float
    container: str | None = None  # the archive of which the scan is a member


@dataclass(frozen=True, kw_only=True)
class Night:
    """The contents of the page.

    alarms: sentences; any alarm means that somebody has to look at this night. advice: what to do about them.
    started, ended, deadline: timezone-aware, shown in their own time zone.
    series, studies: how many of them the night's rows belong to.
    referrals: counts of scans by referral, `auto` first; None for a model without referral.
    worklist: the scans to look at first, of each reason for it.
    nights, trends: the names of the last nights, with this one, and how their numbers have changed.
    referred, changes, rejects: all of them, most important first; the page counts all and lists the first 200.
    skips: numbers of skipped scans by reason.
    failures: scans that failed, by cause; the page lists the first 200 of each cause.
    facts: further facts by name (settings, for example), shown as they are.
    """

    title: str
    run_id: str
    model: str
    model_digest: str
    started: datetime
    ended: datetime
    deadline: datetime | None = None
    alarms: Sequence[str] = ()
    advice: Sequence[str] = ()
    tally: Tally
    series: int = 0
    studies: int = 0
    classes: Comparison
    confidence: Comparison
    referrals: Comparison | None = None
    worklist: Sequence[Work] = ()
    nights: Sequence[str] = ()
    trends: Sequence[Trend] = ()
    referred: Sequence[Referred] = ()
    changes: Sequence[Change] = ()
    rejects: Sequence[Reject] = ()
    skips: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)


def night_page(
    night: Night,
    pictures: Mapping[tuple[str, int], Picture] | None = None,
    files: Mapping[str, str] | None = None,
) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text of the night is escaped.

    pictures: of the worklist's scans, by scan_uri and frame; some may be missing. files: what the page links to, by path
    relative to the page, with a word on the content of each.
    """
    tally, took = night.tally, night.ended - night.started
    scored, rejected, skipped = sum(tally.scored.values()), len(night.rejects), sum(night.skips.values())
    reject_reasons = Counter(reject.reason for reject in night.rejects)
    return render(
        "night.html",
        title=night.title,
        night=night,
        tally=tally,
        planned=sum(tally.planned.values()),
        scored=scored,
        rejected=rejected,
        skipped=skipped,
        skip_reasons=sorted(night.skips.items(), key=lambda item: (-item[1], item[0])),
        duration=_duration(took),
        rate=(scored + rejected + skipped) / took.total_seconds() if took else None,
        reasons=[*_REASONS, *sorted({*tally.planned, *tally.scored} - {*_REASONS})],
        reason_names=_REASONS,
        what_changed=WHAT_CHANGED,
        causes=sorted(Counter(WHAT_CHANGED[change.why] for change in night.changes).items()),
        reject_reasons=sorted(reject_reasons.items(), key=lambda item: (-item[1], item[0])),
        list_limit=_LIST_LIMIT,
        run=_run(night),
        pictures=pictures or {},
        files=files,
        **over_the_nights(night.nights, night.trends),
        **_cross_table(night.changes),
    )


def _cross_table(changes: Sequence[Change]) -> dict[str, object]:
    """Return the cross table of class changes: rows are previous classes, columns new ones."""
    counts = Counter((change.before, change.after) for change in changes)
    previous, new = ({pair[side] for pair in counts} for side in (0, 1))
    columns = sorted(new)
    rows = [(before, *(counts[before, after] for after in columns)) for before in sorted(previous)]
    return {"new_classes": columns, "changed": rows}


def _run(night: Night) -> dict[str, object]:
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


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}"


def _duration(took: timedelta) -> str:
    minutes, seconds = divmod(round(took.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
