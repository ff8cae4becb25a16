"""Metrics, checked against values computed by hand or published, never against the library itself."""

import json
from math import log
from typing import Any

import numpy as np
import pytest

from mribatch.errors import InputError
from mribatch.statistics.metrics import (
    Scores,
    calibration_bins,
    classification_report,
    expected_calibration_error,
    holm,
    mcnemar,
    measure,
    repeated_interval,
    wilson_interval,
    worst_first,
)

pytestmark = pytest.mark.filterwarnings("error")  # scikit-learn's warnings stay inside

LABELS = ("glioma", "meningioma", "notumor")
TRUTH = np.array([0, 0, 1, 1, 1, 2, 2])
PROBABILITIES = np.array(
    [
        [0.80, 0.10, 0.10],  # right
        [0.30, 0.60, 0.10],  # a glioma predicted as meningioma
        [0.20, 0.70, 0.10],  # right
        [0.10, 0.50, 0.40],  # right
        [0.25, 0.65, 0.10],  # right
        [0.10, 0.20, 0.70],  # right
        [0.50, 0.30, 0.20],  # a notumor predicted as glioma
    ]
)


def scores(truth: Any = TRUTH, probabilities: Any = PROBABILITIES, labels: tuple[str, ...] = LABELS) -> Scores:
    return Scores(labels=labels, truth=np.asarray(truth), probabilities=np.asarray(probabilities))


def test_accuracy_is_the_share_of_right_answers_with_its_wilson_interval() -> None:
    numbers = measure(scores())
    assert numbers["scans"] == 7
    assert numbers["accuracy"] == pytest.approx(5 / 7)
    assert numbers["accuracy_95"] == pytest.approx([0.3589, 0.9178], abs=1e-4)


def test_loss_is_the_mean_negative_logarithm_of_the_truths_probability() -> None:
    expected = -(log(0.8) + log(0.3) + log(0.7) + log(0.5) + log(0.65) + log(0.7) + log(0.2)) / 7
    assert measure(scores())["loss"] == pytest.approx(expected)


def test_probability_zero_of_the_true_class_gives_a_finite_loss() -> None:
    assert measure(scores([0], [[0.0, 1.0, 0.0]]))["loss"] == pytest.approx(7 * log(10))


def test_confusion_rows_are_true_and_columns_predicted_classes() -> None:
    assert measure(scores())["confusion_matrix"] == {
        "labels": ["glioma", "meningioma", "notumor"],
        "counts": [[1, 1, 0], [0, 3, 0], [1, 0, 1]],
    }


def test_each_class_has_its_precision_recall_f1_support_and_area() -> None:
    expected = {
        "glioma": {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2, "roc_auc": 9 / 10},
        "meningioma": {"precision": 3 / 4, "recall": 1, "f1": 6 / 7, "support": 3, "roc_auc": 11 / 12},
        "notumor": {"precision": 1, "recall": 1 / 2, "f1": 2 / 3, "support": 2, "roc_auc": 9 / 10},
    }
    per_class = measure(scores())["per_class"]
    assert list(per_class) == list(LABELS)
    for label, row in expected.items():
        assert per_class[label] == pytest.approx(row), label


def test_macro_averages_count_classes_and_weighted_ones_count_scans() -> None:
    numbers = measure(scores())
    f1 = (1 / 2, 6 / 7, 2 / 3)
    assert numbers["macro"] == pytest.approx({"precision": 3 / 4, "recall": 2 / 3, "f1": sum(f1) / 3})
    weighted = (2 * f1[0] + 3 * f1[1] + 2 * f1[2]) / 7
    assert numbers["weighted"] == pytest.approx({"precision": 5.25 / 7, "recall": 5 / 7, "f1": weighted})
    assert numbers["roc_auc_macro_ovr"] == pytest.approx((9 / 10 + 11 / 12 + 9 / 10) / 3)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_have_scans() -> None:
    assert measure(scores())["balanced_accuracy"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    numbers = measure(scores([0, 0, 1], [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]))
    assert numbers["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert numbers["mean_confidence"] == pytest.approx((0.7 + 0.8 + 0.8) / 3)


def test_a_class_without_scans_has_no_area_and_zero_ratios() -> None:
    numbers = measure(scores([0, 0, 1], [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]))
    assert numbers["per_class"]["notumor"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0, "roc_auc": None}
    assert numbers["roc_auc_macro_ovr"] == 1
    assert numbers["macro"]["recall"] == pytest.approx(2 / 3)


def test_scans_of_one_class_only_have_no_area_at_all() -> None:
    numbers = measure(scores([1, 1], [[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]))
    assert numbers["roc_auc_macro_ovr"] is None
    assert [row["roc_auc"] for row in numbers["per_class"].values()] == [None, None, None]


@pytest.mark.parametrize("truth", [TRUTH, np.ones(7, np.int64)])
def test_numbers_are_strict_json(truth: Any) -> None:
    numbers = measure(scores(truth))
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


@pytest.mark.parametrize("precision", [np.float16, np.float32])
def test_probabilities_that_sum_to_one_up_to_rounding_are_accepted(precision: type[np.floating[Any]]) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (500, 3)).astype(precision)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert softmax.dtype == precision
    assert measure(scores(np.zeros(500, np.int64), softmax))["scans"] == 500


def test_report_names_every_class_even_one_without_scans() -> None:
    report = classification_report(scores([0, 0, 1], [[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]]))
    rows = {line.split()[0]: line.split()[1:] for line in report.splitlines() if line.strip()}
    assert rows["glioma"] == ["1.0000", "0.5000", "0.6667", "2"]
    assert rows["meningioma"] == ["0.5000", "1.0000", "0.6667", "1"]
    assert rows["notumor"] == ["0.0000", "0.0000", "0.0000", "0"]
    assert rows["accuracy"] == ["0.6667", "3"]


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_gives_the_published_values(successes: int, total: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson_interval(successes, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_a_billion_scans_is_narrow_and_holds_the_share() -> None:
    low, high = wilson_interval(300_000_000, 10**9)
    assert low < 0.3 < high
    assert high - low == pytest.approx(2 * 1.959964 * (0.3 * 0.7 / 10**9) ** 0.5, rel=1e-6)


def test_wilson_interval_is_symmetric_stays_within_bounds_and_widens_with_confidence() -> None:
    low, high = wilson_interval(655, 655)
    assert high == 1
    assert low == pytest.approx(1 - wilson_interval(0, 655)[1])
    assert wilson_interval(0, 655)[0] == 0
    assert wilson_interval(0, 0) == (0, 1)
    assert wilson_interval(90, 100, confidence=0.99)[0] < wilson_interval(90, 100)[0]


@pytest.mark.parametrize(("successes", "total"), [(-1, 3), (4, 3), (0, -1)])
def test_impossible_counts_have_no_interval(successes: int, total: int) -> None:
    with pytest.raises(InputError, match="successes"):
        wilson_interval(successes, total)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy_weighted_by_scans() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.56])
    correct = np.array([True, False, True, True])
    expected = 3 / 4 * (0.9 - 2 / 3) + 1 / 4 * (1 - 0.56)
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_certain_correct_answers_are_perfectly_calibrated_and_certain_wrong_ones_not_at_all() -> None:
    certain = np.ones(5)
    assert expected_calibration_error(certain, np.ones(5, bool)) == 0
    assert expected_calibration_error(certain, np.zeros(5, bool)) == 1


def test_opposite_gaps_cancel_in_one_bin_and_count_in_two() -> None:
    confidence, correct = np.array([0.25, 0.75]), np.array([True, False])
    assert expected_calibration_error(confidence, correct, bins=1) == 0
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.75)


def test_a_bin_includes_its_upper_edge_and_an_empty_bin_has_no_mean() -> None:
    bins = calibration_bins(np.array([0.0, 0.25, 0.26, 1.0]), np.array([True, False, True, True]), bins=4)
    assert bins.scans.tolist() == [2, 1, 0, 1]
    assert bins.confidence[[0, 1, 3]] == pytest.approx([0.125, 0.26, 1.0])
    assert bins.accuracy[[0, 1, 3]] == pytest.approx([0.5, 1, 1])
    assert np.isnan(bins.accuracy[2])


def test_calibration_needs_scans_and_one_confidence_per_answer() -> None:
    with pytest.raises(InputError, match="none"):
        expected_calibration_error(np.empty(0), np.empty(0, bool))
    with pytest.raises(InputError, match="one confidence per answer"):
        expected_calibration_error(np.ones(2), np.ones(3, bool))


def test_worst_mistakes_come_first_then_the_least_certain_right_ones() -> None:
    assert worst_first(scores(), limit=7) == [6, 1, 3, 4, 2, 5, 0]
    assert worst_first(scores(), limit=3) == [6, 1, 3]
    assert worst_first(scores(), limit=0) == []


def test_a_mistake_is_worse_the_lower_the_probability_of_the_true_class() -> None:
    barely, badly = [0.40, 0.45, 0.15], [0.05, 0.90, 0.05]
    assert worst_first(scores([0, 0], [barely, badly]), limit=2) == [1, 0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": ("one",)}, "two or more different class names"),
        ({"labels": ("a", "b", "a")}, "two or more different class names"),
        ({"truth": TRUTH[:, None]}, "shape"),
        ({"truth": TRUTH.astype(float)}, "class indexes"),
        ({"truth": [0, 0, 1, 1, 1, 2, 3]}, "class indexes 0 to 2, got 0 to 3"),
        ({"truth": [-1, 0, 1, 1, 1, 2, 2]}, "class indexes 0 to 2, got -1 to 2"),
        ({"truth": np.empty(0, np.int64), "probabilities": np.empty((0, 3))}, "at least one labelled scan"),
        ({"probabilities": PROBABILITIES[:5]}, r"\(7, 3\).*got \(5, 3\)"),
        ({"probabilities": PROBABILITIES[:, :2]}, r"\(7, 3\).*got \(7, 2\)"),
        ({"probabilities": PROBABILITIES * 9 - 4}, "between 0 and 1.*not logits"),
        ({"probabilities": np.where(PROBABILITIES == 0.8, np.nan, PROBABILITIES)}, "between 0 and 1"),
        ({"probabilities": PROBABILITIES / 2}, "sum to 1.*off by 0.5"),
    ],
)
def test_inconsistent_scores_are_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        scores(**changes)


def test_mcnemars_exact_test_has_the_published_values() -> None:
    """From sign-test tables: 1 against 9 gives 22/1024, 0 against 5 gives 2/32."""
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_holm_multiplies_the_smallest_by_their_number_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_over_splits_is_the_corrected_resampled_t() -> None:
    accuracies = [0.80, 0.84, 0.78, 0.86, 0.82]  # mean 0.82, variance 0.001
    half = 2.776 * (0.001 * (1 / 5 + 2000 / 8000)) ** 0.5  # Student's t, 4 degrees of freedom
    low, high = repeated_interval(accuracies, train=8000, test=2000)
    assert (low, high) == pytest.approx((0.82 - half, 0.82 + half), abs=1e-4)


def test_one_split_and_splits_that_agree_have_wilsons_interval() -> None:
    assert repeated_interval([0.9], train=400, test=100) == wilson_interval(90, 100)
    assert repeated_interval([1.0] * 5, train=400, test=100) == wilson_interval(100, 100)


def test_no_splits_have_no_interval() -> None:
    with pytest.raises(InputError, match="expected accuracies"):
        repeated_interval([], train=1, test=1)
