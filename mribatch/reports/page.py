"""An evaluation becomes one HTML page that needs nothing else: no script, no request, no template engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from mribatch.reports import html
from mribatch.reports.html import DISCLAIMER, decimal, percent

__all__ = ["DISCLAIMER", "Counts", "Evaluation", "Mistake", "evaluation_page"]


class Counts(TypedDict):
    """What became of the scans; `rejected` counts them by reason code."""

    scans: int
    ok: int
    rejected: Mapping[str, int]
    failed: int


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A scan whose predicted class is not its true one; confidence is the probability of the predicted one."""

    scan_uri: str
    truth: str
    predicted: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the page shows, in its order.

    model: facts by name (name, digest, backbone, image side …), shown as they are.
    numbers: what `metrics.measure` returned.
    figures: PNG bytes by caption, shown in the mapping's order; the caption is the text for who cannot see them.
    """

    title: str
    model: Mapping[str, object]
    counts: Counts
    numbers: Mapping[str, Any]
    mistakes: Sequence[Mistake] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)


def evaluation_page(evaluation: Evaluation) -> str:
    """The page as HTML text, to be written as UTF-8. Every text of the evaluation is escaped.

    Raises InputError for a figure that is not PNG.
    """
    figures = [html.figure(caption, png) for caption, png in evaluation.figures.items()]
    sections = (
        html.section("Result", _headline(evaluation.numbers)),
        html.section("Classes", _classes(evaluation.numbers)),
        html.section("Confusion matrix", _confusion(evaluation.numbers["confusion_matrix"]), "beside"),
        html.section("Scans", _counts(evaluation.counts), "beside"),
        html.section("Mistakes", _mistakes(evaluation.mistakes)),
        html.section("Figures", "".join(figures)) if figures else "",
        html.section("Model", html.facts(evaluation.model)),
    )
    return html.document(evaluation.title, sections)


def _headline(numbers: Mapping[str, Any]) -> str:
    low, high = numbers["accuracy_95"]
    return html.tiles(
        (
            ("Accuracy", percent(numbers["accuracy"]), f"95% interval {percent(low)} to {percent(high)} (Wilson)"),
            ("Macro F1", percent(numbers["macro"]["f1"]), "mean over the classes"),
            ("Macro ROC-AUC", decimal(numbers["roc_auc_macro_ovr"]), "one class against the rest"),
            ("Loss", decimal(numbers["loss"]), "cross-entropy, nats per scan"),
            ("Calibration error", decimal(numbers["expected_calibration_error"]), "expected, 0 is best"),
        )
    )


def _counts(counts: Counts) -> str:
    rejected = sum(counts["rejected"].values())
    rows = [
        ("Listed", counts["scans"]),
        ("Scored", counts["ok"]),
        ("Rejected, the scan's own fault", rejected),
        *((f"– {reason}", count) for reason, count in sorted(counts["rejected"].items())),
        ("Failed, the storage's or machine's fault", counts["failed"]),
    ]
    return html.table(("Outcome", "Scans"), rows)


def _classes(numbers: Mapping[str, Any]) -> str:
    def row(name: str, values: Mapping[str, Any], support: int, area: float | None) -> tuple[str | int, ...]:
        ratios = (percent(values[key]) for key in ("precision", "recall", "f1"))
        return (name, *ratios, decimal(area), support)

    rows = [row(name, one, one["support"], one["roc_auc"]) for name, one in numbers["per_class"].items()]
    averages = [
        row("Macro average", numbers["macro"], numbers["scans"], numbers["roc_auc_macro_ovr"]),
        row("Weighted average", numbers["weighted"], numbers["scans"], None),
    ]
    return html.table(("Class", "Precision", "Recall", "F1", "ROC-AUC", "Scans"), rows, averages)


def _confusion(matrix: Mapping[str, Any]) -> str:
    labels, counts = matrix["labels"], matrix["counts"]
    rows = [(label, *row) for label, row in zip(labels, counts, strict=True)]
    return "<p>Rows are true classes, columns predicted ones.</p>" + html.table(("True class", *labels), rows)


def _mistakes(mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return "<p>None.</p>"
    rows = [(one.scan_uri, one.truth, one.predicted, percent(one.confidence)) for one in mistakes]
    return html.table(("Scan", "True class", "Predicted class", "Confidence"), rows, kind="texts")
