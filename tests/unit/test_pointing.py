"""The pointing game: peaks, boxes, and the verdict on whether maps beat the centre of the image."""

import numpy as np
import pytest

from mribatch.models.format import Model
from mribatch.models.pointing import pointing_facts, pointing_of
from mribatch.statistics.pointing import Pointing, Verdict, inside, peak_of, peaks, pointing_by_class, verdict_of


def test_a_peak_is_given_in_shares_of_width_and_height_at_the_centre_of_its_pixel() -> None:
    maps = np.zeros((2, 2, 4), np.float32)
    maps[0, 1, 3] = maps[1, 0, 0] = 0.5
    assert peaks(maps).tolist() == [[0.875, 0.75], [0.125, 0.25]]
    assert peak_of(maps[0]) == (0.875, 0.75)


def test_a_map_that_is_zero_everywhere_has_no_peak() -> None:
    assert peak_of(np.zeros((3, 3), np.float32)) is None


def test_a_point_on_the_edge_of_its_box_is_inside() -> None:
    boxes = np.array([[0.2, 0.3, 0.5, 0.6]] * 5)
    points = np.array([[0.2, 0.3], [0.5, 0.6], [0.35, 0.45], [0.19, 0.4], [0.3, 0.61]])
    assert inside(points, boxes).tolist() == [True, True, True, False, False]


def test_hits_of_the_maps_and_of_the_centre_are_counted_by_class() -> None:
    boxes = np.array([[0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.2, 0.2], [0.1, 0.1, 0.3, 0.3]])
    points = np.array([[0.9, 0.9], [0.1, 0.1], [0.2, 0.2]])
    assert pointing_by_class(points, boxes, ["a", "a", "b"]) == {
        "a": Pointing(boxes=2, right=1, centre=1),
        "b": Pointing(boxes=1, right=1, centre=0),
    }


@pytest.mark.parametrize(
    ("right", "centre", "verdict"),
    [
        (45, 12, Verdict.BEATS_CENTRE),
        (14, 12, Verdict.NO_BETTER),  # the 95% interval of 14 of 50 reaches down to 17%
        (5, 20, Verdict.NO_BETTER),
    ],
)
def test_maps_beat_the_centre_only_if_the_interval_of_their_rate_lies_above_its_rate(
    right: int, centre: int, verdict: Verdict
) -> None:
    assert Pointing(boxes=50, right=right, centre=centre).verdict == verdict


def test_a_class_without_lesions_or_with_a_few_is_not_measured() -> None:
    assert Pointing(boxes=0, right=0, centre=0).verdict == Verdict.NOT_MEASURED
    assert Pointing(boxes=19, right=19, centre=0).verdict == Verdict.NOT_MEASURED
    assert verdict_of({"glioma": Pointing(boxes=50, right=45, centre=5)}, "notumor") == Verdict.NOT_MEASURED


def test_rates_are_kept_in_model_json_for_one_model_and_one_method(tiny_model: Model) -> None:
    counts = {"glioma": Pointing(boxes=50, right=45, centre=12)}
    pointing = pointing_facts(tiny_model.digest, {"hires-cam": counts}, "python benchmarks/pointing.py")
    measured = Model(uri="m", facts=tiny_model.facts | {"pointing": pointing})
    assert measured.digest == tiny_model.digest
    assert pointing_of(measured, "hires-cam") == counts
    assert pointing_of(measured, "grad-cam") == {}
    assert pointing_of(tiny_model, "hires-cam") == {}
    other = Model(uri="m", facts=measured.facts | {"labels": ["glioma", "other"]})
    assert pointing_of(other, "hires-cam") == {}, "it was measured with another model"
