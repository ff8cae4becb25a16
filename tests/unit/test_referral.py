"""Referral: strange, unlike and unsure scans are for review, usual ones rarely; models without it stay as they were."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import softmax
from threadpoolctl import threadpool_info, threadpool_limits

from mribatch import schema
from mribatch.errors import InputError, ModelError
from mribatch.models import directory, trained_on
from mribatch.models.embedding import LayerReader
from mribatch.models.format import Model
from mribatch.models.predictor import Predictor
from mribatch.models.referral import packed, stored_detector
from mribatch.schema import Status
from mribatch.statistics.referral import Detector, Features, Reason, fit_detector, with_thresholds
from tests.conftest import make_model

SIDE = 32


def usual(scans: int, seed: int) -> Features:
    """Return features of a few factors, as those of real scans are."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    factors = rng.normal(0, 1, (scans, 6))
    layers = [factors @ fixed.normal(0, 1, (6, width)) + rng.normal(0, 0.1, (scans, width)) for width in (60, 20)]
    return Features(layers[0].astype(np.float32), np.abs(layers[1]).astype(np.float32))


@pytest.fixture(scope="module")
def fitted() -> Detector:
    train, held = usual(400, 1), usual(400, 2)
    detector = fit_detector(train)
    return with_thresholds(detector, held, np.random.default_rng(2).uniform(0.6, 1, 400), 0.06)


def share(fitted: Detector, features: Features, confidence: float = 0.99) -> float:
    verdicts = fitted.verdicts(features, np.full(len(features.intermediate), confidence))
    return float(np.mean([reason is not None for reason in verdicts.reasons]))


def test_the_thresholds_refer_the_share_that_was_asked_for() -> None:
    held, confidence = usual(1000, 2), np.random.default_rng(2).uniform(0.6, 1, 1000)
    for wanted in (0.05, 0.2):
        detector = with_thresholds(fit_detector(usual(300, 1)), held, confidence, wanted)
        reasons = detector.verdicts(held, confidence).reasons
        assert wanted - 0.01 <= np.mean([reason is not None for reason in reasons]) <= wanted


def test_most_referrals_are_for_the_score_that_finds_foreign_pictures() -> None:
    held, confidence = usual(1000, 2), np.random.default_rng(2).uniform(0.6, 1, 1000)
    detector = with_thresholds(fit_detector(usual(300, 1)), held, confidence, 0.12)
    over = (detector.scores(held, confidence) > detector.thresholds).mean(axis=0)
    assert over[0] > 3 * max(over[1:]) > 0


def test_other_scans_like_the_training_scans_are_rarely_referred(fitted: Detector) -> None:
    assert share(fitted, usual(500, 3)) < 0.1


def test_what_lies_off_the_usual_components_is_foreign(fitted: Detector) -> None:
    strange = usual(50, 4)
    strange = strange._replace(intermediate=strange.intermediate + np.random.default_rng(5).normal(0, 3, (50, 60)))
    verdicts = fitted.verdicts(strange, np.full(50, 0.99))
    assert (verdicts.reasons == Reason.FOREIGN).all()
    assert (verdicts.ood_score > 1).all()


def test_what_is_far_from_every_kept_scan_is_unlike_training(fitted: Detector) -> None:
    other = usual(50, 4)._replace(penultimate=np.eye(20, dtype=np.float32)[np.arange(50) % 20])
    assert set(fitted.verdicts(other, np.full(50, 0.99)).reasons) <= {Reason.UNLIKE_TRAINING, Reason.FOREIGN}


def test_a_usual_scan_with_a_low_confidence_is_unsure(fitted: Detector) -> None:
    reasons = fitted.verdicts(usual(100, 7), np.full(100, 0.3)).reasons
    assert (reasons == Reason.UNSURE).mean() > 0.8
    assert all(reasons)


def test_few_training_scans_are_refused() -> None:
    with pytest.raises(InputError, match="20 or more training scans"):
        fit_detector(usual(19, 1))


# In a model directory


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("models") / "plain")


def rows(pixels: np.ndarray) -> pa.Table:
    """Return decoded rows of these pictures, and one of a rejected scan."""
    data = [*(picture.tobytes() for picture in pixels), None]
    status = [Status.OK] * len(pixels) + [Status.REJECTED]
    return pa.table(
        {
            "status": status,
            "pixels_sha256": [""] * len(data),
            "pixels": pa.array(data, pa.binary(SIDE * SIDE * 3)),
        }
    )


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def calibrated(plain: Model, pixels: np.ndarray) -> Model:
    """Return a copy of the plain model that was calibrated on some pictures."""
    read = LayerReader(plain.uri, plain.digest)(rows(pixels))
    layers = {
        name: np.frombuffer(b"".join(read[name].drop_null().to_pylist()), np.float32) for name in read.column_names[2:]
    }
    features = Features(layers["intermediate"].reshape(40, -1), layers["penultimate"].reshape(40, -1))
    detector = with_thresholds(
        fit_detector(features), features, softmax(layers["logits"].reshape(40, -1) / 2, axis=1).max(axis=1), 0.1
    )
    facts = plain.facts | {"temperature": 2.0}
    return directory.save_calibrated(plain.uri + "-calibrated", plain, packed(detector), facts, "A card, {digest}.")


def test_a_model_without_referral_gives_nulls_and_the_probabilities_of_its_network(
    plain: Model, pixels: np.ndarray
) -> None:
    result = Predictor(plain.uri)(rows(pixels))
    for name in schema.REFERRAL.names:
        assert result[name].null_count == result.num_rows
        assert result[name].type == schema.REFERRAL.field(name).type


def test_a_calibrated_model_has_another_digest_and_the_same_classes(
    plain: Model, calibrated: Model, pixels: np.ndarray
) -> None:
    before, after = (Predictor(model.uri)(rows(pixels)) for model in (plain, directory.load_model(calibrated.uri)))
    assert calibrated.digest != plain.digest
    assert after["predicted_class"] == before["predicted_class"]
    logits = np.log(np.stack([before[f"p_{label}"].drop_null().to_numpy() for label in plain.labels], axis=1)) / 2
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after["confidence"].drop_null().to_numpy(), expected.max(axis=1), atol=1e-5)


def test_a_calibrated_and_an_adapted_model_know_which_scans_their_weights_were_trained_on(
    calibrated: Model, tmp_path: Path
) -> None:
    """`evaluate` and `train --start-from` read them."""
    shutil.copytree(calibrated.uri, tmp_path / "trained")
    entry = trained_on.write(str(tmp_path / "trained"), {"training": ["ab"], "validation": ["cd"]})
    facts = calibrated.facts | {"training": {"scans": entry}}
    trained = directory.redescribe(Model(uri=str(tmp_path / "trained"), facts=calibrated.facts), facts, "{digest}")
    referral = directory.read_file(trained, "referral")
    hotter = trained.facts | {"temperature": 3.0}
    weights = tmp_path / "new.weights.h5"
    shutil.copy(tmp_path / "trained" / "weights.h5", weights)
    copies = (
        directory.save_calibrated(str(tmp_path / "hotter"), trained, referral, hotter, "{digest}"),
        directory.save_changed(trained, str(tmp_path / "adapted"), weights, trained.facts, "{digest}"),
    )
    for model in copies:
        assert trained_on.read(model) == {"ab", "cd"}


def test_a_row_of_a_calibrated_model_says_whether_to_look_at_it(calibrated: Model, pixels: np.ndarray) -> None:
    result = Predictor(calibrated.uri)(rows(np.concatenate([pixels, pixels[:1] * 0 + 255]))).to_pylist()
    assert {row["referral"] for row in result[:-1]} == {"auto", "review"}
    assert result[-1]["referral"] is result[-1]["ood_score"] is None, "a rejected scan"
    for row in result[:-1]:
        assert (row["referral_reason"] is not None) == (row["referral"] == "review")
        assert row["uncertainty"] == pytest.approx(1 - row["confidence"], abs=1e-6)


def test_the_threads_of_numpy_leave_the_cores_to_the_engine(calibrated: Model) -> None:
    """They wait busily for tens of milliseconds after each product, which took a seventh of the rate of an int8 model."""
    with threadpool_limits(2, "blas"):
        Predictor(calibrated.uri)
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}


def test_the_stored_arrays_are_small_and_decide_as_those_that_were_fitted(calibrated: Model) -> None:
    stored = stored_detector(calibrated)
    assert packed(stored) == packed(stored)
    assert (Path(calibrated.uri) / "referral.npz").stat().st_size < 400_000


def test_altered_thresholds_or_temperatures_are_refused(calibrated: Model, tmp_path: Path) -> None:
    for name in ("weights.h5", "referral.npz", "model.json"):
        (tmp_path / name).write_bytes((Path(calibrated.uri) / name).read_bytes())
    facts = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(facts | {"temperature": 1.5}))
    with pytest.raises(ModelError, match="was altered"):
        directory.load_model(str(tmp_path))
    (tmp_path / "model.json").write_text(json.dumps(facts))
    (tmp_path / "referral.npz").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"referral\.npz is not the file"):
        directory.load_model(str(tmp_path))


def test_the_shipped_model_keeps_its_digest() -> None:
    model = directory.open_model("models/brain-mri-v2")
    assert (model.digest, model.has_referral) == ("1d0d0ebde5d4", True)


def test_rows_of_older_versions_are_read_with_nulls() -> None:
    older = schema.prediction_schema(("a",)).empty_table().drop_columns(schema.REFERRAL.names)
    assert schema.upgraded(older).schema.equals(schema.prediction_schema(("a",)))
