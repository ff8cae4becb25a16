"""Write an evaluation as one self-contained HTML page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from mribatch.reports.gallery import Shown
from mribatch.reports.rendering import DISCLAIMER, Picture, interval, picture, proportion, render
from mribatch.statistics.shares import percent

__all__ = [
    "DISCLAIMER",
    "EVIDENCE",
    "Evaluation",
    "Mistake",
    "OutcomeCounts",
    "apart_line",
    "evaluation_page",
    "right_of",
]

EVIDENCE: Mapping[str, str] = {
    "published": "as published",
    "groups_apart": "groups apart",
    "other_source": "other source",
}
"""The three sets of scans that a model is judged on, by their keys in metrics.json."""

NO_EVIDENCE = "no evidence"


class OutcomeCounts(TypedDict):
    """Numbers of scans by outcome; rejected, skipped: by reason code."""

    scans: int
    ok: int
    rejected: Mapping[str, int]
    skipped: Mapping[str, int]
    failed: int


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A misclassified scan. confidence: probability of the predicted class. picture: None beyond the first ones."""

    scan_uri: str
    truth: str
    predicted: str
    confidence: float
    picture: Picture | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The contents of the page.

    model: facts by name (digest, backbone, image side …), shown as they are.
    numbers: from `metrics.measure`, and `rates`, `precision_recall`, `patients` and `subgroups` from `breakdown`.
    evidence: the figures on each set of EVIDENCE, as in metrics.json; none for a page without that section.
    mistakes: sorted by the probability of the true class, lowest first.
    maps: some of the mistakes with the maps of their answers.
    figures: charts as PNG bytes by caption, shown in this order; the caption is also the alternative text.
    scans: a figure with pictures of scans, as caption and PNG bytes.
    files: what the page links to, by path relative to the page, with a word on the content of each.
    """

    title: str
    model: Mapping[str, object]
    counts: OutcomeCounts
    numbers: Mapping[str, Any]
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mistakes: Sequence[Mistake] = ()
    maps: Sequence[Shown] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)
    scans: tuple[str, bytes] | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def evaluation_page(evaluation: Evaluation) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text of the evaluation is escaped.

    Raises InputError for a figure that is not PNG.
    """
    measured = {title: evaluation.evidence[key] for key, title in EVIDENCE.items() if key in evaluation.evidence}
    return render(
        "evaluation.html",
        title=evaluation.title,
        model=evaluation.model,
        counts=evaluation.counts,
        numbers=evaluation.numbers,
        evidence=[_evidence_row(title, result) for title, result in measured.items()],
        abouts=[_about(title, result) for title, result in measured.items()],
        evidence_classes=_class_rows(evaluation.numbers["per_class"], measured),
        mistakes=evaluation.mistakes,
        maps=evaluation.maps,
        charts=[picture(caption, png) for caption, png in evaluation.figures.items()],
        scans=evaluation.scans and picture(*evaluation.scans),
        files=evaluation.files,
        **_breakdown(evaluation.numbers),
    )


def _breakdown(numbers: Mapping[str, Any]) -> dict[str, object]:
    """Return the rows of the tables by class, threshold, patient and subgroup."""
    per_class, points, patients = numbers["rates"], numbers["precision_recall"], numbers["patients"]
    return {
        "rates": [
            [label, row["sensitivity"]["of"], *map(proportion, row.values())] for label, row in per_class.items()
        ],
        "thresholds": {
            label: [_threshold(row) for row in measured["thresholds"]] for label, measured in points.items()
        },
        "patient_rows": [
            [label, row["of"], row["scans"], proportion(row)]
            for label, row in [("All", patients["right"]), *patients["per_class"].items()]
        ]
        if patients
        else [],
        "subgroups": [
            [name, value, row["of"], row["scans"], proportion(row)]
            for name, values in numbers["subgroups"].items()
            for value, row in values.items()
        ],
    }


def _threshold(row: Mapping[str, Any]) -> list[object]:
    names = ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value")
    return [f"{row['threshold']:.2f}", row["called"], *(proportion(row[name]) for name in names)]


def right_of(counts: Mapping[str, int]) -> str:
    """Return how many of some scans are right, such as 149 of 151, or that there is no evidence without scans."""
    return f"{counts['right']:,} of {counts['scans']:,}" if counts["scans"] else NO_EVIDENCE


def _evidence_row(title: str, result: Mapping[str, Any]) -> list[str]:
    if "not_measured" in result:
        return [title, "not measured", "–", "–", "–", "–"]
    if not result["scans"]:
        return [title, NO_EVIDENCE, "–", "–", "–", "–"]
    return [
        title,
        right_of(result),
        percent(result["accuracy"]),
        interval(result["accuracy_95"]),
        percent(result["balanced_accuracy"]),
        percent(result["mean_confidence"]),
    ]


def _about(title: str, result: Mapping[str, Any]) -> str:
    if "not_measured" in result:
        return f"{title.capitalize()}: {result['not_measured']}."
    left_out = result.get("left_out", 0)
    blind = result.get("not_compared", 0)
    notes = [f"{title.capitalize()}: {result['about']}"]
    notes += [f"Near copies of training scans left out: {left_out:,}."] * bool(left_out)
    notes += [f"Training scans that were not compared: {blind:,}."] * bool(blind)
    return " ".join(notes)


def _class_rows(labels: Iterable[str], measured: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the right answers of each class on each set."""
    return [[label, *(_class_cell(result, label) for result in measured.values())] for label in labels]


def _class_cell(result: Mapping[str, Any], label: str) -> str:
    return "not measured" if "not_measured" in result else right_of(result["per_class"][label])


def apart_line(apart: Mapping[str, int]) -> str:
    """Say what --apart-from did, from its numbers in metrics.json."""
    ignored = f" (not its {apart['test_scans_ignored']:,} test scans)" if apart["test_scans_ignored"] else ""
    return (
        f"--apart-from: {apart['scans']:,} scans read{ignored}, {apart['left_out']:,} of the {apart['evaluated']:,} "
        "evaluated scans are copies of them and were left out"
    )
