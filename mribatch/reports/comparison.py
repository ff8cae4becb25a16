"""Compare models on the same splits: as an Arrow table, as Markdown and as an HTML page."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.reports.rendering import DISCLAIMER, decimal, interval, picture, render, visible
from mribatch.statistics import metrics
from mribatch.statistics.metrics import Scores, percent

__all__ = ["Contender", "Duel", "comparison_page", "comparison_table", "duels", "markdown", "ranked"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """One model on one or more splits, starting with the first split.

    scores: its answers for each split's test scans; all models get the same scans in the same order.
    has_copy: (N,) bool per split, True if the training set holds a copy of the scan or another scan of the patient.
    seconds: time for tuning and fitting, per split. chosen: tuned parameters, per split.
    train_scans: training scans of the first split.
    scans_per_s: from decoded pixels to probabilities; size_bytes: on disk; both for the model of the first split.
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
        """The mean accuracy on scans without a copy in the training set; None if all have one."""
        means = [
            each.correct[~copy].mean() for each, copy in zip(self.scores, self.has_copy, strict=True) if not copy.all()
        ]
        return float(np.mean(means)) if means else None

    @property
    def pooled(self) -> Scores:
        """All splits in one; a scan in several test sets counts several times."""
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
    """Return the models sorted by accuracy, best first."""
    return sorted(contenders, key=lambda one: -one.accuracy)


def duels(contenders: Sequence[Contender]) -> list[Duel]:
    """Compare every model with every other, in the given order."""
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
    """Return one row per model and split. tp, fp, tn and fn are null if there are more than two classes."""
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
    """Return true and false positives and negatives; the second of two classes is the positive one."""
    if len(scores.labels) != 2:
        return {}
    (tn, fp), (fn, tp) = scores.confusion.tolist()
    return {"tp": tp, "fp": fp, "tn": tn, "fn": fn}


def _head(contenders: Sequence[Contender]) -> list[str]:
    first = ["First split"] if _splits_differ(contenders) else []
    copies = ["Without copies"] if _some_have_copies(contenders) else []
    pooled = ["TP", "FP", "TN", "FN"] if len(contenders[0].scores[0].labels) == 2 else []
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
    first = [percent(one.accuracies[0])] if _splits_differ(contenders) else []
    copies = [percent(one.accuracy_without_copies)] if _some_have_copies(contenders) else []
    pooled = one.pooled
    return [
        one.title,
        percent(one.accuracy),
        interval(one.interval),
        *first,
        *copies,
        percent(metrics.measure(pooled)["macro"]["f1"]),
        *(f"{count:,}" for count in _outcomes(pooled).values()),
        str(len(one.scores)),
        _seconds(float(np.mean(one.seconds))),
        _rate(one.scans_per_s),
        f"{one.size_bytes / 1e6:,.1f} MB",
    ]


def _splits_differ(contenders: Sequence[Contender]) -> bool:
    return len({len(one.scores) for one in contenders}) > 1


def _some_have_copies(contenders: Sequence[Contender]) -> bool:
    return any(copy.any() for one in contenders for copy in one.has_copy)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def markdown(contenders: Sequence[Contender], facts: Mapping[str, object]) -> str:
    """Return the comparison as a Markdown file. Every text is escaped."""
    best, head = ranked(contenders), _head(contenders)
    blocks = [
        ["# Comparison of models"],
        [f"**{DISCLAIMER}**"],
        _markdown_table(head, [_cells(one, contenders) for one in best]),
        ["## Notes"],
        [f"- {_escaped(note)}" for note in _notes(contenders)],
        ["## Setup"],
        [f"- {_escaped(name)}: {_escaped(value)}" for name, value in facts.items()],
    ]
    if len(contenders) > 1:
        rows = [(d.first, d.second, d.only_first_right, d.only_second_right, decimal(d.p_value)) for d in duels(best)]
        blocks.append(["## Pairwise tests"])
        blocks.append(
            ["McNemar's exact test on the first split; p-values are adjusted for the number of pairs (Holm)."]
        )
        blocks.append(_markdown_table(("Model A", "Model B", "Only A correct", "Only B correct", "p"), rows))
    return "\n\n".join("\n".join(lines) for lines in blocks if lines) + "\n"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(map(_escaped, cells)) + " |" for cells in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def _escaped(value: object) -> str:
    """Return a value as Markdown text in which nothing is markup."""
    return re.sub(r"([\\`*<|\[])", r"\\\1", str(visible(str(value))))


def _notes(contenders: Sequence[Contender]) -> list[str]:
    """Return what a reader has to know about the columns of the table."""
    labels = contenders[0].scores[0].labels
    notes = [
        "Accuracy: mean over the splits. 95% interval: corrected resampled t interval (Nadeau and Bengio 2003), or "
        "Wilson's for a single split.",
        "Fit: time to tune and fit on one split, without reading scans and computing features. Classical models use one core.",
        "Scans/s: from decoded pixels to probabilities.",
    ]
    if len(labels) == 2:
        notes.append(f"TP, FP, TN, FN: summed over the splits. Positive is {labels[1]}.")
    if _splits_differ(contenders):
        notes.append(
            "Models with a single split compare with the others on the first split only, by column or by McNemar's test. "
            "Their interval does not cover the variation between splits."
        )
    if _some_have_copies(contenders):
        notes.append(
            "Without copies: accuracy on test scans with no copy, and no other scan of the same patient, in the training set."
        )
    return notes


def comparison_page(contenders: Sequence[Contender], facts: Mapping[str, object], figures: Mapping[str, bytes]) -> str:
    """Return the page as HTML text, to be written as UTF-8; figures are PNG bytes by caption. Every text is escaped."""
    best = ranked(contenders)
    return render(
        "comparison.html",
        title="Comparison of models",
        best=best[0],
        splits=max(len(one.scores) for one in best),
        head=_head(contenders),
        models=[_cells(one, contenders) for one in best],
        notes=_notes(contenders),
        pictures=[picture(caption, png) for caption, png in figures.items()],
        duels=duels(best),
        setup=facts,
    )
