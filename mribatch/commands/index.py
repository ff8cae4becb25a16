"""Write the index of an output: a page with a line for each of its runs, beside their records."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mribatch.commands.night_trends import night_names, trends
from mribatch.predictions import history
from mribatch.predictions.lock import RUNS
from mribatch.reports.index import Index, Run, index_page
from mribatch.stores import uris

__all__ = ["write_index"]

_MOST_RUNS = 100  # each is one request to read


def write_index(output: str) -> str:
    """Write OUTPUT/_runs/index.html on the last 100 runs and return its URI."""
    nights = history.nights(output, _MOST_RUNS)
    pages = {*uris.names(uris.join(output, "_nights"))} if nights else set()
    runs = [_run(record, pages) for record in reversed(history.runs(output, _MOST_RUNS))]
    page = index_page(Index(runs=runs, nights=night_names(nights), trends=trends(nights) if nights else []))
    place = uris.join(output, RUNS, "index.html")
    uris.put(place, page.encode())
    return place


def _run(record: Mapping[str, Any], pages: set[str]) -> Run:
    counts, run_id = record["counts"], record["run_id"]
    return Run(
        run_id=run_id,
        started=datetime.fromisoformat(record["started_at"]),
        model_digest=record["model_digest"],
        planned=record["plan"]["planned"],
        scored=counts["ok"],
        rejected=counts["rejected"],
        skipped=counts.get("skipped", 0),
        failed=counts["failed"],
        left=counts["left"],
        for_review=sum((record.get("referred_by_reason") or {}).values()),
        seconds=record["seconds"],
        page=f"../_nights/{run_id}/nightly.html" if run_id in pages else None,
    )
