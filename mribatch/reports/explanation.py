"""Turn explanations of scans into one self-contained HTML page: each scan beside its map, and how far to trust maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mribatch.reports.gallery import Shown, scan_name, shown
from mribatch.reports.rendering import confidence, interval, render
from mribatch.statistics.pointing import Pointing, Verdict
from mribatch.statistics.shares import percent

__all__ = ["WORDS", "Explanation", "ExplanationPage", "explanation_page", "pictured", "pointing_rows"]

WORDS: Mapping[Verdict, str] = {
    Verdict.BEATS_CENTRE: "better than the centre of the image",
    Verdict.NO_BETTER: "no better than the centre of the image",
    Verdict.NOT_MEASURED: "not measured",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """A frame of a scan with its map, or why there is none.

    verdict: on the maps of the predicted class. peak: x and y as shares of width and height. picture, overlay: (h, w, 3)
    uint8 with the proportions of the scan. What is not known or not shown is None.
    """

    scan_uri: str
    scan_version: str
    frame: int
    status: str
    reason: str | None = None
    detail: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    predicted_class: str | None = None
    confidence: float | None = None
    verdict: Verdict = Verdict.NOT_MEASURED
    peak: tuple[float, float] | None = None
    picture: NDArray[np.uint8] | None = None
    overlay: NDArray[np.uint8] | None = None


@dataclass(frozen=True, kw_only=True)
class ExplanationPage:
    """The contents of the page.

    facts: what was explained and how, by name. pointing: by class, what was measured of this method's maps; classes
    without lesions are missing. files: what the page links to, with a word on the content of each.
    """

    title: str
    facts: Mapping[str, object]
    labels: Sequence[str]
    pointing: Mapping[str, Pointing]
    explanations: Sequence[Explanation]
    files: Mapping[str, str] = field(default_factory=dict)


def explanation_page(page: ExplanationPage) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text is escaped."""
    readable = [explanation for explanation in page.explanations if explanation.picture is not None]
    return render(
        "explanation.html",
        title=page.title,
        facts=page.facts,
        files=page.files,
        scans=len(readable),
        maps=sum(explanation.overlay is not None for explanation in readable),
        pointing=pointing_rows(page.labels, page.pointing),
        entries=[pictured(explanation) for explanation in readable],
        unread=[
            (scan_name(explanation.scan_uri, explanation.frame), f"{explanation.status}: {explanation.reason}")
            for explanation in page.explanations
            if explanation.picture is None
        ],
    )


def pointing_rows(labels: Sequence[str], pointing: Mapping[str, Pointing]) -> list[Sequence[object]]:
    """Return the cells of a table row for each class: boxes, rate, interval, rate of the centre, verdict."""
    return [_row(label, pointing[label]) if label in pointing else _unmeasured(label) for label in labels]


def _row(label: str, measured: Pointing) -> Sequence[object]:
    rate, centre = measured.right / measured.boxes, measured.centre / measured.boxes
    words = WORDS[measured.verdict]
    return label, measured.boxes, percent(rate), interval(measured.interval), percent(centre), words


def _unmeasured(label: str) -> Sequence[object]:
    return label, 0, "–", "–", "–", WORDS[Verdict.NOT_MEASURED]


def pictured(explanation: Explanation, note: str = "") -> Shown:
    """Return a scan beside its map with the model's answer, or alone with the reason why its map is not shown.

    The explanation has a picture. note: what else is known of the scan, such as its true class.
    """
    assert explanation.picture is not None and explanation.confidence is not None
    answer = f"{explanation.predicted_class} ({confidence(explanation.confidence)}){note}"
    words = WORDS[explanation.verdict]
    pictures = [(scan_name(explanation.scan_uri, explanation.frame), explanation.picture)]
    if explanation.overlay is None:
        return shown(f"{answer}: no map, because maps of this class are {words}", *pictures)
    warned = "" if explanation.verdict == Verdict.BEATS_CENTRE else f": maps of this class are {words}"
    return shown(f"{answer}{warned}", *pictures, ("its map", explanation.overlay))
