"""Report a comparison of models on the same splits: as an Arrow table, as Markdown and as an HTML page."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.reports.dots import Measured, panel
from mribatch.reports.rendering import DISCLAIMER, decimal, interval, render, visible
from mribatch.statistics import metrics
from mribatch.statistics.metrics import Scores
from mribatch.statistics.shares import percent

__all__ = ["Contender", "Duel", "comparison_page", "comparison_table", "duels", "markdown", "not_measured", "ranked"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """A model's results on one or more splits, the first split first.

    scores: for the test scans of each split; the same scans in the same order for all models.
    has_copy: (N,) bool per split, True if the training set has a near copy of the scan or another scan of the patient.
    seconds: time for tuning and fitting, per split. chosen: tuned parameters, per split.
    train_scans: number of training scans of the first split.
    scans_per_s: from decoded pixels to probabilities; size_bytes: on disk; both for the model of the first split.
    as_published: near copies were left on both sides. other: for scans of another source, by the first split's model.
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
    as_published: bool = False
    other: Scores | None = None

    @property
    def accuracies(self) -> list[float]:
        return [float(scores.correct.mean()) for scores in self.scores]

    @property
    def accuracy(self) -> float:
        """The mean over the splits."""
        return float(np.mean(self.accuracies))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy, see `metrics.repeated_interval`."""
        return metrics.repeated_interval(self.accuracies, train=self.train_scans, test=len(self.scores[0].truth))

    @property
    def accuracy_without_copies(self) -> float | None:
        """The mean accuracy on scans without a copy in the training set; None if all have one."""
        pairs = zip(self.scores, self.has_copy, strict=True)
        means = [scores.correct[~copy].mean() for scores, copy in pairs if not copy.all()]
        return float(np.mean(means)) if means else None

    @property
    def evidence(self) -> tuple[float | None, float | None, float | None]:
        """The accuracy as published, with groups apart and on another source; None where it was not measured."""
        published = self.accuracy if self.as_published else None
        other = None if self.other is None else float(self.other.correct.mean())
        return published, self.accuracy_without_copies, other

    @property
    def measured(self) -> tuple[Measured | None, Measured | None, Measured | None]:
        """`evidence` with 95% intervals."""
        published, apart, other = self.evidence
        return (
            None if published is None else Measured(published, self.interval),
            None if apart is None else Measured(apart, self._interval_apart),
            None if other is None or self.other is None else Measured(other, _wilson(self.other)),
        )

    @property
    def _interval_apart(self) -> tuple[float, float]:
        pairs = zip(self.scores, self.has_copy, strict=True)
        parts = [scores.correct[~copy] for scores, copy in pairs if not copy.all()]
        test = round(float(np.mean([len(part) for part in parts])))
        return metrics.repeated_interval([float(part.mean()) for part in parts], train=self.train_scans, test=test)

    @property
    def pooled(self) -> Scores:
        """The scores of all splits together; a scan in several test sets counts several times."""
        return Scores(
            labels=self.scores[0].labels,
            truth=np.concatenate([scores.truth for scores in self.scores]),
            probabilities=np.concatenate([scores.probabilities for scores in self.scores]),
        )


def _wilson(scores: Scores) -> tuple[float, float]:
    return metrics.wilson_interval(int(scores.correct.sum()), len(scores.truth))


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
    return sorted(contenders, key=lambda contender: -contender.accuracy)


def duels(contenders: Sequence[Contender]) -> list[Duel]:
    """Compare every model with every other, in the given order."""
    pairs = list(combinations(contenders, 2))
    correct = [(first.scores[0].correct, second.scores[0].correct) for first, second in pairs]
    discordant = [(int((a & ~b).sum()), int((b & ~a).sum())) for a, b in correct]
    adjusted = metrics.holm([metrics.mcnemar(*counts) for counts in discordant])
    return [
        Duel(first=first.title, second=second.title, only_first_right=a, only_second_right=b, p_value=p)
        for (first, second), (a, b), p in zip(pairs, discordant, adjusted, strict=True)
    ]


def comparison_table(contenders: Sequence[Contender]) -> pa.Table:
    """Return one row per model and split. tp, fp, tn and fn are null if there are more than two classes."""
    return pa.Table.from_pylist([row for contender in contenders for row in _rows(contender)], schema=_SCHEMA)


_SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), False),
        pa.field("title", pa.string(), False),
        pa.field("split", pa.int32(), False),
        pa.field("train_scans", pa.int64()),
        pa.field("test_scans", pa.int64()),
        pa.field("accuracy", pa.float64()),
        pa.field("accuracy_low", pa.float64()),
        pa.field("accuracy_high", pa.float64()),
        pa.field("test_scans_with_copy", pa.int64()),
        pa.field("accuracy_without_copies", pa.float64()),
        pa.field("accuracy_published", pa.float64()),
        pa.field("accuracy_groups_apart", pa.float64()),
        pa.field("accuracy_other_source", pa.float64()),
        pa.field("other_source_scans", pa.int64()),
        pa.field("f1_macro", pa.float64()),
        pa.field("roc_auc_macro_ovr", pa.float64()),
        pa.field("loss", pa.float64()),
        pa.field("tp", pa.int64()),
        pa.field("fp", pa.int64()),
        pa.field("tn", pa.int64()),
        pa.field("fn", pa.int64()),
        pa.field("confusion", pa.list_(pa.list_(pa.int64()))),
        pa.field("chosen", pa.string()),
        pa.field("fit_s", pa.float64()),
        pa.field("scans_per_s", pa.float64()),
        pa.field("size_bytes", pa.int64()),
    ]
)


def _rows(contender: Contender) -> list[dict[str, Any]]:
    rows = []
    for index, (scores, copy) in enumerate(zip(contender.scores, contender.has_copy, strict=True)):
        numbers = metrics.measure(scores)
        low, high = numbers["accuracy_95"]
        apart = None if copy.all() else float(scores.correct[~copy].mean())
        elsewhere = contender.other if index == 0 else None  # the first split's model alone was tried there
        rows.append(
            {
                "model": contender.name,
                "title": contender.title,
                "split": index + 1,
                "train_scans": contender.train_scans,
                "test_scans": len(copy),
                "accuracy": numbers["accuracy"],
                "accuracy_low": low,
                "accuracy_high": high,
                "test_scans_with_copy": int(copy.sum()),
                "accuracy_without_copies": apart,
                "accuracy_published": numbers["accuracy"] if contender.as_published else None,
                "accuracy_groups_apart": apart,
                "accuracy_other_source": None if elsewhere is None else float(elsewhere.correct.mean()),
                "other_source_scans": None if elsewhere is None else len(elsewhere.truth),
                "f1_macro": numbers["macro"]["f1"],
                "roc_auc_macro_ovr": numbers["roc_auc_macro_ovr"],
                "loss": numbers["loss"],
                **_outcomes(scores),
                "confusion": scores.confusion.tolist(),
                "chosen": json.dumps(dict(contender.chosen[index])),
                "fit_s": contender.seconds[index],
                "scans_per_s": contender.scans_per_s,
                "size_bytes": contender.size_bytes,
            }
        )
    return rows


def _outcomes(scores: Scores) -> dict[str, int]:
    """Return true and false positives and negatives; the second of two classes is the positive one."""
    if len(scores.labels) != 2:
        return {}
    (tn, fp), (fn, tp) = scores.confusion.tolist()
    return {"tp": tp, "fp": fp, "tn": tn, "fn": fn}


_EVIDENCE = ("As published", "Groups apart", "Other source")


def _head(contenders: Sequence[Contender]) -> list[str]:
    """Return the names of the columns that `_cells` fills."""
    first = ["First split"] if _splits_differ(contenders) else []
    outcomes = ["TP", "FP", "TN", "FN"] if len(contenders[0].scores[0].labels) == 2 else []
    last = ["Splits", "Fit", "Scans/s", "Size"]
    return ["Model", *_EVIDENCE, "95% interval", *first, "Macro F1", *outcomes, *last]


def _cells(contender: Contender, contenders: Sequence[Contender]) -> list[str]:
    first = [percent(contender.accuracies[0])] if _splits_differ(contenders) else []
    pooled, seconds, rate = contender.pooled, float(np.mean(contender.seconds)), contender.scans_per_s
    return [
        contender.title,
        *map(percent, contender.evidence),
        interval(contender.interval),
        *first,
        percent(metrics.measure(pooled)["macro"]["f1"]),
        *(f"{count:,}" for count in _outcomes(pooled).values()),
        str(len(contender.scores)),
        f"{seconds:,.0f} s",
        f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}",
        f"{contender.size_bytes / 1e6:,.1f} MB",
    ]


def _splits_differ(contenders: Sequence[Contender]) -> bool:
    return len({len(contender.scores) for contender in contenders}) > 1


_DUEL_NOTE = "McNemar's exact test on the first split; p-values are adjusted for the number of pairs (Holm)."
_DUEL_HEAD = ("Model A", "Model B", "Only A correct", "Only B correct", "p")


def _duel_rows(contenders: Sequence[Contender]) -> list[tuple[str, str, int, int, str]]:
    return [
        (duel.first, duel.second, duel.only_first_right, duel.only_second_right, decimal(duel.p_value))
        for duel in duels(contenders)
    ]


def markdown(contenders: Sequence[Contender], facts: Mapping[str, object]) -> str:
    """Return the comparison as a Markdown file. Every text is escaped."""
    best = ranked(contenders)
    blocks = [
        ["# Comparison of models"],
        [f"**{DISCLAIMER}**"],
        _markdown_table(_head(contenders), [_cells(contender, contenders) for contender in best]),
        ["## Notes"],
        [f"- {_escaped(note)}" for note in _notes(contenders)],
        ["## Setup"],
        [f"- {_escaped(name)}: {_escaped(value)}" for name, value in facts.items()],
    ]
    if len(contenders) > 1:
        blocks += [["## Pairwise tests"], [_DUEL_NOTE], _markdown_table(_DUEL_HEAD, _duel_rows(best))]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines) + "\n"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(map(_escaped, cells)) + " |" for cells in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def _escaped(value: object) -> str:
    """Return a value as Markdown text in which nothing is markup."""
    return re.sub(r"([\\`*<|\[])", r"\\\1", str(visible(str(value))))


_NOTES = (
    "As published: accuracy on test scans with near copies of training scans among them, which mostly measures how well slices "
    "are recognized. Groups apart: on test scans without a near copy, and without another scan of the same patient, in the "
    "training set. Both are means over the splits. Other source: of the first split's model, on scans from elsewhere.",
    "95% interval: of the first of these figures; corrected resampled t interval (Nadeau and Bengio 2003), or Wilson's for "
    "a single split.",
    "Fit: time to tune and fit on one split, without reading scans or computing features. Classical models use one core.",
    "Scans/s: from decoded pixels to probabilities.",
)
_SINGLE_SPLIT_NOTE = (
    "Compare models with a single split with the others on the first split only, by its column or McNemar's test. Their "
    "interval does not cover the variation between splits."
)


def _notes(contenders: Sequence[Contender]) -> list[str]:
    """Return the explanations of the table's columns."""
    labels, notes = contenders[0].scores[0].labels, [*_NOTES, *not_measured(contenders)]
    if len(labels) == 2:
        notes.append(f"TP, FP, TN, FN: summed over the splits. Positive is {labels[1]}.")
    if _splits_differ(contenders):
        notes.append(_SINGLE_SPLIT_NOTE)
    return notes


def not_measured(contenders: Sequence[Contender]) -> list[str]:
    """Return a line for each of the three accuracies that was not measured, with what to do."""
    published, apart, other = zip(*(contender.evidence for contender in contenders), strict=True)
    lines = [
        (published, "As published: not measured; run again with --paper-protocol and another --output."),
        (apart, "Groups apart: no evidence, each test scan has a near copy in the training set."),
        (other, "Other source: not measured; pass --other-source URI, labelled scans from elsewhere."),
    ]
    return [line for figures, line in lines if None in figures]


def comparison_page(
    contenders: Sequence[Contender], facts: Mapping[str, object], files: Mapping[str, str] | None = None
) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text is escaped.

    files: what the page links to, by path relative to the page, with a word on the content of each.
    """
    best, head = ranked(contenders), _head(contenders)
    rows, cut = [_cells(contender, contenders) for contender in best], head.index("Macro F1") + 1
    names = [contender.title for contender in best]
    columns = zip(_EVIDENCE, zip(*(contender.measured for contender in best), strict=True), strict=True)
    return render(
        "comparison.html",
        title="Comparison of models",
        best=best[0],
        splits=max(len(contender.scores) for contender in best),
        panels=[drawn for title, values in columns if (drawn := panel(title, names, values))],
        confusions=[_confusion(contender) for contender in best],
        head=head[:cut],
        models=[row[:cut] for row in rows],
        cost_head=[head[0], *head[cut:]],
        costs=[[row[0], *row[cut:]] for row in rows],
        notes=_notes(contenders),
        duel_note=_DUEL_NOTE,
        duel_head=_DUEL_HEAD,
        duels=_duel_rows(best),
        setup=facts,
        files=files,
    )


def _confusion(contender: Contender) -> dict[str, object]:
    """Return the confusion matrix of all splits: each row's label and scans, and its cells with their shares."""
    scores = contender.pooled
    counts, right = scores.confusion, int(scores.correct.sum())
    rows = [
        (label, int(row.sum()), [(int(count), float(count / max(row.sum(), 1))) for count in row])
        for label, row in zip(scores.labels, counts, strict=True)
    ]
    return {"title": contender.title, "labels": scores.labels, "rows": rows, "wrong": len(scores.truth) - right}
