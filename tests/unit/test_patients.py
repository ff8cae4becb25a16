"""Judging statistics of patients: no threshold, and no statistic, is chosen on the patients that judge it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mribatch.commands.evaluate_patients import check_patients
from mribatch.errors import ConfigError, InputError
from mribatch.reports.patients import finding_lines, patients_page, statistic_rows
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.sources.labels import LABELLED
from mribatch.statistics.patients import judge

ILL = np.arange(40) % 2 == 0


def test_a_statistic_that_separates_the_patients_is_chosen_and_one_of_chance_is_not() -> None:
    noise = np.random.default_rng(0).random(40)
    result = judge({"noise": noise, "good": ILL + noise / 2}, ILL)
    assert (result["chosen"], result["choice"]["in_folds"]) == ("good", {"good": 5})
    good = result["statistics"]["good"]
    assert (good["auroc"], good["sensitivity"]["share"], good["specificity"]["share"]) == (1.0, 1.0, 1.0)
    assert 0.4 < good["threshold"] < 1.1
    assert good["sensitivity"]["interval_95"] == pytest.approx([0.839, 1.0], abs=1e-3)  # Wilson, 20 of 20


def test_many_statistics_of_chance_do_not_look_good_by_being_many() -> None:
    rng = np.random.default_rng(0)
    youden = [
        judge({str(n): rng.random(40) for n in range(10)}, rng.permutation(ILL))["choice"]["youden"] for _ in range(8)
    ]
    assert abs(np.mean(youden)) < 0.2


def test_of_equally_good_statistics_the_first_is_chosen() -> None:
    values = ILL.astype(float)
    assert judge({"first": values, "second": values}, ILL)["chosen"] == "first"


def test_a_statistic_without_any_information_calls_nobody_ill() -> None:
    result = judge({"same": np.zeros(40)}, ILL)["statistics"]["same"]
    assert (result["threshold"], result["auroc"], result["sensitivity"]["share"]) == (None, 0.5, 0.0)


def test_the_judgement_does_not_depend_on_chance() -> None:
    values = np.random.default_rng(0).random(40)
    assert judge({"a": values}, ILL) == judge({"a": values}, ILL)


def test_one_patient_on_a_side_cannot_be_judged() -> None:
    with pytest.raises(InputError, match="expected two patients or more on each side, got 1 of 40 ill"):
        judge({"a": np.zeros(40)}, np.arange(40) == 3)


def labelled(rows: list[tuple[str, str | None]]) -> pa.Table:
    full = [(f"/{n}.png", "1-1", label, None, patient) for n, (label, patient) in enumerate(rows)]
    return pa.table([list(column) for column in zip(*full, strict=True)], schema=LABELLED)


def check(rows: list[tuple[str, str | None]], **settings: Any) -> None:
    config = EvaluateConfig(model="m", data="m.csv", output="o", level="study", **settings)
    check_patients(config, ("glioma", "notumor"), labelled(rows))


def test_each_scan_needs_a_patient_and_each_patient_one_label() -> None:
    check([("glioma", "a"), ("glioma", "a"), ("notumor", "b")])
    with pytest.raises(InputError, match=r"1 of 2 scans in m.csv have no patient_id: --level study needs a manifest"):
        check([("glioma", "a"), ("notumor", None)])
    with pytest.raises(InputError, match=r"1 of 2 patients in m.csv have slices with different labels"):
        check([("glioma", "a"), ("notumor", "a"), ("notumor", "b")])
    with pytest.raises(InputError, match=r"the model has no class CN, but .*glioma.*--healthy-class"):
        check([("glioma", "a")], healthy_class="CN")


def test_what_belongs_to_slices_cannot_be_asked_of_studies() -> None:
    with pytest.raises(ConfigError, match="--training and --groups cannot be used with --level study"):
        EvaluateConfig(model="m", data="d", output="o", level="study", training=("t",), groups="g")


def test_the_page_shows_each_statistic_and_what_was_not_measured() -> None:
    rng = np.random.default_rng(0)
    result = judge({"mean_suspicion": ILL + rng.random(40), "max_suspicion": rng.random(40)}, ILL)
    result["not_measured_statistics"] = {"longest_run": "3 of 40 patients have no slices"}
    lacking = {"not_measured": "1 patients have it and 39 have not: both need 2 or more"}
    numbers = {
        "patients": 40,
        "slices": 400,
        "by_label": {"glioma": 20, "notumor": 20},
        "model_digest": "0" * 12,
        "healthy_class": "notumor",
        "threshold": 0.5,
        "kth": 3,
        "findings": {"suspicious": result, "pituitary": lacking},
    }
    page = patients_page(numbers, {"data": "<m.csv>"})
    assert "&lt;m.csv&gt;" in page
    for text in (*finding_lines("suspicious", result), *finding_lines("pituitary", lacking)):
        assert text in page
    assert [row[0] for row in statistic_rows(result)] == ["mean_suspicion", "max_suspicion"]
    assert statistic_rows(lacking) == []
