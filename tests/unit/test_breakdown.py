"""An evaluation broken down by threshold, patient and subgroup: figures that can be counted by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mribatch.commands.evaluate_breakdown import breakdown_numbers
from mribatch.errors import InputError
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.sources.labels import data_fingerprint
from mribatch.sources.manifest import other_columns
from mribatch.statistics import breakdown
from mribatch.statistics.metrics import Scores, wilson_interval
from tests.unit.test_labelled import touch

SCORES = Scores(
    labels=("a", "b"),
    truth=np.array([0, 0, 0, 1, 1, 1]),
    probabilities=np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.55, 0.45], [0.04, 0.96]]),
)


def test_rates_of_a_class_have_wilson_intervals() -> None:
    sensitivity = breakdown.class_rates(SCORES)["a"]["sensitivity"]
    assert sensitivity == {"scans": 2, "of": 3, "share": 2 / 3, "interval_95": list(wilson_interval(2, 3))}


def test_a_higher_threshold_calls_fewer_scans_and_counts_them_at_or_above_it() -> None:
    points = {row["threshold"]: row for row in breakdown.operating_points(SCORES)["a"]["thresholds"]}
    assert [points[threshold]["called"] for threshold in breakdown.THRESHOLDS] == [5, 5, 4, 3, 1, 1, 0, 0]
    assert points[0.9]["sensitivity"]["scans"] == 1
    assert points[0.5]["positive_predictive_value"]["scans"] == 2
    assert points[0.99]["positive_predictive_value"]["share"] is None


def test_average_precision_is_that_of_the_ranking_and_none_without_scans() -> None:
    # ranked by the probability of a: right, right, wrong, wrong, right, wrong
    assert breakdown.operating_points(SCORES)["a"]["average_precision"] == pytest.approx((1 + 1 + 3 / 5) / 3)
    only = Scores(labels=("a", "b"), truth=np.array([0]), probabilities=np.array([[0.9, 0.1]]))
    assert breakdown.operating_points(only)["b"]["average_precision"] is None


def test_a_patient_is_the_class_of_greatest_mean_probability_and_mixed_ones_are_left_out() -> None:
    measured = breakdown.patients(SCORES, ["p", "p", "p", "q", "q", None])
    assert measured is not None
    assert (measured["patients"], measured["scans"], measured["scans_without"], measured["mixed"]) == (2, 5, 1, 0)
    assert measured["right"]["scans"] == 2, "p: 0.57 for a; q: 0.58 for b, though one of its scans is wrong"
    mixed = breakdown.patients(SCORES, ["p", "q", "q", "p", "r", "r"])
    assert mixed is not None
    assert (mixed["patients"], mixed["mixed"]) == (2, 1)
    assert mixed["per_class"]["a"]["of"] == 1
    assert breakdown.patients(SCORES, [None] * 6) is None
    with pytest.raises(InputError, match="a patient for each of 6 scans, got 1"):
        breakdown.patients(SCORES, ["p"])


def test_subgroups_pool_rare_values_and_leave_out_columns_that_make_no_groups() -> None:
    truth, right = np.zeros(40, np.int64), np.tile([[0.9, 0.1]], (40, 1))
    right[:4] = [0.1, 0.9]
    many = Scores(labels=("a", "b"), truth=truth, probabilities=right)
    scanners: list[str | None] = [*["A"] * 20, *["B"] * 16, "C", "D", "D", None]
    columns: dict[str, list[str | None]] = {
        "scanner": scanners,
        "name": [f"n{n}" for n in range(40)],
        "all": ["x"] * 40,
    }
    (name, values), *others = breakdown.subgroups(many, columns).items()
    assert (name, others) == ("scanner", [])
    assert {value: (row["scans"], row["of"]) for value, row in values.items()} == {
        "A": (16, 20),
        "B": (16, 16),
        breakdown.FEW: (3, 3),
    }
    assert [*values][-1] == breakdown.FEW


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_columns_of_a_manifest_become_subgroups_but_never_those_that_name_people(
    tmp_path: Path, ending: str
) -> None:
    names = [f"{n}.png" for n in range(12)]
    touch(tmp_path, *names)
    table = pa.table(
        {
            "uri": names,
            "label": ["a", "b"] * 6,
            "patient_id": ["p", "q"] * 6,
            "patient_name": ["Doe", "Roe"] * 6,
            "StudyInstanceUID": ["1.2.3", "1.2.4"] * 6,
            "exam_id": ["1", "2"] * 6,
            "scanner": ["A"] * 6 + ["B"] * 6,
        }
    )
    place = tmp_path / f"scans.{ending}"
    if ending == "csv":
        rows = [",".join(table.column_names), *(",".join(row.values()) for row in table.to_pylist())]
        place.write_text("\n".join(rows))
    else:
        pq.write_table(table, place)
    assert other_columns(str(place)).column_names == [
        *("scan_uri", "patient_name", "StudyInstanceUID", "exam_id", "scanner")
    ]
    scores = Scores(labels=("a", "b"), truth=np.array([0, 1] * 6), probabilities=np.tile([[0.9, 0.1]], (12, 1)))
    rows_scored = pa.table(
        {
            "scan_uri": [str(tmp_path / name) for name in names],
            "label": ["a", "b"] * 6,
            "patient_id": ["p", "q"] * 6,
            "content_sha256": [f"{n:064x}" for n in range(12)],
        }
    )
    numbers = breakdown_numbers(EvaluateConfig(model="m", data=str(place), output="o"), scores, rows_scored)
    assert {
        name: {value: row["of"] for value, row in values.items()} for name, values in numbers["subgroups"].items()
    } == {"scanner": {"A": 6, "B": 6}}
    assert numbers["patients"]["right"]["scans"] == 1


def test_the_fingerprint_of_scans_depends_on_bytes_and_labels_but_not_on_their_order() -> None:
    first = data_fingerprint(["1", "2"], ["a", "b"])
    assert first == data_fingerprint(["2", "1"], ["b", "a"])
    assert first != data_fingerprint(["1", "2"], ["b", "a"])
