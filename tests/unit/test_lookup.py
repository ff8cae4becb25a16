"""Where --model looks: the path itself, models/ of the current folder, then the folders of MRIBATCH_MODELS."""

import os
from pathlib import Path

import pytest

from mribatch.errors import ConfigError, ModelError
from mribatch.models.lookup import FOLDERS, locate


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; MRIBATCH_MODELS is not set."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv(FOLDERS, raising=False)
    return tmp_path / "here"


def test_what_exists_as_a_path_is_taken_first(here: Path) -> None:
    model(here / "v1")
    model(here / "models" / "v1")
    assert locate("v1") == "v1"
    assert locate(str(here / "v1")) == str(here / "v1")


def test_a_name_is_found_in_models_of_the_current_folder_before_other_folders(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDERS, str(tmp_path / "others"))
    model(tmp_path / "others" / "v1")
    assert locate("v1") == str(tmp_path / "others" / "v1")
    model(here / "models" / "v1")
    assert locate("v1") == str(here / "models" / "v1")


def test_the_folders_are_tried_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDERS, os.pathsep.join([str(tmp_path / "a"), "", str(tmp_path / "b")]))
    model(tmp_path / "b" / "v1")
    assert locate("v1") == str(tmp_path / "b" / "v1")
    model(tmp_path / "a" / "v1")
    assert locate("v1") == str(tmp_path / "a" / "v1")


def test_a_folder_of_models_may_be_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "mribatch.stores.uris.exists", lambda uri: bool(asked.append(uri)) or uri.startswith("s3://second/")
    )
    monkeypatch.setenv(FOLDERS, os.pathsep.join(["s3://first/models", str(tmp_path), "s3://second"]))
    assert locate("v1") == "s3://second/v1"
    assert asked[2:] == ["s3://first/models/v1", str(tmp_path / "v1"), "s3://second/v1"]


@pytest.mark.parametrize("uri", ["s3://bucket/models/v1", "s3://bucket"])
def test_a_uri_on_s3_is_taken_as_it_is(uri: str) -> None:
    assert locate(uri) == uri


def test_an_unknown_name_is_answered_with_where_it_looked_and_what_is_there(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(here / "models" / "brain-mri-v2")
    with pytest.raises(ModelError) as caught:
        locate("brain-mri-v3")
    message = str(caught.value)
    assert message.startswith("no model at brain-mri-v3 ")
    assert f"{here}, which has no models" in message
    assert f"{here}/models, which has brain-mri-v2" in message
    assert f"{FOLDERS} is not set" in message
    assert message.endswith("did you mean brain-mri-v2?")
    monkeypatch.setenv(FOLDERS, str(tmp_path / "others"))
    model(tmp_path / "others" / "spine")
    with pytest.raises(ModelError, match=f"{tmp_path}/others, which has spine") as caught:
        locate("brain-mri-v3")
    assert "is not set" not in str(caught.value)


def test_an_absolute_path_is_looked_for_in_no_other_folder(here: Path) -> None:
    model(here / "models" / "v1")
    with pytest.raises(
        ModelError, match=rf"\(looked in {here}, which has no models\): train one with `mribatch train`"
    ):
        locate(str(here / "v1"))


def test_a_misspelled_path_is_compared_with_its_neighbours(here: Path) -> None:
    model(here / "models" / "brain")
    with pytest.raises(ModelError, match="did you mean brain"):
        locate(str(here / "models" / "brian"))


@pytest.mark.parametrize("name", ["", "gs://bucket/v1"])
def test_what_is_neither_path_nor_s3_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a local path or s3://"):
        locate(name)
