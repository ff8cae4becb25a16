"""The explanation page: maps beside their scans, measured rates, and texts of scans that never become markup."""

from typing import Any

import numpy as np
import pytest

from mribatch.reports.explanation import Explanation, ExplanationPage, explanation_page
from mribatch.reports.overlays import fitted, overlay
from mribatch.statistics.pointing import Pointing, Verdict
from tests.unit.test_page import HOSTILE, Document

PIXELS = np.full((30, 40, 3), 90, np.uint8)
POINTING = {"glioma": Pointing(boxes=50, right=40, centre=10), "pituitary": Pointing(boxes=50, right=9, centre=10)}


def explanation(**changes: Any) -> Explanation:
    given: dict[str, Any] = {
        "scan_uri": "s3://b/scans/glioma/a.jpg",
        "scan_version": "1",
        "frame": 0,
        "status": "ok",
        "predicted_class": "glioma",
        "confidence": 0.99999,
        "verdict": Verdict.BEATS_CENTRE,
        "peak": (0.5, 0.5),
        "picture": PIXELS,
        "overlay": PIXELS,
    }
    return Explanation(**given | changes)


def page(*explanations: Explanation, title: str = "Explanations") -> str:
    return explanation_page(
        ExplanationPage(
            title=title,
            facts={"method": "hires-cam"},
            labels=("glioma", "notumor", "pituitary"),
            pointing=POINTING,
            explanations=explanations or (explanation(),),
        )
    )


def test_each_scan_stands_beside_its_map_with_an_answer_that_is_never_certain() -> None:
    document = Document(page())
    assert [image["alt"] for image in document.all("img")] == ["scans/glioma/a.jpg", "its map"]
    assert [(image["width"], image["height"]) for image in document.all("img")] == [("40", "30")] * 2
    assert "glioma (> 99.9%)" in document.text["figcaption"]


def test_a_class_whose_maps_do_not_beat_the_centre_gets_a_sentence_in_place_of_a_map() -> None:
    for verdict, words in (
        (Verdict.NO_BETTER, "no map, because maps of this class are no better than the centre of the image"),
        (Verdict.NOT_MEASURED, "no map, because maps of this class are not measured"),
    ):
        document = Document(page(explanation(verdict=verdict, overlay=None, peak=None)))
        assert len(document.all("img")) == 1
        assert words in document.text["figcaption"]


def test_rates_of_all_classes_stand_beside_the_rate_of_the_centre() -> None:
    rows = Document(page()).rows
    assert ["glioma", "50", "80.00%", "66.96% to 88.76%", "20.00%", "better than the centre of the image"] in rows
    assert ["pituitary", "50", "18.00%", "9.77% to 30.80%", "20.00%", "no better than the centre of the image"] in rows
    assert ["notumor", "0", "–", "–", "–", "not measured"] in rows


def test_scans_that_cannot_be_read_are_listed() -> None:
    lost = explanation(status="rejected", reason="truncated", picture=None, overlay=None, confidence=None)
    document = Document(page(lost))
    assert ["scans/glioma/a.jpg", "rejected: truncated"] in document.rows
    assert "None." in document.text["section"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_never_become_markup(name: str) -> None:
    plain, document = Document(page()), Document(page(explanation(scan_uri=f"b/{name}"), title=name))
    assert {tag for tag, _ in document.elements} == {tag for tag, _ in plain.elements}
    assert document.text["title"] == name


# Overlays


def test_a_picture_gets_the_proportions_of_its_scan() -> None:
    square = np.zeros((90, 90, 3), np.uint8)
    assert fitted(square, 400, 200).shape == (45, 90, 3)
    assert fitted(square, 100, 300).shape == (90, 30, 3)
    assert fitted(square, 10_000, 16).shape == (1, 90, 3)


def test_the_map_is_stretched_over_the_picture_and_what_speaks_against_the_answer_is_not_drawn() -> None:
    values = np.zeros((10, 10), np.float32)
    values[:5, 5:] = 1
    values[5:, :5] = -3
    drawn = overlay(np.full((100, 200, 3), 90, np.uint8), values, None).astype(int)
    assert np.ptp(drawn[10:40, 120:190], axis=2).min() > 40
    assert (drawn[60:, :80] == 90).all()


def test_a_ring_marks_the_peak() -> None:
    dark = np.zeros((100, 100, 3), np.uint8)
    drawn = overlay(dark, np.zeros((4, 4), np.float32), (0.75, 0.25))
    rows, columns = np.nonzero(drawn.max(axis=2))
    assert (rows.mean(), columns.mean()) == pytest.approx((25, 75), abs=1)
    assert (overlay(dark, np.zeros((4, 4), np.float32), None) == 0).all()
