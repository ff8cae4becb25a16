"""Summarize a night: its rows, those before them and the nights before it become the numbers of its report."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.commands.night_trends import night_names, trends
from mribatch.commands.night_worklist import worklist
from mribatch.commands.scored import Scored
from mribatch.models.format import Model
from mribatch.predictions import history
from mribatch.predictions.files import of_files, of_listing, outcomes
from mribatch.predictions.history import DUE, INTERRUPTED
from mribatch.predictions.series import MEMBERSHIP, with_series
from mribatch.reports.night import Change, Comparison, Night, Referred, Reject, Tally
from mribatch.schema import Status
from mribatch.settings.score import NightlyConfig
from mribatch.statistics import drift
from mribatch.statistics.referral import REASONS

__all__ = ["COLUMNS", "Alarm", "NightData", "by_due", "changed_rows", "night_facts", "referral_alarms", "summarize"]

COLUMNS = (
    *(*schema.KEY, *MEMBERSHIP[1:], "member", "reason", "detail", "predicted_class", "confidence"),
    *("referral", "referral_reason", "model_digest", "scored_at"),
)
"""The columns of predictions that a night reads."""


@dataclass(frozen=True, kw_only=True)
class NightData:
    """What a night's report is made of; rows have COLUMNS."""

    model: Model
    due: pa.Table
    rows: pa.Table  # of this night
    late: pa.Table  # of interrupted runs that no night has reported yet
    before: pa.Table  # the newest earlier row of each of these scans
    vanished: int
    earlier: list[dict[str, Any]]  # facts of earlier nights
    started: datetime
    deadline: datetime | None


def summarize(config: NightlyConfig, scored: Scored, data: NightData) -> Night:
    """Return the report of a night."""
    rows = pa.concat_tables([data.rows, data.late], promote_options="default")
    due = _with_late(data)
    good = of_listing(rows.filter(pc.equal(rows["status"], Status.OK)), due)
    files = outcomes(rows)
    bad, skipped = (files.filter(pc.equal(files["status"], status)) for status in (Status.REJECTED, Status.SKIPPED))
    tried = files.num_rows - skipped.num_rows + scored.failed
    classes, confidence = _compared_classes(config, good, data), _compared_confidence(config, good, data)
    named = with_series(rows)
    referrals, changed = _compared_referrals(config, good, data), changed_rows(good, data.before)
    alarms = [*_alarms(config, bad.num_rows + scored.failed, tried, classes, confidence, referrals)]
    zone = ZoneInfo(config.timezone)
    night = Night(
        title=f"Night of {data.started.astimezone(zone):%Y-%m-%d}",
        run_id=scored.run_id,
        model=config.model,
        model_digest=scored.digest,
        started=data.started.astimezone(zone),
        ended=datetime.now(zone),
        deadline=data.deadline and data.deadline.astimezone(zone),
        alarms=tuple(alarm.text for alarm in alarms),
        advice=tuple(dict.fromkeys(alarm.advice for alarm in alarms)),
        tally=Tally(
            listed=scored.listed,
            done_before=scored.done,
            vanished=data.vanished,
            failed=scored.failed,
            planned=by_due(due),
            scored=by_due(outcomes(good)),
            left_over=data.due.num_rows - scored.planned + scored.left,
        ),
        series=_counted(named, "series_key"),
        studies=_counted(named, "study_key"),
        classes=classes,
        confidence=confidence,
        referrals=referrals,
        referred=_referred(good),
        changes=_changes(changed),
        worklist=worklist(good, changed),
        rejects=[Reject(**row) for row in bad.select(["scan_uri", "reason", "detail"]).to_pylist()],
        skips=dict(Counter(skipped["reason"].to_pylist())),
        failures=scored.failures,
        facts=_facts(config, scored, data),
    )
    nights = [*data.earlier, night_facts(night)]
    return replace(night, nights=night_names(nights), trends=trends(nights))


def _counted(rows: pa.Table, key: str) -> int:
    """Return how many different values a column has."""
    return int(pc.count_distinct(rows[key]).as_py())


def night_facts(night: Night) -> dict[str, Any]:
    """Return the numbers that later nights are compared with."""
    return {
        "run_id": night.run_id,
        "model_digest": night.model_digest,
        "scored": sum(night.tally.scored.values()),
        "skipped": sum(night.skips.values()),
        "rejected": len(night.rejects),
        "failed": night.tally.failed,
        "seconds": (night.ended - night.started).total_seconds(),
        "by_class": dict(zip(night.classes.names, night.classes.tonight, strict=True)),
        "confidence": list(night.confidence.tonight),
        "referrals": dict(zip(night.referrals.names, night.referrals.tonight, strict=True))
        if night.referrals
        else None,
    }


def by_due(table: pa.Table) -> dict[str, int]:
    """Return how many rows were due for each reason."""
    counts = Counter(table["due"].to_pylist())
    return {due: counts[due] for due in (*DUE, INTERRUPTED) if due in DUE or counts[due]}


def _with_late(data: NightData) -> pa.Table:
    """Return what was due, with the scans of interrupted runs."""
    late = of_files(outcomes(data.late)).select(schema.PLAN.names)
    late = late.append_column("due", pa.repeat(INTERRUPTED, late.num_rows))
    return pa.concat_tables([data.due, late.cast(data.due.schema)])


def _facts(config: NightlyConfig, scored: Scored, data: NightData) -> dict[str, object]:
    facts: dict[str, object] = {"Input": config.input, "Output": scored.output, "Settings": config.fingerprint()}
    unplanned = scored.listed - scored.done - data.due.num_rows
    return facts | ({"Not planned, beyond --limit": f"{unplanned:,} scans, for the next run"} if unplanned else {})


# Drift


def _compared_classes(config: NightlyConfig, good: pa.Table, data: NightData) -> Comparison:
    """Compare the class mix of new and changed scans with that of earlier nights."""
    mixes = [Counter(night["by_class"]) for night in data.earlier if night["scored"]]
    names = sorted({*data.model.labels, *(name for mix in mixes for name in mix)})
    tonight = Counter(_without_backfill(good)["predicted_class"].to_pylist())
    nights = [[mix[name] for name in names] for mix in mixes]
    return _comparison(config, names, nights, [tonight[name] for name in names])


def _compared_confidence(config: NightlyConfig, good: pa.Table, data: NightData) -> Comparison:
    """Compare the confidence in new and changed scans with that of earlier nights of the same model."""
    nights = [night["confidence"] for night in data.earlier if night["model_digest"] == data.model.digest]
    tonight = drift.confidence_counts(_without_backfill(good)["confidence"].to_numpy())
    return _comparison(config, drift.CONFIDENCE_RANGES, nights, tonight)


def _compared_referrals(config: NightlyConfig, good: pa.Table, data: NightData) -> Comparison | None:
    """Compare the referrals of new and changed scans with those of earlier nights of the same model, if it refers."""
    if not data.model.has_referral:
        return None
    same = [night for night in data.earlier if night["model_digest"] == data.model.digest]
    names = ["auto", *dict.fromkeys(REASONS)]
    nights = [[night["referrals"][name] for name in names] for night in same if night.get("referrals")]
    tonight = Counter(_without_backfill(good)["referral_reason"].fill_null("auto").to_pylist())
    return _comparison(config, names, nights, [tonight[name] for name in names])


def _referred(good: pa.Table) -> list[Referred]:
    """Return the scans for review, the least sure first."""
    review = good.filter(pc.equal(good["referral"], schema.Referral.REVIEW).fill_null(False))
    ordered = review.sort_by([("confidence", "ascending"), ("scan_uri", "ascending")])
    columns = ["scan_uri", "referral_reason", "predicted_class", "confidence"]
    return [Referred(**row) for row in ordered.select(columns).to_pylist()]


def _without_backfill(good: pa.Table) -> pa.Table:
    """Return the rows of new and changed scans: the backfill is the old archive again."""
    return good.filter(pc.not_equal(good["due"], history.BACKFILL))


def _comparison(
    config: NightlyConfig, names: Sequence[str], nights: Sequence[Sequence[int]], tonight: Sequence[int]
) -> Comparison:
    before = [sum(column) for column in zip(*nights, strict=True)] or [0] * len(tonight)
    measured = drift.drift(before, tonight, moderate=min(0.1, config.max_drift), major=config.max_drift)
    return Comparison(runs=len(nights), names=names, before=before, tonight=tonight, drift=measured)


def changed_rows(good: pa.Table, before: pa.Table) -> pa.Table:
    """Return the rows whose class differs from that of their earlier row, the most confident first.

    The columns of the earlier row end with `_before`; `why` says what changed, as in `Change`.
    """
    columns = ["scan_uri", "frame", "scan_version", "model_digest", "predicted_class", "confidence"]
    earlier = before.filter(pc.equal(before["status"], Status.OK)).select(columns)
    both = good.join(earlier, keys=["scan_uri", "frame"], join_type="inner", right_suffix="_before")
    changed = both.filter(pc.not_equal(both["predicted_class"], both["predicted_class_before"]))
    changed = changed.sort_by([("confidence", "descending"), ("scan_uri", "ascending")])
    return changed.append_column("why", pa.array([_why(row) for row in changed.to_pylist()], pa.string()))


def _changes(changed: pa.Table) -> list[Change]:
    return [
        Change(
            scan_uri=row["scan_uri"],
            why=row["why"],
            before=row["predicted_class_before"],
            before_confidence=row["confidence_before"],
            after=row["predicted_class"],
            after_confidence=row["confidence"],
        )
        for row in changed.to_pylist()
    ]


def _why(row: Mapping[str, Any]) -> Literal["version", "model", "reading"]:
    """Return what changed between two rows of a scan."""
    if row["scan_version"] != row["scan_version_before"]:
        return "version"
    return "model" if row["model_digest"] != row["model_digest_before"] else "reading"


class Alarm(NamedTuple):
    """What is wrong with a night, and what to do."""

    text: str
    advice: str


def _alarms(
    config: NightlyConfig,
    lost: int,
    tried: int,
    classes: Comparison,
    confidence: Comparison,
    referrals: Comparison | None,
) -> Iterator[Alarm]:
    if lost > config.max_reject_rate * tried:
        text = f"{lost:,} of {tried:,} scans were rejected or failed, more than {100 * config.max_reject_rate:g}%."
        yield Alarm(text, _LOST)
    for name, comparison in (("class mix", classes), ("confidence", confidence)):
        if comparison.drift.level == "major":
            index = comparison.drift.index
            text = f"The {name} differs from that of previous nights: population stability index {index:.2f}."
            yield Alarm(text, _DRIFTED)
    if referrals is not None:
        yield from referral_alarms(referrals)


_LOST = (
    "Look at the reasons and names below. Many scans with one reason point at their source: an interrupted copy, a new file "
    "format, a disk or bucket that cannot be reached. Repair it. The next run retries failed scans by itself, and rejected "
    "ones once their files have changed."
)
_DRIFTED = (
    "Look at the worklist, and ask what is new in the archive: a scanner, a sequence, a department, an import. Do not use "
    "this night's answers before that is clear. If the new scans are to stay, judge the model on some tens of them with "
    "labels: mribatch accept."
)
_REFERRED = (
    "Look at the scans for review by their reason. Many that are foreign: something else than brain MRI reaches the archive; "
    "exclude it. Many that are unlike the training scans: the model does not know this scanner or sequence; judge it there "
    "with mribatch accept."
)


def referral_alarms(referrals: Comparison) -> Iterator[Alarm]:
    """Yield the alarm if the share for review has risen further than chance; the first count is of scans that are not."""
    if referrals.drift.level != "major":
        return
    before, tonight = (1 - counts[0] / sum(counts) for counts in (referrals.before, referrals.tonight))
    if tonight > before:
        text = f"More scans are for review than on previous nights: {tonight:.1%}, {before:.1%} before."
        yield Alarm(text, _REFERRED)
