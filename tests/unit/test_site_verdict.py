"""The verdict on a model at a site: which thresholds are checked, which hold, and what too few scans allow to say."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from mribatch.reports.acceptance import sentence
from mribatch.statistics.acceptance import Measured, Proportion, Rates, Thresholds, checks, rates, too_few, verdict
from mribatch.statistics.metrics import Scores
from mribatch.statistics.stability import Answers, Truth, stability

LABELS = ("glioma", "notumor", "pituitary")


def scores(confusion: list[list[int]], confidence: float = 0.9) -> Scores:
    """Return answers with this confusion matrix (rows are true classes), all of one confidence."""
    pairs = [(i, j) for i, row in enumerate(confusion) for j, count in enumerate(row) for _ in range(count)]
    probabilities = np.full((len(pairs), 3), (1 - confidence) / 2)
    probabilities[np.arange(len(pairs)), [j for _, j in pairs]] = confidence
    return Scores(labels=LABELS, truth=np.array([i for i, _ in pairs]), probabilities=probabilities)


def measured(confusion: list[list[int]], **changes: Any) -> Measured:
    answers = scores(confusion)
    values: dict[str, Any] = {
        "scans": len(answers.truth),
        "rates": rates(answers),
        "healthy": "notumor",
        "balanced_accuracy": 0.95,
        "calibration_error": 0.02,
        "reject_rate": 0.0,
        "losses": {"blur": 0.01, "noise": 0.02},
    }
    return Measured(**values | changes)


def judged(what: Measured, **thresholds: Any) -> tuple[str, list[str]]:
    limits = Thresholds(**thresholds)
    made = checks(what, limits)
    failed = [check.name for check in made if not check.holds]
    return verdict(made, is_complete=not too_few(what, limits)), failed


GOOD = [[50, 0, 0], [1, 49, 0], [0, 0, 50]]


def test_the_rates_of_a_class_are_counted_against_the_rest() -> None:
    row = rates(scores([[8, 2, 0], [1, 9, 0], [0, 3, 7]]))["notumor"]
    assert row == Rates(Proportion(9, 10), Proportion(15, 20), Proportion(9, 14), Proportion(15, 16))
    never = rates(scores([[5, 0, 0], [5, 0, 0], [0, 0, 0]]))
    assert never["pituitary"].sensitivity.share is None
    assert never["notumor"].positive_predictive_value.share is None
    low, high = Proportion(9, 10).interval
    assert (round(low, 4), round(high, 4)) == (0.5958, 0.9821), "Wilson's interval, by hand"


def test_a_model_is_fit_where_every_threshold_holds() -> None:
    assert judged(measured(GOOD)) == ("fit for triage here", [])


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"balanced_accuracy": 0.84}, ["balanced accuracy"]),
        ({"calibration_error": 0.11}, ["calibration error"]),
        ({"reject_rate": 0.06}, ["share of scans not scored"]),
        ({"referral_rate": 0.31}, ["share of scans referred"]),
        ({"losses": {"blur": 0.2, "noise": 0.0}}, ["loss under mild blur"]),
    ],
)
def test_each_threshold_alone_makes_a_model_unfit_and_is_named(changes: Mapping[str, Any], failed: list[str]) -> None:
    assert judged(measured(GOOD, **changes)) == ("not fit", failed)


def test_a_value_at_its_threshold_holds() -> None:
    changes = {"balanced_accuracy": 0.85, "calibration_error": 0.1, "reject_rate": 0.05, "referral_rate": 0.3}
    assert judged(measured(GOOD, losses={"blur": 0.1}, **changes))[0] == "fit for triage here"


def test_a_missed_tumour_counts_by_the_lower_end_of_the_interval_and_a_false_alarm_only_in_specificity() -> None:
    few_found = [[44, 6, 0], [0, 50, 0], [0, 0, 50]]  # 88%, but the interval reaches down to 76%
    assert judged(measured(few_found)) == ("not fit", ["sensitivity of glioma"])
    false_alarms = [[50, 0, 0], [20, 30, 0], [0, 0, 50]]
    verdict_then, failed = judged(measured(false_alarms))
    assert "sensitivity of notumor" not in failed
    assert (verdict_then, failed) == ("not fit", ["specificity of glioma"])
    assert "sensitivity of notumor" in judged(measured(false_alarms, healthy=None))[1]


def test_a_threshold_that_a_wide_interval_misses_says_that_more_scans_may_decide() -> None:
    what = measured([[22, 3, 0], [0, 25, 0], [0, 0, 25]])
    by_name = {check.name: check for check in checks(what, Thresholds())}
    close, bad = by_name["sensitivity of glioma"], measured([[5, 20, 0], [0, 25, 0], [0, 0, 25]])
    assert close.is_undecided
    assert sentence(close).endswith("--min-sensitivity is 0.8; more scans may decide")
    (hopeless,) = (check for check in checks(bad, Thresholds()) if check.name == close.name)
    assert not hopeless.is_undecided
    assert sentence(hopeless).startswith("sensitivity of glioma is 20.00% (95% interval 8.86% to 39.13%)")


def test_too_few_scans_of_a_class_give_no_verdict_and_are_named() -> None:
    what = measured([[50, 0, 0], [0, 50, 0], [0, 0, 19]])
    assert too_few(what, Thresholds()) == {"pituitary": 19}
    assert judged(what) == ("not enough scans", [])
    assert judged(what, min_scans=19)[0] == "fit for triage here"
    tiny = measured([[1, 4, 0], [0, 5, 0], [0, 0, 5]], balanced_accuracy=None)
    assert judged(tiny) == ("not enough scans", []), "five scans prove nothing, not even that it is bad"


def test_what_enough_scans_refute_is_not_fit_even_if_another_class_has_none() -> None:
    what = measured([[10, 40, 0], [0, 50, 0], [0, 0, 0]], balanced_accuracy=0.6)
    assert too_few(what, Thresholds()) == {"pituitary": 0}
    assert judged(what)[0] == "not fit"


def answers(*predicted: int, referred: list[bool] | None = None) -> Answers:
    return Answers(
        predicted=np.array(predicted),
        confidence=np.full(len(predicted), 0.5),
        referred=None if referred is None else np.array(referred),
    )


def test_the_effect_of_an_alteration_is_the_fall_of_balanced_accuracy_and_the_tumours_that_become_healthy() -> None:
    truth = Truth(classes=np.array([0, 0, 1, 1, 2, 2]), counted=[0, 1], healthy=1)
    effect = stability(answers(0, 0, 1, 1, 2, 0), answers(0, 1, 1, 1, 1, 1), truth)
    assert effect["same_answer"] == 0.5
    assert (effect["balanced_accuracy"], effect["loss"]) == (0.75, 0.25), "pituitary does not count"
    assert (effect["missed"], effect["referred"]) == (0.75, None)


def test_without_labels_only_the_same_answer_the_confidence_and_referral_are_given() -> None:
    effect = stability(answers(0, 1), answers(0, 0, referred=[True, False]))
    assert (effect["same_answer"], effect["referred"], effect["mean_confidence"]) == (0.5, 0.5, 0.5)
    assert (effect["balanced_accuracy"], effect["loss"], effect["missed"]) == (None, None, None)
