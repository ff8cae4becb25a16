"""Classical models: their features, their tuning on training scans only, and their way to disk and back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sklearn
import skops.io
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from mribatch.errors import InputError, ModelError
from mribatch.models import classical_engine, directory, features
from mribatch.models.format import Model
from mribatch.models.predictor import Predictor
from mribatch.training import classical
from mribatch.training.classical import CLASSICAL_MODELS, Span
from tests.conftest import write_scans

SIDE = 24
LABELS = ("glioma", "notumor")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return 80 RGB scans (80, 24, 24, 3) of two classes, one darker, so that a linear model separates them; and their classes."""
    written = write_scans(tmp_path_factory.mktemp("scans"), dict.fromkeys(LABELS, 40), side_px=SIDE)
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in written])
    pixels[40:] //= 2
    return pixels, np.repeat([0, 1], 40)


def fitted(name: str, features: NDArray[Any], classes: NDArray[np.int64], cache: Path) -> classical.Fitted:
    return classical.fit(name, features, classes, np.arange(len(classes)), 0, str(cache))


def saved(name: str, pipeline: Any, folder: Path, **changes: Any) -> Model:
    facts = {
        "labels": list(LABELS),
        "backbone": "none",
        "image_side_px": SIDE,
        "head": {"classifier": name, "features": "pixels"},
        "libraries": {"scikit-learn": sklearn.__version__},
    }
    return directory.save_classical(
        str(folder), classical.stored(pipeline), None, facts | changes, "A test's, {digest}."
    )


def test_grey_is_the_luma_that_pillow_gives(scans: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    pillow = np.stack([np.asarray(Image.fromarray(image).convert("L")).ravel() for image in colour])
    assert np.abs(features.grey(colour).astype(int) - pillow).max() <= 1
    assert (features.grey(scans[0]).reshape(-1, SIDE, SIDE) == scans[0][..., 0]).all(), "grey does not change"


def test_the_components_of_the_span_are_those_of_the_pixels(
    scans: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> None:
    pixels = features.grey(scans[0])
    learnt, other = pixels[::2], pixels[1::2]
    products = features.products(pixels)
    span = Span(products[::2, ::2])
    np.testing.assert_allclose(span.coordinates(products[::2, ::2]), span.training, atol=1e-3)
    components = Pipeline([("pca", PCA(0.95, svd_solver="full")), ("keep", classical.Leading(0.8))])
    components.fit(span.training)
    direct = PCA(0.8, svd_solver="full").fit(features.unit_scaled(learnt))
    assert components["keep"].kept_ == pytest.approx(direct.n_components_, abs=1), (
        "0.95 is passed by a part of a component"
    )
    pipeline = classical.on_pixels(components, span, *features.centred(learnt))
    kept = min(components["keep"].kept_, direct.n_components_)
    np.testing.assert_allclose(
        pipeline["pca"].explained_variance_ratio_[:kept], direct.explained_variance_ratio_[:kept], rtol=1e-3
    )
    ours, theirs = (
        components.transform(span.coordinates(products[1::2, ::2])),
        direct.transform(features.unit_scaled(other)),
    )
    np.testing.assert_allclose(np.abs(ours[:, :kept]), np.abs(theirs[:, :kept]), atol=1e-3)
    np.testing.assert_allclose(pipeline.transform(features.unit_scaled(other)), ours, atol=1e-3)


def test_rows_without_pixels_have_no_features(scans: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    pixels = [scans[0][0].tobytes(), None, scans[0][1].tobytes()]
    table = pa.table({"pixels": pa.array(pixels, pa.binary(SIDE * SIDE * 3)), "decoder_peak_bytes": [1, 1, 1]})
    extracted = features.Extractor(None, SIDE, None)(table)
    assert extracted.column_names == ["pixels"]
    assert extracted["pixels"].is_valid().to_pylist() == [True, False, True]
    kept = features.rows_of(extracted["pixels"].drop_null(), np.uint8)
    np.testing.assert_array_equal(kept, features.grey(scans[0][:2]))


@pytest.mark.parametrize("grey", [0, 7, 255])
def test_scans_that_all_look_the_same_are_refused(grey: int) -> None:
    with pytest.raises(InputError, match="look the same"):
        Span(features.products(np.full((10, 5000), grey, np.uint8)))


def test_a_class_with_one_scan_cannot_be_tuned(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    with pytest.raises(InputError, match="only one scan"):
        fitted("gaussian_nb", features, np.array([0] * 8 + [1]), tmp_path)


def test_copies_of_an_image_are_in_one_fold() -> None:
    groups, classes = np.repeat(np.arange(12), 2), np.repeat([0, 1], 12)
    features = np.zeros((24, 2), np.float32)
    folds = list(classical._folds(features, classes, groups, 0))
    assert len(folds) == classical.FOLDS
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])


@pytest.mark.parametrize("name", [name for name, model in CLASSICAL_MODELS.items() if model.features == "pixels"])
def test_each_model_learns_plain_patterns_and_scores_the_same_from_disk(
    name: str, scans: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path: Path
) -> None:
    pixels, classes = scans
    learnt, other = np.flatnonzero(np.arange(80) % 4 > 0), np.arange(0, 80, 4)
    products = features.products(features.grey(pixels))
    span = Span(products[np.ix_(learnt, learnt)])
    result = fitted(name, span.training, classes[learnt], tmp_path / "cache")
    probabilities = classical_engine.probabilities(
        result.pipeline, span.coordinates(products[np.ix_(other, learnt)]), 2
    )
    assert (probabilities.argmax(axis=1) == classes[other]).mean() >= 0.7, "two classes of plain patterns"
    assert set(result.chosen) == set(CLASSICAL_MODELS[name].grid)
    pipeline = classical.on_pixels(result.pipeline, span, *features.centred(features.grey(pixels[learnt])))
    model = saved(name, pipeline, tmp_path / "model")
    again = Predictor(model.uri).probabilities(pixels[other])
    np.testing.assert_allclose(again, probabilities, atol=1e-3)
    assert model.is_classical
    assert model.kind == name


@pytest.mark.parametrize("name", CLASSICAL_MODELS)
def test_a_class_with_two_training_scans_can_be_fitted(name: str, tmp_path: Path) -> None:
    classes = np.array([0] * 16 + [1] * 2)
    inputs = (np.random.default_rng(0).normal(size=(18, 30)) + classes[:, None]).astype(np.float32)
    result = fitted(name, inputs, classes, tmp_path)
    assert classical_engine.probabilities(result.pipeline, inputs, 2).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_the_same_seed_gives_the_same_answers(
    scans: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path: Path
) -> None:
    pixels, classes = scans
    inputs = Span(features.products(features.grey(pixels))).training
    first, second = (fitted("mlp", inputs, classes, tmp_path / str(n)) for n in (0, 1))
    assert first.chosen == second.chosen
    np.testing.assert_array_equal(
        *(classical_engine.probabilities(result.pipeline, inputs, 2) for result in (first, second)), strict=True
    )


def test_a_classifier_that_holds_foreign_types_is_not_loaded(tmp_path: Path) -> None:
    foreign = Pipeline([("step", FunctionTransformer(json.loads)), ("model", "passthrough")])
    model = saved("svm", foreign, tmp_path / "model")
    with pytest.raises(ModelError, match="not trusted"):
        Predictor(model.uri)


def test_a_classifier_of_another_scikit_learn_is_refused(tmp_path: Path) -> None:
    model = saved("svm", Pipeline([("model", "passthrough")]), tmp_path / "model", libraries={"scikit-learn": "0.24.1"})
    with pytest.raises(ModelError, match=r"scikit-learn 0\.24\.1"):
        Predictor(model.uri)


def test_an_altered_classifier_is_refused(tmp_path: Path) -> None:
    model = saved("svm", Pipeline([("model", "passthrough")]), tmp_path / "model")
    (tmp_path / "model" / "classifier.skops").write_bytes(skops.io.dumps(PCA()))
    with pytest.raises(ModelError, match="SHA-256"):
        directory.load_model(model.uri)


def test_a_model_on_pixels_needs_no_tensorflow(tmp_path: Path) -> None:
    model = saved("svm", Pipeline([("model", "passthrough")]), tmp_path / "model")
    program = "import sys; from mribatch.models.predictor import Predictor; Predictor(sys.argv[1], threads=1); "
    program += "assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program, model.uri], check=True)
