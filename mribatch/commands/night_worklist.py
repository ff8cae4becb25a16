"""Choose the scans of a night that a person should look at first."""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mribatch.reports.night import WHAT_CHANGED, Work
from mribatch.schema import KEY, Referral

__all__ = ["worklist"]

_OF_EACH = 20  # of each reason, so that the list is read to its end

Row = Mapping[str, Any]


def worklist(good: pa.Table, changed: pa.Table) -> list[Work]:
    """Return scans to look at, each once: those for review, then those that changed class, then the least sure ones.

    good: this night's rows with a prediction. changed: from `night_summary.changed_rows`.
    """
    review = good.filter(pc.equal(good["referral"], Referral.REVIEW).fill_null(False))
    reasons: list[tuple[pa.Table, Callable[[Row], str]]] = [
        (_least_sure(review), lambda row: f"for review: {row['referral_reason']}"),
        (changed, _changed),
        (_least_sure(good), lambda _: "among the least sure"),
    ]
    works: dict[tuple[object, ...], Work] = {}
    for rows, why in reasons:
        for row in rows.slice(0, _OF_EACH).to_pylist():
            key = tuple(row[name] for name in KEY)
            works.setdefault(key, _work(row, why(row)))
    return list(works.values())


def _least_sure(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("confidence", "ascending"), ("scan_uri", "ascending"), ("frame", "ascending")])


def _changed(row: Row) -> str:
    return f"was {row['predicted_class_before']} before {WHAT_CHANGED[row['why']]} changed"


def _work(row: Row, why: str) -> Work:
    names = (*KEY, "container", "predicted_class", "confidence")
    return Work(why=why, **{name: row[name] for name in names})
