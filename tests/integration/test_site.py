"""`accept`, `adapt` and an acceptance that scoring requires, on a real Ray session."""

import json
from pathlib import Path
from typing import Any

import pytest

from mribatch.commands.accept import accept
from mribatch.commands.accepted import Accepted
from mribatch.commands.adapt import Adapted, adapt
from mribatch.commands.score import score
from mribatch.errors import InputError, ModelError
from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.settings.score import ScoreConfig
from mribatch.settings.site import AcceptConfig, AdaptConfig
from mribatch.sources.listing import list_scans
from tests.conftest import write_scans

pytestmark = pytest.mark.usefixtures("ray_session")

EACH = 22  # scans of a class: more than a verdict needs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site") / "labelled"
    write_scans(root, {"glioma": EACH, "notumor": EACH})
    (root / "glioma" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    return root


@pytest.fixture(scope="module")
def accepted(ray_session: None, tiny_model: Model, data: Path) -> Accepted:  # noqa: ARG001
    """Accept a model with random weights, once by thresholds that anything passes."""
    nothing = {f"min_{name}": 0.0 for name in ("sensitivity", "specificity", "balanced_accuracy")}
    nothing |= {f"max_{name}": 1.0 for name in ("calibration_error", "corruption_loss")}
    return accept(config(tiny_model, data=str(data), output=str(data.parent / "acceptance"), **nothing))


def config(model: Model, **changes: Any) -> AcceptConfig:
    return AcceptConfig(**{"model": model.uri, "corruption_scans": 4} | changes)


def test_random_weights_are_not_fit_and_the_page_and_the_json_say_why(
    accepted: Accepted, tiny_model: Model, data: Path
) -> None:
    output = data.parent / "acceptance"  # its scans are scored already
    outcome = accept(config(tiny_model, data=str(data), output=str(output)))
    assert (outcome.verdict, outcome.exit_code) == ("not fit", 3)
    acceptance = json.loads((output / "acceptance.json").read_text())
    assert any(reason.startswith("balanced accuracy is") for reason in acceptance["reasons"])
    assert acceptance["data"]["scans"] == 2 * EACH
    assert acceptance["data"]["rejected"] == {"truncated": 1}
    assert len(acceptance["corruptions"]) == 18
    assert {row["scans"] for row in acceptance["corruptions"]} == {4}
    again = accepted.acceptance["corruptions"]
    assert [row["mean_confidence"] for row in again] == [row["mean_confidence"] for row in acceptance["corruptions"]]
    assert "Not fit" in (output / "acceptance.html").read_text()
    assert (output / "report.html").exists()
    assert all("acceptance" not in uri for uri in list_scans([str(output.parent)])["scan_uri"].to_pylist())


def test_scoring_starts_only_with_an_acceptance_of_this_model_and_its_record_names_it(
    accepted: Accepted, tiny_model: Model, data: Path, tmp_path: Path
) -> None:
    assert (accepted.verdict, accepted.exit_code) == ("fit for triage here", 0)
    place = tmp_path / "acceptance.json"
    place.write_text(json.dumps(accepted.acceptance))

    def run(**changes: Any) -> Any:
        inputs = {
            "model": tiny_model.uri,
            "input": (str(data / "notumor"),),
            "output": str(tmp_path / "out"),
            "limit": 2,
        }
        return score(ScoreConfig(require_acceptance=str(tmp_path), **inputs | changes))

    scored = run()
    record = json.loads((tmp_path / "out" / "_runs" / f"{scored.run_id}.json").read_text())
    assert record["acceptance"]["uri"] == str(place)
    assert record["acceptance"]["verdict"] == "fit for triage here"
    place.write_text(json.dumps({**accepted.acceptance, "verdict": "not fit"}))
    with pytest.raises(ModelError, match="says 'not fit'"):
        run(input=("nowhere",))


def test_without_labels_it_says_what_can_be_said(tiny_model: Model, data: Path, tmp_path: Path) -> None:
    outcome = accept(config(tiny_model, input=(str(data / "notumor"),), limit=5, output=str(tmp_path)))
    assert (outcome.verdict, outcome.exit_code) == ("not judged: no labels", 3)
    assert sum(outcome.acceptance["predicted"].values()) == 5
    assert outcome.acceptance["corruptions"][0]["loss"] is None


def adapted(model: Model, data: Path, output: Path, **changes: Any) -> Adapted:
    values = {"model": model.uri, "input": (str(data),), "output": str(output), "exclude": ("glioma/broken.png",)}
    return adapt(AdaptConfig(**values | changes))


def test_an_adapted_model_is_a_model_of_its_own_and_its_card_names_no_scan(
    tiny_model: Model, data: Path, tmp_path: Path
) -> None:
    outcome = adapted(tiny_model, data, tmp_path / "here", limit=40)
    model = directory.load_model(str(tmp_path / "here"))
    assert model.digest == outcome.model.digest != tiny_model.digest
    assert model.facts["adapted"]["from"] == tiny_model.digest
    assert (model.facts["adapted"]["scans"], model.facts["adapted"]["labelled"]) == (40, None)
    text = (tmp_path / "here" / "MODEL_CARD.md").read_text() + (tmp_path / "here" / "model.json").read_text()
    assert str(data) not in text
    assert "glioma_00" not in text
    assert adapted(tiny_model, data, tmp_path / "again", limit=40).model.digest == model.digest
    with pytest.raises(InputError, match=r"22 different scans .* at least 32"):
        adapted(tiny_model, data / "notumor", tmp_path / "few", exclude=())


def test_what_labelled_scans_say_decides_and_a_worse_model_is_not_written(
    tiny_model: Model, data: Path, tmp_path: Path
) -> None:
    """The labels are those that the model itself gives, so that every change is for the worse."""
    score(ScoreConfig(model=tiny_model.uri, input=(str(data),), output=str(tmp_path / "scored"), max_reject_rate=1.0))
    import mribatch

    rows = mribatch.read_predictions(str(tmp_path / "scored"))
    lines = [f"{row['scan_uri']},{row['predicted_class']}" for row in rows.to_pylist() if row["predicted_class"]]
    own, other = tmp_path / "own.csv", tmp_path / "other.csv"
    swapped = {"glioma": "notumor", "notumor": "glioma"}
    own.write_text("\n".join(["uri,label", *lines]))
    other.write_text(
        "\n".join(["uri,label", *(f"{uri},{swapped[label]}" for uri, label in (x.split(",") for x in lines))])
    )
    with pytest.raises(InputError, match=r"nothing was written: balanced accuracy 1\.0000 before"):
        adapted(tiny_model, data, tmp_path / "worse", data=str(own))
    assert not (tmp_path / "worse" / "model.json").exists()
    outcome = adapted(tiny_model, data, tmp_path / "better", data=str(other))
    assert outcome.duel is not None
    assert outcome.duel.before == 0 < outcome.duel.after
    assert "| balanced accuracy | 0.00% |" in (tmp_path / "better" / "MODEL_CARD.md").read_text()
