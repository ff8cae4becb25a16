"""Tonight's counts beside those of the last runs: a table with bars, and the drift between them in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from mribatch.reports import html
from mribatch.reports.drift import Drift
from mribatch.reports.html import Html, percent

__all__ = ["STYLE", "Comparison", "both"]

_KEY = Html('<span class="key old"></span>Last runs <span class="key new"></span>Tonight')


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Counts of the same bins, in the order of `names`, of the last `runs` runs and of tonight, and what `drift` says."""

    runs: int
    names: Sequence[str]
    before: Sequence[int]
    tonight: Sequence[int]
    drift: Drift


def both(classes: Comparison, confidence: Comparison) -> str:
    """The class mix and the confidence of new and changed scans beside those of the last runs."""
    return (
        f"<h3>Predicted classes</h3>{_compared(classes.runs)}{_table('Class', classes)}"
        f"<h3>Confidence, under the same model</h3>{_compared(confidence.runs)}{_table('Confidence', confidence)}"
    )


def _compared(runs: int) -> str:
    if not runs:
        return "<p>There is no earlier run to compare with.</p>"
    which = f"the last {runs:,} runs" if runs > 1 else "the last run"
    return f"<p>New and changed scans, compared with {which}.</p>"


def _table(what: str, comparison: Comparison) -> str:
    """The verdict, then a row for each bin; `what` says what the bins are."""
    before, tonight = _shares(comparison.before), _shares(comparison.tonight)
    widest = max((share for share in (*before, *tonight) if share), default=1.0)
    rows = (
        (name, Html(_bar(old, widest, "old") + _bar(new, widest, "new")), _cell(old, n), _cell(new, m))
        for name, old, new, n, m in zip(
            comparison.names, before, tonight, comparison.before, comparison.tonight, strict=True
        )
    )
    whole = html.table((what, _KEY, "Last runs", "Tonight"), rows, kind="numbers bars")
    return f"<p>{_verdict(comparison.drift)}</p>{whole}"


def _shares(counts: Sequence[int]) -> list[float | None]:
    total = sum(counts)
    return [count / total if total else None for count in counts]


def _bar(share: float | None, widest: float, kind: str) -> str:
    """A picture of what the row says in numbers, too: those who listen to the page are spared it."""
    return f'<span class="bar {kind}" aria-hidden="true" style="width: {(share or 0) / widest:.2%}"></span>'


def _cell(share: float | None, count: int) -> str:
    return "–" if share is None else f"{percent(share)} ({count:,})"


def _verdict(drift: Drift) -> str:
    if drift.index is None or drift.noise is None:
        return "<b>No verdict</b>: one side has no scans."
    if drift.level != "none":
        words = f"{drift.level.capitalize()} drift"
    else:
        words = "No drift beyond chance" if drift.index <= drift.noise else "More than chance, and too little to matter"
    return f"<b>{words}</b>: PSI {drift.index:.3f}; by chance alone it stays below {drift.noise:.3f}."


STYLE = """
:root { --old: #8593a1; --new: #2f6db5 }
@media (prefers-color-scheme: dark) { :root { --old: #7d8a97; --new: #6ea8ea } }
.bars :is(th, td) { white-space: nowrap }
.bars td:nth-child(2) { width: 20rem }
.bars :is(th, td):nth-child(2) { text-align: left }
.bar, .key { display: block; height: .55rem; border-radius: 2px; print-color-adjust: exact; forced-color-adjust: none }
.bar + .bar { margin-top: 2px }
.key { display: inline-block; width: 1.2rem; margin-right: .35rem }
.key + .key, .key.new { margin-left: .75rem }
.old { background: var(--old) }
.new { background: var(--new) }
@media (max-width: 40rem) { .bars :is(th, td):nth-child(2) { display: none } }
"""
