"""Turn an evaluation into one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from mribatch.reports.rendering import DISCLAIMER, picture, render

__all__ = ["DISCLAIMER", "Counts", "Evaluation", "Mistake", "evaluation_page"]


class Counts(TypedDict):
    """Scans by outcome; `rejected` counts them by reason code."""

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
    mistakes: least probable true class first.
    figures: PNG bytes by caption, in the order of the mapping; the caption is also the alternative text.
    """

    title: str
    model: Mapping[str, object]
    counts: Counts
    numbers: Mapping[str, Any]
    mistakes: Sequence[Mistake] = ()
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
        pictures=[picture(caption, png) for caption, png in evaluation.figures.items()],
    )
