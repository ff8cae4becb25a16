"""A model directory is complete, small and exactly what its digest names, or it is refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from mribatch.errors import ModelError
from mribatch.models import directory, networks
from mribatch.models.format import Model
from mribatch.models.predictor import Predictor
from tests.conftest import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("models") / "m")


def copy_of(model: Model, folder: Path) -> Path:
    folder.mkdir()
    for path in Path(model.uri).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_kernels_are_stored_in_half_precision_and_vectors_in_full(model: Model) -> None:
    kinds: dict[int, set[str]] = {}
    with h5py.File(Path(model.uri) / "weights.h5") as file:
        file.visititems(
            lambda _, item: (
                kinds.setdefault(min(item.ndim, 2), set()).add(str(item.dtype)) if hasattr(item, "dtype") else None
            )
        )
    assert kinds[2] == {"float16"}
    assert kinds[1] == {"float32"}


def test_a_loaded_network_computes_what_the_saved_one_did_up_to_half_precision(model: Model) -> None:
    from mribatch.models import networks

    original = networks.build("cnn", 2, side_px=32, seed=0)
    loaded = networks.load_network(directory.open_model(model.uri))
    images = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), original.predict(images, verbose=0), atol=5e-3)


def test_the_frozen_function_computes_what_the_network_computes(model: Model) -> None:
    loaded = networks.load_network(directory.open_model(model.uri))
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), np.uint8)
    expected = loaded.predict(pixels / 127.5 - 1, verbose=0)
    np.testing.assert_allclose(Predictor(model.uri).probabilities(pixels), expected, atol=1e-5)


def test_equal_weights_have_one_digest_and_other_labels_another(model: Model, tmp_path: Path) -> None:
    assert make_model(tmp_path / "same").digest == model.digest
    assert make_model(tmp_path / "other", labels=("a", "b")).digest != model.digest
    assert make_model(tmp_path / "seed", seed=1).digest != model.digest


@pytest.mark.parametrize("name", ["model.json", "weights.h5"])
def test_a_missing_file_is_named(model: Model, tmp_path: Path, name: str) -> None:
    folder = copy_of(model, tmp_path / "copy")
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        directory.load_model(str(folder))


def test_truncated_weights_are_refused_at_every_load(model: Model, tmp_path: Path) -> None:
    folder = copy_of(model, tmp_path / "copy")
    weights = folder / "weights.h5"
    weights.write_bytes(weights.read_bytes()[:-100])
    for use in (directory.load_model, Predictor):
        with pytest.raises(ModelError, match=r"expected SHA-256 .* found"):
            use(str(folder))


def test_a_model_replaced_after_planning_is_refused(model: Model) -> None:
    with pytest.raises(ModelError, match=f"expected model 0123456789ab in .*, found {model.digest}"):
        directory.open_model(model.uri, "0123456789ab")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["glioma"]}, "two or more"),
        ({"labels": ["glioma", "glioma"]}, "each once"),
        ({"image_side_px": 64}, "was altered"),
        ({"pixels": {"scale": 1.0}}, "pixel scaling"),
        ({"format": 99}, "format 99"),
    ],
)
def test_an_altered_description_is_refused(
    model: Model, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = copy_of(model, tmp_path / "copy")
    facts = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(facts | change))
    with pytest.raises(ModelError, match=message):
        directory.load_model(str(folder))


def test_labels_that_do_not_fit_the_weights_are_refused(model: Model, tmp_path: Path) -> None:
    folder = copy_of(model, tmp_path / "copy")
    facts = json.loads((folder / "model.json").read_text())
    del facts["digest"]
    (folder / "model.json").write_text(json.dumps(facts | {"labels": ["a", "b", "c"]}))
    with pytest.raises(ModelError, match="do not fit"):
        networks.load_network(directory.open_model(str(folder)))
