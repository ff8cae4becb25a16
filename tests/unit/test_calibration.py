"""Calibration: a temperature undoes a network's overconfidence, and its measures know the truth and chance."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from mribatch.errors import InputError
from mribatch.statistics import calibration

Case = tuple[NDArray[np.float64], NDArray[np.int64]]


@pytest.fixture(scope="module")
def overconfident() -> Case:
    """Return logits that are three times too large, and truths drawn from the right ones."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 4))
    shares = calibration.calibrated(logits, 1.0)
    truth = (shares.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1)
    return 3 * logits, truth


def test_calibrated_probabilities_are_scipys_bit_for_bit(overconfident: Case) -> None:
    logits, _ = overconfident
    for temperature in (0.05, 0.7, 1.3, 20.0):
        expected = softmax(logits / temperature, axis=1)
        assert calibration.calibrated(logits, temperature).tobytes() == expected.tobytes()


def test_the_temperature_undoes_a_known_scale(overconfident: Case) -> None:
    assert calibration.fit_temperature(*overconfident) == pytest.approx(3, rel=0.05)


def test_a_temperature_changes_no_class(overconfident: Case) -> None:
    logits, _ = overconfident
    assert (calibration.calibrated(logits, 2.5).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_each_half_gains_from_the_temperature_of_the_other(overconfident: Case) -> None:
    logits, truth = overconfident
    groups = np.repeat(np.arange(2000), 2)
    held_back = np.log(calibration.cross_fitted(logits, truth, groups))
    assert (
        calibration.negative_log_likelihood(held_back, truth) < calibration.negative_log_likelihood(logits, truth) - 0.3
    )


def test_calibrated_confidences_come_down_to_the_noise_floor(overconfident: Case) -> None:
    logits, truth = overconfident
    errors = {}
    for temperature in (1.0, 3.0):
        shares = calibration.calibrated(logits, temperature)
        errors[temperature] = calibration.adaptive_calibration_error(shares.max(axis=1), shares.argmax(axis=1) == truth)
    floor = calibration.noise_floor(calibration.calibrated(logits, 3.0).max(axis=1), draws=200)
    assert errors[1.0] > 5 * floor.high
    assert errors[3.0] <= floor.high


def test_fewer_scans_have_a_higher_noise_floor() -> None:
    few, many = (calibration.noise_floor(np.full(n, 0.9), draws=100).mean for n in (60, 6000))
    assert few > 5 * many


def test_bins_hold_equally_many_scans_of_rising_confidence() -> None:
    confidence = np.random.default_rng(1).random(100)
    table = calibration.reliability_table(confidence, confidence > 0.5, bins=10)
    assert [part.scans for part in table] == [10] * 10
    assert [part.confidence for part in table] == sorted(part.confidence for part in table)


@pytest.mark.parametrize(("share", "expected"), [([1.0, 0.0], 0.0), ([0.5, 0.5], 0.5), ([0.0, 1.0], 2.0)])
def test_the_brier_score_of_known_answers(share: list[float], expected: float) -> None:
    assert calibration.brier_score(np.array([share]), np.array([0])) == expected


def test_scans_of_one_class_are_refused(overconfident: Case) -> None:
    logits, _ = overconfident
    with pytest.raises(InputError, match="two or more classes"):
        calibration.fit_temperature(logits, np.zeros(len(logits), np.int64))


def test_scans_without_a_mistake_do_not_make_a_model_certain() -> None:
    truth = np.arange(80) % 4
    logits = 6.0 * np.eye(4)[truth] + np.random.default_rng(3).normal(0, 0.5, (80, 4))
    shares = calibration.calibrated(logits, calibration.fit_temperature(logits, truth))
    assert 0.98 < shares.max(axis=1).mean() < 0.9995
