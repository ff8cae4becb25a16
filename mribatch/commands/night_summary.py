"""The morning after: the rows of a night, those before them and the nights before it → what a person reads. No scoring."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.commands.score import Scored
from mribatch.models.format import Model
from mribatch.predictions import history
from mribatch.predictions.history import DUE, INTERRUPTED
from mribatch.reports.night import Change, Comparison, Night, Reject, Tally
from mribatch.schema import Status
from mribatch.settings.score import NightlyConfig
from mribatch.statistics import drift

__all__ = ["COLUMNS", "Found", "by_due", "morning", "remembered"]

COLUMNS = (*schema.KEY, "status", "reason", "detail", "predicted_class", "confidence", "model_digest", "scored_at")
"""What is read of the predictions."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a night's report is made of; rows have COLUMNS."""

    model: Model
    due: pa.Table
    rows: pa.Table  # of this night
    late: pa.Table  # of runs that came to no end, and that no night has told of
    before: pa.Table  # the newest of the same scans until then
    vanished: int
    earlier: list[dict[str, Any]]  # nights
    started: datetime
    deadline: datetime | None


def by_due(table: pa.Table) -> dict[str, int]:
    """How many rows were due for each reason."""
    counts = Counter(table["due"].to_pylist())
    return {due: counts[due] for due in (*DUE, INTERRUPTED) if due in DUE or counts[due]}


def morning(config: NightlyConfig, scored: Scored, found: Found) -> Night:
    """The report of a night."""
    rows = pa.concat_tables([found.rows, found.late], promote_options="default")
    late = found.late.select(schema.PLAN.names).append_column("due", pa.repeat(INTERRUPTED, found.late.num_rows))
    due = pa.concat_tables([found.due, late.cast(found.due.schema)])
    good = rows.filter(pc.equal(rows["status"], Status.OK)).join(due, keys=schema.PLAN.names, join_type="inner")
    bad = rows.filter(pc.equal(rows["status"], Status.REJECTED))
    classes, confidence = _comparisons(config, good, found)
    zone = ZoneInfo(config.timezone)
    return Night(
        title=f"Night of {found.started.astimezone(zone):%Y-%m-%d}",
        run_id=scored.run_id,
        model=config.model,
        model_digest=scored.digest,
        started=found.started.astimezone(zone),
        ended=datetime.now(zone),
        deadline=found.deadline and found.deadline.astimezone(zone),
        alarms=(
            *_rejected(config, bad.num_rows + scored.failed, rows.num_rows + scored.failed),
            *_drifted({"class mix": classes, "confidence": confidence}),
        ),
        tally=Tally(
            listed=scored.listed, done_before=scored.done, vanished=found.vanished, failed=scored.failed,
            planned=by_due(due), scored=by_due(good), left_over=found.due.num_rows - scored.planned + scored.left,
        ),
        classes=classes,
        confidence=confidence,
        changes=_changes(good, found.before),
        rejects=[Reject(**row) for row in bad.select(["scan_uri", "reason", "detail"]).to_pylist()],
        facts={"Input": config.input, "Output": scored.output, "Settings": config.fingerprint()}
        | _beyond_limit(scored.listed - scored.done - found.due.num_rows),
    )  # fmt: skip


def _beyond_limit(scans: int) -> dict[str, object]:
    return {"Not planned, beyond --limit": f"{scans:,} scans, for the next run"} if scans else {}


def _comparisons(config: NightlyConfig, good: pa.Table, found: Found) -> tuple[Comparison, Comparison]:
    """The class mix of new and changed scans against that of the nights before; their confidence, under the same model.

    The backfill is the archive once more, and no news.
    """
    fresh = good.filter(pc.not_equal(good["due"], history.BACKFILL))
    mixes = [Counter(night["by_class"]) for night in found.earlier if night["scored"]]
    same = [night["confidence"] for night in found.earlier if night["model_digest"] == found.model.digest]
    names = sorted({*found.model.labels, *(name for mix in mixes for name in mix)})
    tonight = Counter(fresh["predicted_class"].to_pylist())
    confidences = drift.confidence_counts(fresh["confidence"].to_numpy())
    return (
        _compared(config, names, [[mix[name] for name in names] for mix in mixes], [tonight[name] for name in names]),
        _compared(config, drift.CONFIDENCE_RANGES, same, confidences),
    )


def _compared(
    config: NightlyConfig, names: Sequence[str], nights: Sequence[Sequence[int]], tonight: Sequence[int]
) -> Comparison:
    old = [sum(column) for column in zip(*nights, strict=True)] or [0] * len(tonight)
    found = drift.drift(old, tonight, moderate=min(0.1, config.max_drift), major=config.max_drift)
    return Comparison(runs=len(nights), names=names, before=old, tonight=tonight, drift=found)


def _changes(good: pa.Table, before: pa.Table) -> list[Change]:
    """The scans whose class is another one than in their row before, the surest first."""
    was = before.filter(pc.equal(before["status"], Status.OK)).select(
        ["scan_uri", "frame", "scan_version", "predicted_class", "confidence"]
    )
    both = good.join(was, keys=["scan_uri", "frame"], join_type="inner", right_suffix="_before")
    other = both.filter(pc.not_equal(both["predicted_class"], both["predicted_class_before"]))
    return [
        Change(
            scan_uri=row["scan_uri"], why="model" if row["scan_version"] == row["scan_version_before"] else "version",
            before=row["predicted_class_before"], before_confidence=row["confidence_before"],
            after=row["predicted_class"], after_confidence=row["confidence"],
        )
        for row in other.sort_by([("confidence", "descending"), ("scan_uri", "ascending")]).to_pylist()
    ]  # fmt: skip


def _rejected(config: NightlyConfig, lost: int, tried: int) -> list[str]:
    if lost <= config.max_reject_rate * tried:
        return []
    return [f"{lost:,} of {tried:,} scans were rejected or failed, more than {100 * config.max_reject_rate:g}%."]


def _drifted(comparisons: dict[str, Comparison]) -> list[str]:
    return [
        f"The {name} differs from that of previous nights: population stability index {compared.drift.index:.2f}."
        for name, compared in comparisons.items()
        if compared.drift.level == "major"
    ]


def remembered(night: Night) -> dict[str, Any]:
    """What later nights compare themselves with."""
    return {
        "run_id": night.run_id,
        "model_digest": night.model_digest,
        "scored": sum(night.tally.scored.values()),
        "seconds": (night.ended - night.started).total_seconds(),
        "by_class": dict(zip(night.classes.names, night.classes.tonight, strict=True)),
        "confidence": list(night.confidence.tonight),
    }
