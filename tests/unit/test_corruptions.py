"""The corruptions that a model is measured under: all kinds, seeded, and each changes the picture."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.corruptions import CORRUPTIONS, only_box, painted_out

SIDE = 64


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    tissue = 110 + 40 * np.sin(9 * x) * np.cos(7 * y) + 60 * ((x - 0.3) ** 2 + (y - 0.3) ** 2 < 0.02)
    return np.where(x**2 + 0.8 * y**2 < 0.7, tissue, 0).astype(np.uint8)


def test_there_are_17_kinds_at_two_strengths() -> None:
    assert len(CORRUPTIONS) == 17
    assert all(len(strengths) == 2 for strengths in CORRUPTIONS.values())


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_strength_changes_the_picture_and_the_same_seed_does_so_equally(
    kind: str, picture: NDArray[np.uint8]
) -> None:
    before = picture.copy()
    for change in CORRUPTIONS[kind]:
        first, again = (change(picture, np.random.default_rng(3)) for _ in range(2))
        assert (first.shape, first.dtype) == (picture.shape, np.uint8)
        assert np.abs(first.astype(float) - picture).mean() > 0.5
        np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(picture, before, err_msg="the scan itself stays as it is")


def test_a_painted_out_lesion_leaves_no_trace_and_the_rest_of_the_scan_as_it_is(picture: NDArray[np.uint8]) -> None:
    box = (0.55, 0.55, 0.75, 0.75)
    painted, alone = painted_out(picture, box), only_box(picture, box)
    assert picture.max() > 180
    inside = np.s_[37:46, 37:46]
    assert painted[inside].max() < 160
    np.testing.assert_array_equal(painted[:30], picture[:30])
    np.testing.assert_array_equal(alone[inside], picture[inside])
    assert alone[:30].max() == 0
