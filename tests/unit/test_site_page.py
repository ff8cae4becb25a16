"""An acceptance of made rows: its numbers, its page, what the screen shows, and what scoring requires of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mribatch.commands.acceptance import Site, acceptance_of, write
from mribatch.commands.accepted import Accepted
from mribatch.commands.required_acceptance import required_acceptance
from mribatch.errors import ConfigError, ModelError
from mribatch.models.corrupted import PLAIN
from mribatch.models.format import Model
from mribatch.reports.acceptance import acceptance_page
from mribatch.scans.corruptions import CORRUPTIONS, STRENGTHS
from mribatch.settings.score import ScoreConfig
from mribatch.settings.site import AcceptConfig, AdaptConfig

LABELS = ("glioma", "notumor")
_FACTS = dict.fromkeys(("format", "backbone", "image_side_px", "pixels", "head"), 0)
MODEL = Model(uri="m", facts={"labels": LABELS, "weights": {"sha256": "0"}, **_FACTS})


def config(**changes: Any) -> AcceptConfig:
    return AcceptConfig(**{"model": "m", "data": "scans", "output": "out"} | changes)


def site(wrong: int = 0, each: int = 30, *, is_labelled: bool = True, **columns: Any) -> Site:
    """Return `each` scans of both classes; of the gliomas, so many are called notumor."""
    truth = ["glioma"] * each + ["notumor"] * each
    predicted = ["notumor"] * wrong + truth[wrong:]
    glioma = np.where(np.array(predicted) == "glioma", 0.95, 0.05).astype(np.float32)
    rows: dict[str, Any] = {
        "scan_uri": [f"scans/{label}/{number:03d}.png" for number, label in enumerate(truth)],
        "scan_version": ["1"] * len(truth),
        "frame": [0] * len(truth),
        "frames": [1] * len(truth),
        "container": pa.nulls(len(truth), pa.string()),
        "content_sha256": [f"{number:064x}" for number in range(len(truth))],
        "status": ["ok"] * len(truth),
        "reason": pa.nulls(len(truth), pa.string()),
        "predicted_class": predicted,
        "confidence": np.full(len(truth), 0.95, np.float32),
        "p_glioma": glioma,
        "p_notumor": 1 - glioma,
    }
    rows |= ({"label": truth} if is_labelled else {}) | columns
    return Site(rows=pa.table(rows), failed=0, is_labelled=is_labelled)


def altered(rows: pa.Table, **worse: int) -> pa.Table:
    """Return the rows under every corruption; under those named here, so many more gliomas are called notumor."""
    tables = []
    for kind, strength in [(PLAIN, 0), *((kind, strength) for kind in CORRUPTIONS for strength in STRENGTHS)]:
        predicted = rows["predicted_class"].to_pylist()
        predicted[: worse.get(kind, 0)] = ["notumor"] * worse.get(kind, 0)
        place = rows.column_names.index("predicted_class")
        table = rows.set_column(place, "predicted_class", pa.array(predicted))
        table = table.append_column("corruption", pa.array([kind] * rows.num_rows))
        tables.append(table.append_column("strength", pa.array([strength] * rows.num_rows)))
    return pa.concat_tables(tables)


def accepted(scans: Site, **changes: Any) -> dict[str, Any]:
    return acceptance_of(config(**changes), MODEL, scans, altered(scans.distinct))


def page(**changes: Any) -> str:
    """Return the page of a model that is not fit."""
    acceptance = accepted(site(wrong=15), **changes)
    return acceptance_page(acceptance, "mribatch accept")


def test_a_good_model_is_fit_and_the_numbers_can_be_counted_by_hand() -> None:
    acceptance = accepted(site(wrong=1))
    assert (acceptance["verdict"], acceptance["reasons"]) == ("fit for triage here", [])
    glioma = acceptance["per_class"]["glioma"]
    assert glioma["sensitivity"] | {"interval_95": 0} == {"scans": 29, "of": 30, "share": 29 / 30, "interval_95": 0}
    assert acceptance["balanced_accuracy"] == pytest.approx((29 / 30 + 1) / 2)
    assert acceptance["calibration"]["expected_calibration_error"] == pytest.approx(59 / 60 - 0.95)
    assert (acceptance["healthy_class"], acceptance["referral"]) == ("notumor", None)
    assert len(acceptance["corruptions"]) == 18
    outcome = Accepted(acceptance=acceptance, page="out/acceptance.html", output="out")
    assert outcome.exit_code == 0
    assert "this model refers nothing" in outcome.table()
    assert "verdict  fit for triage here" in outcome.table()


def test_each_reason_is_on_the_screen_and_in_the_page_and_the_exit_code_is_3(tmp_path: Path) -> None:
    scans = site(wrong=15)
    acceptance = acceptance_of(config(), MODEL, scans, altered(scans.distinct, blur=25))
    assert acceptance["verdict"] == "not fit"
    names = ("sensitivity of glioma", "specificity of notumor", "balanced accuracy", "loss under mild blur")
    outcome = Accepted(acceptance=acceptance, page="", output="")
    write(config(output=str(tmp_path)), acceptance)
    page = (tmp_path / "acceptance.html").read_text()
    for text in (outcome.table(), page):
        assert all(name in text for name in names)
    assert outcome.exit_code == 3
    assert page.count("<script") == 1, "only the one for tables"
    assert "balanced accuracy is 75.00%, --min-balanced-accuracy is 0.85" in page
    assert json.loads((tmp_path / "acceptance.json").read_text()) == json.loads(json.dumps(acceptance))


def test_copies_count_once() -> None:
    scans = site(each=30, content_sha256=["a" * 64] * 30 + [f"{n:064x}" for n in range(30)])
    acceptance = accepted(scans)
    assert (acceptance["data"]["scans"], acceptance["data"]["copies"]) == (31, 29)
    assert (acceptance["verdict"], acceptance["missing"]) == ("not enough scans", ["1 of 20 scans of glioma"])


def test_without_a_scan_that_can_be_altered_there_is_no_verdict() -> None:
    scans = site(frames=[2] * 60)
    assert scans.drawn(10, seed=0).num_rows == 0
    acceptance = acceptance_of(config(), MODEL, scans, scans.drawn(10, seed=0))
    assert acceptance["verdict"] == "not enough scans"
    assert "no scan of one frame that could be altered" in acceptance["missing"]


def test_members_of_archives_are_not_altered_because_they_are_no_files() -> None:
    scans = site(container=["a.zip"] * 30 + [None] * 30)
    assert scans.drawn(100, seed=0)["label"].to_pylist() == ["notumor"] * 30


def test_scans_to_alter_are_spread_over_the_classes_and_drawn_by_the_seed() -> None:
    many = site(each=30)
    drawn = many.drawn(10, seed=0)
    assert drawn["label"].to_pylist().count("glioma") == 5
    assert drawn.equals(many.drawn(10, seed=0))
    assert not drawn.equals(many.drawn(10, seed=1))
    assert many.drawn(1000, seed=0).num_rows == 60


def test_a_model_that_refers_is_measured_by_what_it_refers() -> None:
    columns = {
        "referral": ["review"] * 15 + ["auto"] * 45,
        "referral_reason": pa.array(["unsure"] * 15 + [None] * 45, pa.string()),
    }
    acceptance = accepted(site(wrong=3, **columns))
    referral = acceptance["referral"]
    assert (referral["scans"], referral["share"], referral["reasons"]) == (15, 0.25, {"unsure": 15})
    assert (referral["wrong"], referral["wrong_referred"], referral["accuracy_of_others"]) == (3, 3, 1.0)
    assert acceptance["corruptions"][0]["referred"] == 0.25
    assert "share of scans referred" in [check["name"] for check in acceptance["checks"]]
    nothing = accepted(site(referral=pa.nulls(60, pa.string())))
    assert nothing["referral"] is None


def test_without_labels_the_verdict_is_that_nothing_was_judged(tmp_path: Path) -> None:
    unlabelled = config(data=None, input=("scans",), output=str(tmp_path))
    scans = site(is_labelled=False)
    acceptance = acceptance_of(unlabelled, MODEL, scans, altered(scans.distinct))
    outcome = Accepted(acceptance=acceptance, page="", output="")
    assert (acceptance["verdict"], outcome.exit_code) == ("not judged: no labels", 3)
    assert acceptance["predicted"] == {"glioma": 30, "notumor": 30}
    assert "answers: 30 glioma, 30 notumor" in outcome.table()
    write(unlabelled, acceptance)
    assert "Not judged: no labels" in (tmp_path / "acceptance.html").read_text()


def scoring(tmp_path: Path, place: Path) -> ScoreConfig:
    return ScoreConfig(model="m", input=("i",), output=str(tmp_path), require_acceptance=str(place))


def test_scoring_requires_an_acceptance_of_this_model_that_says_fit(tmp_path: Path) -> None:
    acceptance = accepted(site())
    write(config(output=str(tmp_path)), acceptance)
    for place in (tmp_path, tmp_path / "acceptance.json"):
        named = required_acceptance(scoring(tmp_path, place), MODEL)
        assert named is not None
        assert named["uri"] == str(tmp_path / "acceptance.json")
        assert named["scans_sha256"] == acceptance["data"]["content_sha256"]
    assert required_acceptance(ScoreConfig(model="m", input=("i",), output="o"), MODEL) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no .*acceptance.json: run `mribatch accept`"),
        ("[]", "is not what `mribatch accept` writes"),
        ("{", "is not what `mribatch accept` writes"),
        ('{"model_digest": "DIGEST", "verdict": "not fit"}', "says 'not fit' of model"),
        ('{"model_digest": "0123", "verdict": "fit for triage here"}', "is of model 0123, not of"),
    ],
)
def test_any_other_acceptance_is_refused_with_2_and_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "acceptance.json").write_text(text.replace("DIGEST", MODEL.digest))
    with pytest.raises(ModelError, match=message) as caught:
        required_acceptance(scoring(tmp_path, tmp_path), MODEL)
    assert caught.value.exit_code == 2
    assert "--require-acceptance" in str(caught.value)


def test_requiring_an_acceptance_changes_no_fingerprint() -> None:
    plain = ScoreConfig(model="m", input=("i",), output="o")
    asking = ScoreConfig(model="m", input=("i",), output="o", require_acceptance="a")
    assert plain.fingerprint() == asking.fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": ("i",)}, "either --data"),
        ({"data": None}, "either --data"),
        ({"limit": 5}, "--limit goes with --input"),
        ({"min_sensitivity": 1.2}, "--min-sensitivity must be at least 0 and at most 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_adapting_to_a_handful_of_scans_is_refused() -> None:
    with pytest.raises(ConfigError, match="--limit must be at least 32"):
        AdaptConfig(model="m", input=("i",), output="o", limit=31)
