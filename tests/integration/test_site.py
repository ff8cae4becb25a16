"""`accept`, `adapt` and an acceptance that scoring requires, on a real Ray session."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mribatch.commands.accept import accept
from mribatch.commands.accepted import Accepted
from mribatch.commands.adapt import Adapted, adapt
from mribatch.commands.read_predictions import read_predictions
from mribatch.commands.score import score
from mribatch.errors import InputError, ModelError
from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.settings.score import ScoreConfig
from mribatch.settings.site import AcceptConfig, AdaptConfig
from mribatch.sources.listing import list_scans
from tests.conftest import make_model, write_scans
from tests.unit.volume_files import as_zip

pytestmark = pytest.mark.usefixtures("ray_session")

EACH = 22  # scans of a class: more than a verdict needs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site") / "labelled"
    write_scans(root, {"glioma": EACH, "notumor": EACH})
    (root / "glioma" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    return root


@pytest.fixture(scope="module")
def model(data: Path) -> Model:
    """Return a tiny model whose random weights give both classes to these scans."""
    return make_model(data.parent / "tiny", seed=3)


@pytest.fixture(scope="module")
def output(data: Path) -> Path:
    return data.parent / "acceptance"


@pytest.fixture(scope="module")
def accepted(ray_session: None, model: Model, data: Path, output: Path) -> Accepted:  # noqa: ARG001
    return accept(AcceptConfig(model=model.uri, data=str(data), output=str(output), corruption_scans=4))


def test_random_weights_are_not_fit_and_the_page_and_the_json_say_why(accepted: Accepted, output: Path) -> None:
    assert (accepted.verdict, accepted.exit_code) == ("not fit", 3)
    acceptance = json.loads((output / "acceptance.json").read_text())
    assert any(reason.startswith("balanced accuracy is") for reason in acceptance["reasons"])
    assert acceptance["data"]["scans"] == 2 * EACH
    assert acceptance["data"]["rejected"] == {"truncated": 1}
    assert len(acceptance["corruptions"]) == 18
    assert {row["scans"] for row in acceptance["corruptions"]} == {4}
    assert "Not fit" in (output / "acceptance.html").read_text()
    assert (output / "report.html").exists()
    assert all("acceptance" not in uri for uri in list_scans([str(output.parent)])["scan_uri"].to_pylist())


def test_without_labels_it_says_what_can_be_said(
    accepted: Accepted, model: Model, data: Path, output: Path, tmp_path: Path
) -> None:
    shutil.copytree(output / "predictions", tmp_path / "out" / "predictions")  # so that few scans are scored again
    scans = sorted((data / "notumor").iterdir())
    (tmp_path / "a.zip").write_bytes(as_zip({path.name: path.read_bytes() for path in scans[:2]}))
    (tmp_path / "b.zip").write_bytes(as_zip({path.name: path.read_bytes() for path in scans[2:4]}))
    inputs = (*map(str, scans[4:7]), str(tmp_path / "*.zip"))
    outcome = accept(AcceptConfig(model=model.uri, input=inputs, output=str(tmp_path / "out"), corruption_scans=4))
    assert (outcome.verdict, outcome.exit_code) == ("not judged: no labels", accepted.exit_code)
    assert sum(outcome.acceptance["predicted"].values()) == 7, "three files, and the members of two archives"
    assert outcome.acceptance["corruptions"][0]["scans"] == 3
    assert outcome.acceptance["corruptions"][0]["loss"] is None


def test_scans_that_the_model_was_trained_on_can_be_left_out(
    accepted: Accepted, model: Model, data: Path, output: Path, tmp_path: Path
) -> None:
    (tmp_path / "predictions").symlink_to(output / "predictions")
    apart = (str(data / "glioma" / "glioma_000*"), str(data / "notumor"))
    config = AcceptConfig(
        model=model.uri, data=str(data), apart_from=apart, output=str(tmp_path), corruption_scans=1, min_scans=1
    )
    outcome = accept(config)
    assert outcome.acceptance["data"]["scans"] == EACH - 10
    assert accepted.acceptance["data"]["apart_from"] is None
    sentence = f"{EACH + 10} of the {2 * EACH + 1} evaluated scans are copies of them and were left out"
    assert sentence in outcome.table()
    assert sentence in (tmp_path / "acceptance.html").read_text()


def test_scoring_starts_only_with_an_acceptance_of_this_model_and_its_record_names_it(
    accepted: Accepted, model: Model, data: Path, tmp_path: Path
) -> None:
    place = tmp_path / "acceptance.json"

    def run(verdict: str, scans: str) -> Any:
        place.write_text(json.dumps({**accepted.acceptance, "verdict": verdict}))
        flags = {"output": str(tmp_path / "out"), "limit": 2, "require_acceptance": str(tmp_path)}
        return score(ScoreConfig(model=model.uri, input=(scans,), **flags))  # type: ignore[arg-type]  # of mixed types

    scored = run("fit for triage here", str(data / "notumor"))
    record = json.loads((tmp_path / "out" / "_runs" / f"{scored.run_id}.json").read_text())
    assert record["acceptance"]["uri"] == str(place)
    assert record["acceptance"]["verdict"] == "fit for triage here"
    with pytest.raises(ModelError, match="says 'not fit'"):
        run("not fit", "nowhere")


def adapted(model: Model, scans: Path, output: Path, labels: Path | None = None) -> Adapted:
    config = AdaptConfig(
        model=model.uri,
        input=(str(scans),),
        output=str(output),
        exclude=("*/broken.png",) if (scans / "glioma").exists() else (),
        data=None if labels is None else str(labels),
    )
    return adapt(config)


def test_a_model_that_gets_worse_on_labelled_scans_is_not_written(
    accepted: Accepted, model: Model, data: Path, output: Path, tmp_path: Path
) -> None:
    """The labels are the answers of the model itself, so every change is for the worse."""
    assert accepted.acceptance["predicted"]["glioma"] not in (0, 2 * EACH), "the model gives both classes"
    rows = read_predictions(str(output / "predictions")).to_pylist()
    lines = [f"{row['scan_uri']},{row['predicted_class']}" for row in rows if row["predicted_class"]]
    (tmp_path / "own.csv").write_text("\n".join(["uri,label", *lines]))
    with pytest.raises(InputError, match=r"nothing was written: balanced accuracy 1\.0000 before"):
        adapted(model, data, tmp_path / "here", tmp_path / "own.csv")
    assert not (tmp_path / "here" / "model.json").exists()


def test_an_adapted_model_is_a_model_of_its_own_and_its_card_names_no_scan(
    model: Model, data: Path, tmp_path: Path
) -> None:
    outcome = adapted(model, data, tmp_path / "here")
    here = directory.load_model(str(tmp_path / "here"))
    assert here.digest == outcome.model.digest != model.digest
    assert (here.facts["adapted"]["from"], here.facts["adapted"]["scans"]) == (model.digest, 2 * EACH)
    assert "without --data, nothing tells" in outcome.table()
    for name in ("MODEL_CARD.md", "model.json"):
        text = (tmp_path / "here" / name).read_text()
        assert str(data) not in text
        assert "glioma_00" not in text


def test_a_handful_of_scans_is_refused_before_anything_starts(model: Model, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"22 different scans .* at least 32"):
        adapted(model, data / "notumor", tmp_path / "few")
