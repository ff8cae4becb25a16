"""Write an evaluation as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from mribatch.reports.gallery import Shown
from mribatch.reports.rendering import DISCLAIMER, picture, render

__all__ = ["DISCLAIMER", "Evaluation", "Mistake", "OutcomeCounts", "evaluation_page"]


class OutcomeCounts(TypedDict):
    """Numbers of scans by outcome; rejected: by reason code."""

    scans: int
    ok: int
    rejected: Mapping[str, int]
    failed: int


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A misclassified scan. confidence: probability of the predicted class."""

    scan_uri: str
    truth: str
    predicted: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The contents of the page.

    model: facts by name (digest, backbone, image side …), shown as they are.
    numbers: from `metrics.measure`.
    mistakes: sorted by the probability of the true class, lowest first.
    maps: some of the mistakes with the maps of their answers.
    figures: PNG bytes by caption, shown in the order of the mapping; the caption is also the alternative text.
    """

    title: str
    model: Mapping[str, object]
    counts: OutcomeCounts
    numbers: Mapping[str, Any]
    mistakes: Sequence[Mistake] = ()
    maps: Sequence[Shown] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)


def evaluation_page(evaluation: Evaluation) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text of the evaluation is escaped.

    Raises InputError for a figure that is not PNG.
    """
    return render(
        "evaluation.html",
        title=evaluation.title,
        model=evaluation.model,
        counts=evaluation.counts,
        numbers=evaluation.numbers,
        mistakes=evaluation.mistakes,
        maps=evaluation.maps,
        pictures=[picture(caption, png) for caption, png in evaluation.figures.items()],
    )
