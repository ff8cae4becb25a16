"""Drift: an ordinary night raises no alarm, however small; a different mix of scans does; values computed by hand."""

from math import log
from typing import Any

import numpy as np
import pytest

from mribatch.errors import InputError
from mribatch.statistics.drift import (
    CONFIDENCE_EDGES,
    CONFIDENCE_RANGES,
    Drift,
    confidence_counts,
    drift,
    population_stability_index,
)

pytestmark = pytest.mark.filterwarnings("error")

CLASS_MIX = (0.23, 0.24, 0.28, 0.25)
CONFIDENCE_MIX = (0.005, 0.005, 0.01, 0.01, 0.02, 0.03, 0.07, 0.15, 0.70)
SHARP_MIX = (0.0002, 0.0005, 0.001, 0.001, 0.002, 0.005, 0.01, 0.03, 0.9503)


def nights(mix: Any, scans: int, count: int = 10, seed: int = 0) -> list[list[int]]:
    drawn: list[list[int]] = np.random.default_rng(seed).multinomial(scans, mix, count).tolist()
    return drawn


@pytest.mark.parametrize("scans", [5, 20, 50, 200, 1000, 5000])
@pytest.mark.parametrize("mix", [CLASS_MIX, CONFIDENCE_MIX, SHARP_MIX])
def test_ten_ordinary_nights_of_any_size_raise_no_alarm(mix: tuple[float, ...], scans: int) -> None:
    drawn = np.array(nights(mix, scans, 7 + 10))
    drifts = [drift(drawn[night - 7 : night].sum(axis=0), drawn[night]) for night in range(7, len(drawn))]
    assert [result.level for result in drifts] == ["none"] * 10


def test_chance_alone_exceeds_the_noise_about_once_in_a_thousand_nights() -> None:
    before, tonight = nights(CLASS_MIX, 3000, 20_000, seed=2), nights(CLASS_MIX, 400, 20_000, seed=3)
    drifts = [drift(a, b) for a, b in zip(before, tonight, strict=True)]
    above = sum((result.index or 0) > (result.noise or 0) for result in drifts)
    assert 8 <= above <= 40  # 20 expected, four standard deviations


def test_twenty_scans_exceed_the_customary_thresholds_by_chance_and_raise_no_alarm() -> None:
    drifts = [drift(nights(CLASS_MIX, 5000, 1)[0], tonight) for tonight in nights(CLASS_MIX, 20, 50)]
    assert max(result.index or 0 for result in drifts) > 0.25
    assert {result.level for result in drifts} == {"none"}


def test_another_class_mix_is_major() -> None:
    result = drift([2300, 2400, 2800, 2500], [600, 100, 200, 100])
    assert result.level == "major"
    assert result.index is not None and result.index > 0.25


def test_a_somewhat_different_mix_is_moderate() -> None:
    assert drift([2500, 2500, 2500, 2500], [180, 320, 180, 320]).level == "none"  # 0.08
    assert drift([2500, 2500, 2500, 2500], [165, 335, 165, 335]).level == "moderate"  # 0.12


def test_a_small_difference_beyond_chance_raises_no_alarm() -> None:
    result = drift([250_000, 250_000], [240_000, 260_000])
    assert result.index is not None and result.noise is not None
    assert result.noise < result.index < 0.1
    assert result.level == "none"


def test_thresholds_can_be_chosen() -> None:
    before, tonight = [2500, 2500, 2500, 2500], [165, 335, 165, 335]
    assert drift(before, tonight, moderate=0.2).level == "none"
    assert drift(before, tonight, moderate=0.05, major=0.1).level == "major"


def test_index_has_the_value_computed_by_hand() -> None:
    # half a scan more in each bin: shares 50.5/101 twice, and 90.5/101, 10.5/101
    assert population_stability_index([50, 50], [90, 10]) == pytest.approx(40 / 101 * log(90.5 / 10.5))
    # a published example, with so many scans that the half ones do not show: 0.1 to 0.2, 0.9 to 0.8
    large = population_stability_index([10**9, 9 * 10**9], [2 * 10**9, 8 * 10**9])
    assert large == pytest.approx(0.1 * log(2) - 0.1 * log(8 / 9), rel=1e-6)


def test_index_is_zero_for_equal_shares_and_symmetric() -> None:
    assert population_stability_index([7, 11, 13], [7, 11, 13]) == 0
    assert population_stability_index([7, 0, 30], [90, 5, 1]) == population_stability_index([90, 5, 1], [7, 0, 30])
    assert drift([7, 0, 30], [90, 5, 1]) == drift([90, 5, 1], [7, 0, 30])


def test_a_bin_empty_on_one_side_gives_a_finite_term_that_grows_with_the_other() -> None:
    few, many = (population_stability_index([100, 0], [100, count]) for count in (1, 50))
    assert 0 < few < 0.02 < many < 3


def test_a_bin_empty_on_both_sides_does_not_count() -> None:
    assert drift([60, 0, 40, 0], [30, 0, 70, 0]) == drift([60, 40], [30, 70])


def test_noise_is_the_tabled_quantile_over_the_scans() -> None:
    for bins, quantile in ((2, 10.828), (3, 13.816), (4, 16.266), (9, 26.124)):  # chi-square, 0.001
        assert drift([100] * bins, [50] * bins).noise == pytest.approx(
            quantile * (1 / (100 * bins) + 1 / (50 * bins)), rel=1e-4
        )


def test_one_class_alone_is_no_drift() -> None:
    assert drift([0, 500, 0], [0, 3, 0]) == Drift(index=0.0, noise=0.0, level="none")


@pytest.mark.parametrize(("before", "tonight"), [([0, 0], [5, 5]), ([5, 5], [0, 0]), ([0, 0], [0, 0]), ([], [])])
def test_without_scans_on_either_side_there_is_no_index(before: list[int], tonight: list[int]) -> None:
    assert drift(before, tonight) == Drift(index=None, noise=None, level="none")
    with pytest.raises(InputError, match="nothing to compare"):
        population_stability_index(before, tonight)


@pytest.mark.parametrize(("before", "tonight"), [([1, 2], [1, 2, 3]), ([1, -1], [1, 1]), ([[1]], [[1]])])
def test_counts_of_different_bins_are_refused_in_a_sentence(before: Any, tonight: Any) -> None:
    with pytest.raises(InputError, match="counts of the same bins"):
        drift(before, tonight)


def test_confidences_fall_into_their_ranges_and_an_edge_into_the_one_above() -> None:
    assert CONFIDENCE_RANGES[0] == "0 to 0.5"
    assert CONFIDENCE_RANGES[-1] == "0.999 to 1"
    for dtype in (np.float16, np.float32, np.float64):
        assert confidence_counts(np.asarray(CONFIDENCE_EDGES, dtype)) == [1] * 8 + [2]
    confidences = np.array([0.26, 0.499, 0.5, 0.95, 0.9989, 0.9991, 1.0], np.float32)
    assert confidence_counts(confidences) == [2, 1, 0, 0, 0, 0, 1, 1, 2]


def test_every_confidence_is_counted_once_even_if_rounding_put_it_above_one() -> None:
    confidences = np.random.default_rng(0).uniform(0, 1, 1000).astype(np.float32)
    assert sum(confidence_counts(confidences)) == 1000
    assert confidence_counts(np.array([1.0000002], np.float32))[-1] == 1


def test_no_confidences_are_counts_of_zero() -> None:
    assert confidence_counts(np.array([], np.float32)) == [0] * len(CONFIDENCE_RANGES)


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1, np.inf])
def test_values_outside_0_to_1_are_refused(wrong: float) -> None:
    with pytest.raises(InputError, match="0…1"):
        confidence_counts(np.array([0.5, wrong], np.float32))
