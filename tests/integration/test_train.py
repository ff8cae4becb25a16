"""`train` on a real Ray session: it learns, splits by content, and one worker takes the same steps as two."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import ray.train
from PIL import Image
from ray.train import FailureConfig, RunConfig, ScalingConfig

from mribatch.cluster.trainer import Trainer
from mribatch.commands.calibrate import calibrate
from mribatch.commands.score import score
from mribatch.commands.train import Trained, train
from mribatch.errors import ConfigError, InputError, ModelError
from mribatch.models import directory, trained_on
from mribatch.predictions import ledger
from mribatch.settings.calibrate import CalibrateConfig
from mribatch.settings.score import ScoreConfig
from mribatch.settings.train import TrainConfig
from mribatch.sources import clusters
from mribatch.sources.listing import list_scans
from mribatch.stores import uris
from mribatch.training.fit import HISTORY

pytestmark = pytest.mark.usefixtures("ray_session")

ScanFolder = Callable[..., list[str]]


def settings(data: Path | str, output: Path | str, **changes: Any) -> TrainConfig:
    network: dict[str, Any] = {"backbone": "cnn", "image_side": 32}
    steps: dict[str, Any] = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3, "validation_fraction": 0.25}
    return TrainConfig(data=str(data), output=str(output), **{**network, **steps, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, scan_folder: ScanFolder) -> Path:
    """Write 96 images of two classes, and copies of 32 of them."""
    root = tmp_path_factory.mktemp("labelled") / "data"
    scan_folder(root, {"glioma": 48, "notumor": 48})
    for number, path in enumerate(sorted(root.rglob("*.*"))[::3]):
        shutil.copy(path, path.with_stem(f"copy{number}"))
    return root


@pytest.fixture(scope="module")
def trained(ray_session: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Trained]:  # noqa: ARG001
    """Train a model. Return the settings and the result."""
    config = settings(data, tmp_path_factory.mktemp("trained") / "model", epochs=6, patience=6)
    return config, train(config)


@pytest.mark.slow
def test_enough_validation_scans_calibrate_the_model_and_its_rows_say_what_to_look_at(
    tmp_path: Path, scan_folder: ScanFolder
) -> None:
    counts = {"glioma": 50, "notumor": 50}
    for split in ("Training", "Validation"):
        scan_folder(tmp_path / "data" / split, counts)
    for path in (tmp_path / "data" / "Validation").rglob("*.*"):
        pixels = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(255 - pixels[::-1]).save(path)
    trained = train(settings(tmp_path / "data", tmp_path / "model", epochs=1))
    assert trained.model.facts["calibration"]["referred"] <= 0.06
    assert trained.model.digest in (tmp_path / "model" / "MODEL_CARD.md").read_text()
    directory.load_model(trained.model.uri)
    scored = score(
        ScoreConfig(model=trained.model.uri, input=(f"{tmp_path}/data/Validation",), output=f"{tmp_path}/out")
    )
    rows = ledger.predictions(scored.output, scored.digest).to_pylist()
    assert sum((scored.referred or {}).values()) == sum(row["referral"] == "review" for row in rows) <= 0.06 * len(rows)
    again = calibrate(
        CalibrateConfig(
            model=trained.model.uri, data=f"{tmp_path}/data", output=f"{tmp_path}/again", false_referrals=0.2
        )
    )
    assert again.model.digest != trained.model.digest
    assert again.model.temperature == trained.model.temperature
    assert "for review" in again.table()
    with pytest.raises(ConfigError, match="holds a model already"):
        calibrate(CalibrateConfig(model=trained.model.uri, data=f"{tmp_path}/data", output=trained.model.uri))


def test_training_learns_and_writes_a_model_that_scores(
    trained: tuple[TrainConfig, Trained], data: Path, tmp_path: Path
) -> None:
    config, result = trained
    best = min(result.history.to_pylist(), key=lambda row: row["val_loss"])
    assert best["val_accuracy"] >= 0.9, "two classes of plain patterns"
    assert result.history.column_names == list(HISTORY)
    model = Path(config.output)
    files = {"model.json", "weights.h5", "MODEL_CARD.md", "history.parquet", "curves.png", "training_scans.parquet"}
    assert {path.name for path in model.iterdir()} == files
    card = (model / "MODEL_CARD.md").read_text()
    assert result.model.digest in card
    assert "not a medical device" in card
    assert card.count("| no evidence |") == 3
    for name in ("MODEL_CARD.md", "model.json"):
        assert str(data.parent) not in (model / name).read_text(), "folders of this machine mean nothing to others"
    assert pq.read_table(model / "history.parquet").num_rows == 6
    scored = score(ScoreConfig(model=str(model), input=(str(data),), output=str(tmp_path / "out")))
    assert (scored.planned, scored.failed) == (128, 0)
    assert scored.by_class["glioma"] == pytest.approx(64, abs=8)


def test_no_listing_takes_the_files_of_a_training_for_scans(trained: tuple[TrainConfig, Trained]) -> None:
    with pytest.raises(InputError, match="at least one file that is not mribatch's own output"):
        list_scans([str(Path(trained[0].output).parent)])


def test_the_split_never_separates_copies_of_an_image(trained: tuple[TrainConfig, Trained]) -> None:
    facts = trained[1].model.facts["training"]["data"]
    assert (facts["scans"], facts["different_images"]) == (128, 96)
    split = facts["split"]
    assert (split["train"] + split["validation"], split["set_aside"]) == (128, 0)
    assert split["validation"] >= 24, "a quarter of the images, and their copies with them"


def test_the_model_records_its_training_scans_and_the_run_its_clusters(trained: tuple[TrainConfig, Trained]) -> None:
    config, result = trained
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(config.data).rglob("*.*")}
    assert trained_on.read(result.model) == digests
    (run,) = (Path(config.output).parent / "_training").iterdir()
    assert set(clusters.read(str(run / clusters.FILE))) == digests
    assert "near copies kept apart" in result.table()


def test_a_leak_ends_training_with_exit_code_2_unless_it_is_allowed(data: Path, tmp_path: Path) -> None:
    for split, start in (("Training", 0), ("Validation", 24)):
        for path in sorted(data.rglob("*_*.*")):
            number = int(path.stem.partition("_")[2])
            if start <= number < start + 24:
                place = tmp_path / "data" / split / path.parent.name / path.name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)
    original = tmp_path / "data" / "Training" / "glioma" / "glioma_0002.png"
    planted = tmp_path / "data" / "Validation" / "glioma" / "planted.png"
    Image.open(original).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(planted)
    config = settings(tmp_path / "data", tmp_path / "model", epochs=1)
    with pytest.raises(InputError, match=f"1 of 49 validation scans .* such as {planted} and {original}") as refusal:
        train(config)
    assert refusal.value.exit_code == 2
    allowed = train(replace(config, allow_leaks=True))
    split = allowed.model.facts["training"]["data"]["split"]
    assert (split["validation"], split["set_aside"], split["leaks"]) == (49, 0, {"validation": 1})
    assert "1 of 49 validation scans have a near copy" in allowed.table()
    assert "These figures leak" in (tmp_path / "model" / "MODEL_CARD.md").read_text()


def test_too_few_scans_for_one_step_are_refused_before_a_worker_starts(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"\d+ training scans do not fill one global batch of 1 × 512: lower --batch-size"
    ):
        train(settings(data, tmp_path / "model", batch_size=512))
    assert not list((tmp_path / "_training").rglob("checkpoint_*"))


def test_a_run_of_the_same_name_with_other_settings_is_refused(trained: tuple[TrainConfig, Trained]) -> None:
    config, _ = trained
    storage = Path(config.output).parent / "_training"
    with pytest.raises(ConfigError, match="other settings"):
        train(replace(config, learning_rate=1e-4, storage=str(storage), run_name=next(storage.iterdir()).name))


def test_training_starts_from_another_model_with_data_checkpoints_and_model_on_s3(
    trained: tuple[TrainConfig, Trained], data: Path, bucket: str
) -> None:
    first = trained[1]
    for path in data.rglob("*.*"):
        uris.put(f"{bucket}/data/{path.relative_to(data)}", path.read_bytes())
    config = settings(
        f"{bucket}/data",
        f"{bucket}/model",
        storage=f"{bucket}/checkpoints",
        run_name="s3",
        start_from=first.model.uri,
        epochs=1,
        learning_rate=1e-5,
        rotation_deg=10,
        zoom=0.1,
        average=0.9,
    )
    second = train(config)
    began, untrained = (run.history["loss"][0].as_py() for run in (second, first))
    assert began < 0.5 * untrained, "it starts from the trained weights"
    (before,) = second.model.facts["training"]["started_from"]
    assert before == {"digest": first.model.digest, "command": first.model.facts["training"]["command"]}
    card = uris.read(f"{bucket}/model/MODEL_CARD.md").decode()
    assert f"`models/stage-1`: model {first.model.digest}" in card
    assert card.count("models/stage-1") == 3, "the first command writes it, the second reads it, a line explains it"
    assert directory.load_model(f"{bucket}/model").digest == second.model.digest
    stored = [entry.uri for entry in uris.walk(f"{bucket}/checkpoints")]
    assert any(uri.endswith("optimizer.npz") for uri in stored)
    averaged, learning = (
        uris.read(next(uri for uri in stored if uri.endswith(f"{name}.weights.h5"))) for name in ("last", "learning")
    )
    assert averaged != learning, "the averaged weights are kept beside those that training continues from"
    assert train(config).model.digest == second.model.digest, "it resumes, and nothing is left to do"
    with pytest.raises(ConfigError, match="other settings"):
        train(replace(config, start_from=second.model.uri))  # a run does not change its start


def test_too_many_unreadable_scans_prevent_a_training(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    for number in range(20):
        (broken / "glioma" / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="20 of 148 scans are unreadable"):
        train(settings(broken, tmp_path / "model"))


def test_a_class_without_a_readable_scan_is_not_left_out_silently(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "pituitary").mkdir()
    (tmp_path / "data" / "pituitary" / "1.jpg").write_bytes(b"no scan")
    with pytest.raises(InputError, match="no scan of pituitary can be read: repair them, or leave the class out"):
        train(settings(tmp_path / "data", tmp_path / "model"))


def test_the_end_of_a_training_waits_for_no_dashboard_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def callbacks() -> set[str]:
        return {type(callback).__name__ for callback in Trainer(print)._create_default_callbacks()}

    asks_the_dashboard = "PlacementGroupCleanerCallback"
    assert asks_the_dashboard not in callbacks()
    monkeypatch.setattr("mribatch.cluster.trainer.has_dashboard", lambda: True)
    assert asks_the_dashboard in callbacks()


STEPS, GLOBAL_BATCH, SIDE = 8, 16, 32


def _same_steps(config: dict[str, Any]) -> None:
    """Train a worker on its share of fixed global batches, as `fit` does. Write the losses to a file."""
    import keras
    import tensorflow as tf

    from mribatch.models import networks
    from mribatch.training.step import TrainingStep

    workers, rank = ray.train.get_context().get_world_size(), ray.train.get_context().get_world_rank()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = networks.build("cnn", 2, workers=workers, seed=1)
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0  # each worker draws its own; everything else must agree
        # Adamax moves each weight by roughly the sign of its gradient. Without an epsilon of the gradients' size, rounding
        # could flip the sign of a gradient near 0, and the two runs would diverge.
        optimizer = keras.optimizers.Adamax(2e-4, epsilon=1e-2)
        optimizer.build(model.trainable_variables)
    step = TrainingStep(strategy, model, optimizer, augment=None)
    rng = np.random.default_rng(0)
    losses = []
    for number in range(STEPS):
        classes = rng.integers(0, 2, GLOBAL_BATCH)
        noise = rng.integers(0, 200, (GLOBAL_BATCH, SIDE, SIDE, 3))
        pixels = (noise + 8 * classes[:, None, None, None]).astype(np.uint8)
        own = slice(rank * GLOBAL_BATCH // workers, (rank + 1) * GLOBAL_BATCH // workers)
        batch = (pixels[own], classes[own], np.ones(GLOBAL_BATCH // workers, np.float32))
        sums = step.train(batch, side_px=SIDE, seed=(0, 2 * number))
        losses.append(sums[0] / sums[1])
    if rank == 0:
        Path(config["result"]).write_text(json.dumps(losses))
    ray.train.report({})


def _losses(workers: int, folder: Path) -> list[float]:
    result = folder / f"losses-{workers}.json"
    retries = FailureConfig(max_failures=2)  # by the time TensorFlow takes its free port, that may be in use
    Trainer(
        _same_steps,
        train_loop_config={"result": str(result)},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(name=f"same-{workers}", storage_path=str(folder), failure_config=retries),
    ).fit()
    return list(json.loads(result.read_text()))


def test_one_worker_and_two_give_the_same_losses_on_the_same_global_batches(tmp_path: Path) -> None:
    """Allow 1e-3 relative after 8 steps: float32 sums run in another order, batch statistics over the network."""
    alone, shared = _losses(1, tmp_path), _losses(2, tmp_path)
    assert len(alone) == STEPS
    assert alone[-1] < alone[0], "it learns, so a step that does nothing would show"
    np.testing.assert_allclose(alone, shared, rtol=1e-3)


@pytest.mark.slow
def test_two_workers_train_one_model_on_shares_of_the_scans(data: Path, tmp_path: Path) -> None:
    result = train(settings(data, tmp_path / "model", workers=2, batch_size=4, epochs=3))
    first, *_, last = result.history.to_pylist()
    assert last["epoch"] == 3
    assert last["loss"] < first["loss"]
    assert last["val_accuracy"] >= 0.75, "two classes of plain patterns"


def test_training_does_not_start_from_a_model_of_another_backbone(
    trained: tuple[TrainConfig, Trained], data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="xception"):
        train(settings(data, tmp_path / "third", start_from=trained[1].model.uri, backbone="xception", image_side=71))
