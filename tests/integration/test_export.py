"""`export` on a real Ray session: a model of its own that scores, is promoted, and names no scan."""

import json
from pathlib import Path

import pytest

from mribatch.commands.export import export
from mribatch.commands.exported import Exported
from mribatch.commands.promote import promote
from mribatch.commands.score import score
from mribatch.errors import ConfigError, ModelError
from mribatch.models import directory
from mribatch.settings.evaluate import PromoteConfig
from mribatch.settings.export import ExportConfig
from mribatch.settings.score import ScoreConfig
from tests.conftest import make_model, write_scans

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_scans(folder, {"glioma": 10, "notumor": 10})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_model(folder / "plain")
    return folder


def settings(models: Path, data: Path) -> ExportConfig:
    """Return the settings of an export that any loss is allowed in: the weights are random."""
    return ExportConfig(
        model=str(models / "plain"),
        precision="int8",
        calibration=str(data),
        calibration_scans=16,
        output=str(models / "int8"),
        max_loss=1.0,
    )


@pytest.fixture(scope="module")
def exported(models: Path, data: Path, ray_session: None) -> Exported:  # noqa: ARG001 - it must have started
    return export(settings(models, data))


def test_an_exported_model_is_a_model_of_its_own_and_its_card_names_no_scan(
    exported: Exported, models: Path, data: Path
) -> None:
    plain, int8 = (directory.load_model(str(models / name)) for name in ("plain", "int8"))
    assert int8.digest == exported.model.digest != plain.digest
    assert (int8.precision, int8.facts["exported"]["from"]) == ("int8", plain.digest)
    assert int8.facts["exported"]["compared"]["scans"] == 20
    for name in ("MODEL_CARD.md", "model.json"):
        text = (models / "int8" / name).read_text()
        assert str(data) not in text
        assert "glioma_00" not in text
    assert "the same class for" in exported.table()
    assert f"model {int8.digest}, int8, from {plain.digest}" in exported.table()


def test_an_exported_model_is_promoted_and_scores_with_openvino_as_any_model(
    exported: Exported, models: Path, data: Path, tmp_path: Path
) -> None:
    outcome = promote(
        PromoteConfig(models=str(models), candidate="int8", data=str(data), output=str(tmp_path / "promotion"))
    )
    assert outcome.promoted
    scored = score(ScoreConfig(model=str(models), input=(str(data / "glioma"),), output=str(tmp_path / "out"), limit=3))
    record = json.loads((tmp_path / "out" / "_runs" / f"{scored.run_id}.json").read_text())
    assert record["engine"]["name"] == "openvino"
    assert (tmp_path / "out" / f"model={exported.model.digest}").exists()


def test_an_exported_model_is_not_exported_again_and_no_model_is_overwritten(
    exported: Exported, models: Path, data: Path
) -> None:
    with pytest.raises(ConfigError, match="holds a model already"):
        export(settings(models, data))
    again = ExportConfig(model=exported.model.uri, precision="bf16", calibration=str(data), output=str(models / "new"))
    with pytest.raises(ModelError, match="has int8 precision, and such a model only scores"):
        export(again)
