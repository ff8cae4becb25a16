"""A card tells what a model knows beyond its test set, and says plainly which goals it misses."""

from typing import Any

from mribatch.models.card_measures import (
    honesty_goals,
    honesty_section,
    honesty_table,
    referral_goals,
    referral_section,
)


def figures(accuracy: float, tumours: float | None = 0.5) -> dict[str, Any]:
    return {
        "scans": 100,
        "accuracy": accuracy,
        "accuracy_95": (accuracy - 0.1, accuracy + 0.1),
        "balanced_accuracy": accuracy,
        "recall": {"glioma": accuracy},
        "tumours_called_tumour": tumours,
        "mean_confidence": 0.9,
    }


def altered(accuracy: float, missed: int = 0) -> dict[str, Any]:
    return {"scans": 8, "accuracy": accuracy, "tumours": 6, "tumours_surely_missed": missed}


def noisy(missed: int) -> dict[str, Any]:
    rows = [altered(0.9), altered(0.5, missed)]
    return {"none": [altered(1.0)], "Gaussian noise": rows, "Rician noise": [altered(0.9), altered(0.8)]}


def kind(
    name: str, *, referred: float, wrong: int = 0, caught: float | None = None, pictures: int = 10
) -> dict[str, Any]:
    return {
        "kind": name,
        "pictures": pictures,
        "referred": referred,
        "right": 1 - wrong / pictures,
        "right_or_referred": 0.9,
        "wrong": wrong,
        "wrong_referred": caught,
        "auroc": 0.9,
    }


KINDS = [
    kind("held-back scans", referred=0.07),
    kind("15% darker", referred=0.08),
    kind("shifted by 4%", referred=0.2),
    kind("turned by 90°", referred=0.5, wrong=4, caught=1.0),
    kind("inverted", referred=0.5, wrong=6, caught=0.5),
    kind("foreign: head_ct", referred=1.0, wrong=30, caught=1.0, pictures=30),
    kind("foreign: spine", referred=0.8, wrong=10, caught=0.8),
    kind("foreign: one", referred=0.0, wrong=1, caught=0.0, pictures=1),
]


# What it knows


def test_each_goal_is_listed_as_reached_or_missed_with_its_figure() -> None:
    sets = {
        "held back, no near copies": figures(0.99),
        "another source": figures(0.5, 0.7),
        "lesion painted out": figures(0.6),
    }
    lines = honesty_goals(sets, noisy(2))
    assert lines == [
        "- held back, no near copies, accuracy at least 98%: reached, 99.0%",
        "- another source, balanced accuracy at least 60%: **not reached**, 50.0%",
        "- another source, tumours called tumour at least 70%: reached, 70.0%",
        "- CLAHE, accuracy at least 95%: not measured",
        "- lesion painted out, accuracy at most 50%: **not reached**, 60.0%",
        "- noise never turns a tumour into no tumour at > 0.99: **not reached**, 2 of 24",
    ]
    assert honesty_goals(sets, noisy(0))[-1].endswith("reached, 0 of 24")


def test_a_test_that_was_not_made_is_shown_as_not_measured() -> None:
    rows = list(honesty_table({"CLAHE": figures(0.9, None)}))
    assert "| held back | not measured | | | | | |" in rows
    assert "| CLAHE | 100 | 90.0% (80.0%–100.0%) | 90.0% | glioma 90% | no tumours | 0.90 |" in rows


def test_the_section_of_a_card_has_a_row_for_each_alteration_and_the_command() -> None:
    numbers = {"command": "python benchmarks/honesty.py", "sets": {}, "corruptions": noisy(0)}
    text = honesty_section({"honesty": numbers})
    assert "| Gaussian noise | 90.0% | 50.0% |" in text
    assert "Right answers to 8 held-back scans when they are altered (100.0% when they are not)" in text
    assert "python benchmarks/honesty.py" in text
    assert honesty_section({}) == ""


# What the referral catches


def test_goals_of_a_referral_count_pictures_of_all_kinds_together_and_large_kinds_alone() -> None:
    assert referral_goals(KINDS) == [
        "- held-back scans, referred at most 8%: reached, 7.0%",
        "- foreign pictures, referred at least 97%: **not reached**, 92.7%",
        "- each kind of 10 or more foreign pictures, referred at least 85%: **not reached**, 80.0%",
        "- turned by 90° or 180°, right or referred at least 85%: reached, 90.0%",
        "- wrong answers to disturbed scans, referred at least 90%: **not reached**, 70.0%",
        "- mildly darker, brighter or shifted scans, referred at most 10%: **not reached**, 20.0%",
    ]


def test_the_section_of_a_card_has_a_row_for_each_kind_of_pictures() -> None:
    text = referral_section({"referred": {"command": "python benchmarks/referral.py", "kinds": KINDS}})
    assert "| foreign: spine | 10 | 80.0% | 0.0% | 90.0% | 80.0% of 10 | 0.900 |" in text
    assert "| 15% darker | 10 | 8.0% | 100.0% | 90.0% | – | 0.900 |" in text
    assert referral_section({}) == ""
