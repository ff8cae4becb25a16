"""Turn the runs of an output into one self-contained HTML page that links to their records and reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mribatch.reports.rendering import render
from mribatch.reports.trends import Trend, over_the_nights

__all__ = ["Index", "Run", "index_page"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A completed run. page: of its report, relative to the index; None for a run without one, or with one elsewhere."""

    run_id: str
    started: datetime
    model_digest: str
    planned: int
    scored: int
    rejected: int
    skipped: int
    failed: int
    left: int
    for_review: int
    seconds: float
    page: str | None


@dataclass(frozen=True, kw_only=True)
class Index:
    """The contents of the page. runs: the latest first. nights, trends: the nights among them, the latest last."""

    runs: Sequence[Run]
    nights: Sequence[str] = ()
    trends: Sequence[Trend] = ()


def index_page(index: Index) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text is escaped."""
    digests = sorted({run.model_digest for run in index.runs})
    return render(
        "index.html",
        title="Runs of this output",
        runs=index.runs,
        models=digests,
        scored=sum(run.scored for run in index.runs),
        **over_the_nights(index.nights, index.trends),
        files={f"../model={digest}/": "a row for each scan, as Parquet" for digest in digests},
    )
