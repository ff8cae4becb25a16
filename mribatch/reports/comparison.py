"""Models side by side become one table: as Arrow, Markdown and an HTML page. The answers and measurements come ready-made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.reports import html, metrics
from mribatch.reports.html import percent
from mribatch.reports.metrics import Scores

__all__ = ["Contender", "Duel", "comparison_page", "comparison_table", "duels", "markdown", "ranked"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """One model on some splits, those of index 0 first.

    scores: what it said of each split's test scans, the same scans in the same order for all models.
    has_copy: (N,) bool per split, True where the training side holds a copy of the scan, or another one of its patient.
    seconds: for tuning and fitting, per split. chosen: by tuning, per split. train_scans: of the first split.
    scans_per_s: from decoded pixels to probabilities; size_bytes: on disk; both of the first split's model.
    """

    name: str
    title: str
    scores: Sequence[Scores]
    has_copy: Sequence[NDArray[np.bool_]]
    seconds: Sequence[float]
    chosen: Sequence[Mapping[str, Any]]
    train_scans: int
    scans_per_s: float
    size_bytes: int

    @property
    def accuracies(self) -> list[float]:
        return [float(each.correct.mean()) for each in self.scores]

    @property
    def accuracy(self) -> float:
        """The mean over the splits."""
        return float(np.mean(self.accuracies))

    @property
    def interval(self) -> tuple[float, float]:
        """95%, see `metrics.repeated_interval`."""
        return metrics.repeated_interval(self.accuracies, train=self.train_scans, test=len(self.scores[0].truth))

    @property
    def accuracy_without_copies(self) -> float | None:
        """On the scans of which the training side holds no copy; None where there are none."""
        means = [
            each.correct[~copy].mean() for each, copy in zip(self.scores, self.has_copy, strict=True) if not copy.all()
        ]
        return float(np.mean(means)) if means else None

    @property
    def pooled(self) -> Scores:
        """All splits as one; a scan that stands on several test sides counts as often."""
        return Scores(
            labels=self.scores[0].labels,
            truth=np.concatenate([each.truth for each in self.scores]),
            probabilities=np.concatenate([each.probabilities for each in self.scores]),
        )


@dataclass(frozen=True, kw_only=True)
class Duel:
    """Two models on the test scans of the first split. p_value: McNemar's exact test, adjusted for all pairs (Holm)."""

    first: str
    second: str
    only_first_right: int
    only_second_right: int
    p_value: float


def ranked(contenders: Sequence[Contender]) -> list[Contender]:
    """The most accurate first."""
    return sorted(contenders, key=lambda one: -one.accuracy)


def duels(contenders: Sequence[Contender]) -> list[Duel]:
    """Every model against every other, in the order given."""
    pairs = list(combinations(contenders, 2))
    alone = [_alone(one.scores[0].correct, other.scores[0].correct) for one, other in pairs]
    adjusted = metrics.holm([metrics.mcnemar(*counts) for counts in alone])
    return [
        Duel(first=one.title, second=other.title, only_first_right=a, only_second_right=b, p_value=p)
        for (one, other), (a, b), p in zip(pairs, alone, adjusted, strict=True)
    ]


def _alone(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int]:
    return int((one & ~other).sum()), int((other & ~one).sum())


def comparison_table(contenders: Sequence[Contender]) -> pa.Table:
    """One row for each model and split. tp, fp, tn and fn are null where there are more classes than two."""
    return pa.Table.from_pylist([row for one in contenders for row in _rows(one)], schema=_SCHEMA)


_SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), False), pa.field("title", pa.string(), False), pa.field("split", pa.int32(), False),
        pa.field("train_scans", pa.int64()), pa.field("test_scans", pa.int64()), pa.field("accuracy", pa.float64()),
        pa.field("accuracy_low", pa.float64()), pa.field("accuracy_high", pa.float64()),
        pa.field("test_scans_with_copy", pa.int64()), pa.field("accuracy_without_copies", pa.float64()),
        pa.field("f1_macro", pa.float64()), pa.field("roc_auc_macro_ovr", pa.float64()), pa.field("loss", pa.float64()),
        pa.field("tp", pa.int64()), pa.field("fp", pa.int64()), pa.field("tn", pa.int64()), pa.field("fn", pa.int64()),
        pa.field("confusion", pa.list_(pa.list_(pa.int64()))), pa.field("chosen", pa.string()),
        pa.field("fit_s", pa.float64()), pa.field("scans_per_s", pa.float64()), pa.field("size_bytes", pa.int64()),
    ]
)  # fmt: skip


def _rows(one: Contender) -> list[dict[str, Any]]:
    rows = []
    for number, (scores, copy) in enumerate(zip(one.scores, one.has_copy, strict=True)):
        numbers, (low, high) = metrics.measure(scores), metrics.wilson_interval(int(scores.correct.sum()), len(copy))
        rows.append(
            {
                "model": one.name, "title": one.title, "split": number + 1, "train_scans": one.train_scans,
                "test_scans": len(copy), "accuracy": numbers["accuracy"], "accuracy_low": low, "accuracy_high": high,
                "test_scans_with_copy": int(copy.sum()),
                "accuracy_without_copies": None if copy.all() else float(scores.correct[~copy].mean()),
                "f1_macro": numbers["macro"]["f1"], "roc_auc_macro_ovr": numbers["roc_auc_macro_ovr"], "loss": numbers["loss"],
                **_outcomes(scores), "confusion": scores.confusion.tolist(), "chosen": json.dumps(dict(one.chosen[number])),
                "fit_s": one.seconds[number], "scans_per_s": one.scans_per_s, "size_bytes": one.size_bytes,
            }
        )  # fmt: skip
    return rows


def _outcomes(scores: Scores) -> dict[str, int]:
    """True and false positives and negatives of two classes, the second being the positive one."""
    if len(scores.labels) != 2:
        return {}
    (tn, fp), (fn, tp) = scores.confusion.tolist()
    return {"tp": tp, "fp": fp, "tn": tn, "fn": fn}


def _head(contenders: Sequence[Contender]) -> list[str]:
    pooled = ["TP", "FP", "TN", "FN"] if len(contenders[0].scores[0].labels) == 2 else []
    copies = ["Without copies"] if _some_have_copies(contenders) else []
    first = ["First split"] if _splits_differ(contenders) else []
    return [
        "Model",
        "Accuracy",
        "95% interval",
        *first,
        *copies,
        "Macro F1",
        *pooled,
        "Splits",
        "Fit",
        "Scans/s",
        "Size",
    ]


def _cells(one: Contender, contenders: Sequence[Contender]) -> list[str]:
    low, high = one.interval
    copies = [percent(one.accuracy_without_copies)] if _some_have_copies(contenders) else []
    first = [percent(one.accuracies[0])] if _splits_differ(contenders) else []
    outcomes = [f"{count:,}" for count in _outcomes(one.pooled).values()]
    return [one.title, percent(one.accuracy), f"{percent(low)} to {percent(high)}", *first, *copies,
            percent(metrics.measure(one.pooled)["macro"]["f1"]), *outcomes, str(len(one.scores)),
            _seconds(float(np.mean(one.seconds))), _rate(one.scans_per_s), f"{one.size_bytes / 1e6:,.1f} MB"]  # fmt: skip


def _splits_differ(contenders: Sequence[Contender]) -> bool:
    return len({len(one.scores) for one in contenders}) > 1


def _some_have_copies(contenders: Sequence[Contender]) -> bool:
    return any(copy.any() for one in contenders for copy in one.has_copy)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def markdown(contenders: Sequence[Contender], facts: Mapping[str, object]) -> str:
    """The table and what it stands on, as a Markdown file."""
    best = ranked(contenders)
    head = _head(contenders)
    lines = ["# Comparison", "", f"**{html.DISCLAIMER}**", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_cells(one, contenders))} |" for one in best]
    lines += ["", _legend(contenders), "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    if len(contenders) > 1:
        lines += ["| McNemar's exact test, first split | only the first right | only the second right | p (Holm) |",
                  "|---|---|---|---|"]  # fmt: skip
        lines += [f"| {d.first} – {d.second} | {d.only_first_right} | {d.only_second_right} | {_p(d.p_value)} |"
                  for d in duels(best)]  # fmt: skip
    return "\n".join(lines) + "\n"


def _legend(contenders: Sequence[Contender]) -> str:
    labels = contenders[0].scores[0].labels
    positive = f" Positive is {labels[1]}; TP, FP, TN and FN are summed over the splits." if len(labels) == 2 else ""
    same = (" Models on one split compare with the others on the first split only, and by McNemar's test; their interval tells nothing "
            "of how splits differ." if _splits_differ(contenders) else "")  # fmt: skip
    copies = (
        " Without copies: on the test scans of which no copy, and of whose patient no scan, was learnt from."
        if _some_have_copies(contenders)
        else ""
    )
    return ("Accuracy is the mean over the splits, its interval the corrected resampled t interval (Nadeau and Bengio 2003), "
            "Wilson's for one split. Fit: tuning and fitting on one split, classical models alone on one core, without reading the scans and computing their features. Scans/s: from decoded "
            f"pixels to probabilities.{positive}{same}{copies}")  # fmt: skip


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def comparison_page(contenders: Sequence[Contender], facts: Mapping[str, object], figures: Mapping[str, bytes]) -> str:
    """The page as HTML text, to be written as UTF-8; figures are PNG bytes by caption. Every text is escaped."""
    best = ranked(contenders)
    rows = [_cells(one, contenders) for one in best]
    tests = [(f"{d.first} – {d.second}", d.only_first_right, d.only_second_right, _p(d.p_value)) for d in duels(best)]
    tested = html.table(("First – second", "Only the first right", "Only the second right", "p (Holm)"), tests)
    sections = (
        html.section("Result", _tiles(best)),
        html.section("Models", html.table(_head(contenders), rows) + f"<p>{html.text(_legend(contenders))}</p>"),
        html.section("Figures", "".join(html.figure(caption, png) for caption, png in figures.items())),
        html.section("McNemar's exact test on the first split", tested) if tests else "",
        html.section("How it was compared", html.facts(facts)),
    )
    return html.document("Comparison of models", sections, _STYLE)


def _tiles(best: Sequence[Contender]) -> str:
    low, high = best[0].interval
    return html.tiles(
        (
            ("Most accurate", best[0].title, f"{percent(best[0].accuracy)}, 95% interval {percent(low)} to {percent(high)}"),
            ("Models", str(len(best)), f"on {max(len(one.scores) for one in best)} splits at most"),
            ("Test scans of a split", f"{len(best[0].scores[0].truth):,}", f"{best[0].train_scans:,} to learn from"),
        )
    )  # fmt: skip


_STYLE = """
.numbers :is(td, tbody th) { white-space: nowrap; font-size: .85rem }
.numbers :is(th, td):not(:first-child) { padding-left: .5rem; padding-right: .5rem }
"""
