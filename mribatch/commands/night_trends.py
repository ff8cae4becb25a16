"""Say how a night's numbers have changed over the nights before it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from mribatch.reports.trends import Trend
from mribatch.statistics.drift import CONFIDENCE_EDGES

__all__ = ["night_names", "trends"]

Facts = Mapping[str, Any]

_SURE = CONFIDENCE_EDGES.index(0.95)


def night_names(nights: Sequence[Facts]) -> list[str]:
    """Return the date and time of each night, UTC."""
    starts = [datetime.strptime(str(night["run_id"])[:16], "%Y%m%dT%H%M%SZ") for night in nights]
    return [f"{start:%Y-%m-%d %H:%M}" for start in starts]


def trends(nights: Sequence[Facts]) -> list[Trend]:
    """Return the trends of what nights have stored, see `night_summary.night_facts`. The last night is the latest."""
    labels = sorted({label for night in nights for label in night["by_class"]})
    return [
        Trend(name="Scans scored", values=[night["scored"] for night in nights]),
        Trend(name="Scans per second", values=[_rate(night) for night in nights]),
        Trend(name="Rejected or failed", values=[_lost(night) for night in nights], is_share=True),
        Trend(name="For review", values=[_referred(night) for night in nights], is_share=True),
        Trend(name="Confidence below 0.95", values=[_unsure(night) for night in nights], is_share=True),
        *(
            Trend(name=f"Called {label}", values=[_called(night, label) for night in nights], is_share=True)
            for label in labels
        ),
    ]


def _rate(night: Facts) -> float | None:
    done = night["scored"] + night.get("skipped", 0) + night.get("rejected", 0)
    return done / night["seconds"] if done and night["seconds"] else None


def _lost(night: Facts) -> float | None:
    if "rejected" not in night:  # of an earlier version
        return None
    lost = night["rejected"] + night["failed"]
    return _share(lost, (lost, night["scored"]))


def _referred(night: Facts) -> float | None:
    counts = night.get("referrals")
    return _share(sum(counts.values()) - counts["auto"], counts.values()) if counts else None


def _unsure(night: Facts) -> float | None:
    return _share(sum(night["confidence"][:_SURE]), night["confidence"])


def _called(night: Facts, label: str) -> float | None:
    return _share(night["by_class"].get(label, 0), night["by_class"].values())


def _share(part: float, counts: Iterable[float]) -> float | None:
    total = sum(counts)
    return part / total if total else None
