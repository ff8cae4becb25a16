"""Training on a real Ray session: it learns, it splits by content, one worker and two take the same steps."""

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
from ray.train import FailureConfig, RunConfig, ScalingConfig

from mribatch.commands.score import score
from mribatch.commands.train import Trained, train
from mribatch.errors import ConfigError, InputError, ModelError
from mribatch.models import directory
from mribatch.settings.score import ScoreConfig
from mribatch.settings.train import TrainConfig
from mribatch.sources.listing import list_scans
from mribatch.stores import uris
from mribatch.training.fit import HISTORY

pytestmark = pytest.mark.usefixtures("ray_session")

ScanFolder = Callable[..., list[str]]


def settings(data: Path | str, output: Path | str, **changes: Any) -> TrainConfig:
    return TrainConfig(
        **{"data": str(data), "output": str(output), "backbone": "cnn", "image_side": 32, "epochs": 4, "batch_size": 8,
           "learning_rate": 3e-3, "validation_fraction": 0.25, **changes}
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, scan_folder: ScanFolder) -> Path:
    """96 images of two classes, and 32 copies of some of them."""
    root = tmp_path_factory.mktemp("labelled") / "data"
    scan_folder(root, {"glioma": 48, "notumor": 48})
    for number, path in enumerate(sorted(root.rglob("*.*"))[::3]):
        shutil.copy(path, path.with_stem(f"copy{number}"))
    return root


@pytest.fixture(scope="module")
def learnt(ray_session: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Trained]:  # noqa: ARG001
    """A training that ended, and what it was told."""
    config = settings(data, tmp_path_factory.mktemp("learnt") / "model", epochs=6, patience=6)
    return config, train(config)


def test_training_learns_and_writes_a_model_that_scores(
    learnt: tuple[TrainConfig, Trained], data: Path, tmp_path: Path
) -> None:
    config, trained = learnt
    best = min(trained.history.to_pylist(), key=lambda row: row["val_loss"])
    assert best["val_accuracy"] >= 0.9, "two classes of plain patterns"
    assert trained.history.column_names == list(HISTORY)
    model = Path(config.output)
    assert {path.name for path in model.iterdir()} == {
        "model.json", "weights.h5", "MODEL_CARD.md", "history.parquet", "curves.png"
    }  # fmt: skip
    card = (model / "MODEL_CARD.md").read_text()
    assert trained.model.digest in card
    assert "not a medical device" in card
    assert card.count("| no evidence |") == 3
    for name in ("MODEL_CARD.md", "model.json"):
        assert str(data.parent) not in (model / name).read_text(), "others do not have this folder"
    assert pq.read_table(model / "history.parquet").num_rows == 6
    scored = score(ScoreConfig(model=str(model), input=(str(data),), output=str(tmp_path / "out")))
    assert (scored.planned, scored.failed) == (128, 0)
    assert scored.by_class["glioma"] == pytest.approx(64, abs=8)


def test_a_training_leaves_nothing_behind_that_a_listing_takes_for_a_scan(learnt: tuple[TrainConfig, Trained]) -> None:
    with pytest.raises(InputError, match="at least one file that is not mribatch's own output"):
        list_scans([str(Path(learnt[0].output).parent)])


def test_copies_of_one_image_never_stand_on_both_sides(learnt: tuple[TrainConfig, Trained]) -> None:
    facts = learnt[1].model.facts["training"]["data"]
    assert (facts["scans"], facts["different_images"]) == (128, 96)
    split = facts["split"]
    assert (split["train"] + split["validation"], split["set_aside"]) == (128, 0)
    assert split["validation"] >= 24, "a quarter of the images, and their copies with them"


def test_a_run_of_the_same_name_with_other_settings_is_refused(learnt: tuple[TrainConfig, Trained]) -> None:
    config, _ = learnt
    storage = Path(config.output).parent / "_training"
    with pytest.raises(ConfigError, match="other settings"):
        train(replace(config, learning_rate=1e-4, storage=str(storage), run_name=next(storage.iterdir()).name))


def test_training_goes_on_from_another_model_with_checkpoints_and_model_on_s3(
    learnt: tuple[TrainConfig, Trained], data: Path, bucket: str
) -> None:
    first = learnt[1]
    for path in data.rglob("*.*"):
        uris.put(f"{bucket}/data/{path.relative_to(data)}", path.read_bytes())
    config = settings(
        f"{bucket}/data", f"{bucket}/model", storage=f"{bucket}/checkpoints", run_name="s3", start_from=first.model.uri,
        epochs=1, learning_rate=1e-5, rotation_deg=10, zoom=0.1, average=0.9,
    )  # fmt: skip
    second = train(config)
    began, unlearnt = (run.history["loss"][0].as_py() for run in (second, first))
    assert began < 0.5 * unlearnt, "what was learnt before is there"
    (before,) = second.model.facts["training"]["started_from"]
    assert before == {"digest": first.model.digest, "command": first.model.facts["training"]["command"]}
    card = uris.read(f"{bucket}/model/MODEL_CARD.md").decode()
    assert f"`models/stage-1`: was model {first.model.digest}" in card
    assert card.count("models/stage-1") == 3, "written by one command, read by the next, explained"
    assert directory.load_model(f"{bucket}/model").digest == second.model.digest
    stored = [entry.uri for entry in uris.walk(f"{bucket}/checkpoints")]
    assert any(uri.endswith("optimizer.npz") for uri in stored)
    averaged, learning = (
        uris.read(next(uri for uri in stored if uri.endswith(f"{name}.weights.h5"))) for name in ("last", "learning")
    )
    assert averaged != learning, "the average of the weights is kept, and those that learn go on"
    assert train(config).model.digest == second.model.digest, "it goes on where it was: nothing was left to do"
    with pytest.raises(ConfigError, match="other settings"):
        train(replace(config, start_from=second.model.uri))  # under the same name it would start from nothing else


def test_too_many_unreadable_scans_stop_training_before_it_starts(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    for number in range(20):
        (broken / "glioma" / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="20 of 148 scans are unreadable"):
        train(settings(broken, tmp_path / "model"))


def test_a_class_of_which_no_scan_can_be_read_is_not_left_out_silently(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "pituitary").mkdir()
    (tmp_path / "data" / "pituitary" / "1.jpg").write_bytes(b"no scan")
    with pytest.raises(InputError, match="no scan of pituitary can be read: repair them, or leave the class out"):
        train(settings(tmp_path / "data", tmp_path / "model"))


STEPS, GLOBAL_BATCH, SIDE = 8, 16, 32


def _same_steps(told: dict[str, Any]) -> None:
    """A worker that takes its share of fixed global batches, as `fit` does, and reports the losses."""
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
                layer.rate = 0.0  # each worker draws its own; what is left must agree
        # Adamax moves each weight by its gradient's sign, nearly: without an epsilon of the gradients' size, one that is all
        # but 0 and rounds to the other side moves a weight the other way, and the two runs part.
        optimizer = keras.optimizers.Adamax(2e-4, epsilon=1e-2)
        optimizer.build(model.trainable_variables)
    step = TrainingStep(strategy, model, optimizer, augment=None)
    rng = np.random.default_rng(0)
    losses = []
    for number in range(STEPS):
        classes = rng.integers(0, 2, GLOBAL_BATCH)
        pixels = (rng.integers(0, 200, (GLOBAL_BATCH, SIDE, SIDE, 3)) + 8 * classes[:, None, None, None]).astype(
            np.uint8
        )
        own = slice(rank * GLOBAL_BATCH // workers, (rank + 1) * GLOBAL_BATCH // workers)
        sums = step.train(
            (pixels[own], classes[own], np.ones(GLOBAL_BATCH // workers, np.float32)),
            side_px=SIDE,
            seed=(0, 2 * number),
        )
        losses.append(sums[0] / sums[1])
    if rank == 0:
        Path(told["result"]).write_text(json.dumps(losses))
    ray.train.report({})


def _losses(workers: int, folder: Path) -> list[float]:
    from ray.train.tensorflow import TensorflowTrainer

    result = folder / f"losses-{workers}.json"
    TensorflowTrainer(
        _same_steps,
        train_loop_config={"result": str(result)},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(
            name=f"same-{workers}",
            storage_path=str(folder),
            failure_config=FailureConfig(
                max_failures=2
            ),  # the port that Ray found free for TensorFlow may be taken by then
        ),
    ).fit()
    return list(json.loads(result.read_text()))


def test_one_worker_and_two_give_the_same_losses_on_the_same_global_batches(tmp_path: Path) -> None:
    """Tolerance: 1e-3 relative after 8 steps; float32 sums in another order, batch statistics over the wire."""
    one, two = _losses(1, tmp_path), _losses(2, tmp_path)
    assert len(one) == STEPS
    assert one[-1] < one[0], "it learns, so a step that does nothing would show"
    np.testing.assert_allclose(one, two, rtol=1e-3)


def test_two_workers_train_one_model_on_shares_of_the_scans(data: Path, tmp_path: Path) -> None:
    trained = train(settings(data, tmp_path / "model", workers=2, batch_size=4, epochs=3))
    first, *_, last = trained.history.to_pylist()
    assert last["epoch"] == 3
    assert last["loss"] < first["loss"]
    assert last["val_accuracy"] >= 0.75, "two classes of plain patterns"


def test_a_model_that_does_not_fit_is_no_start(learnt: tuple[TrainConfig, Trained], data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="xception"):
        train(settings(data, tmp_path / "third", start_from=learnt[1].model.uri, backbone="xception", image_side=71))
