"""Networks and training steps: on one worker, a network computes what Keras' own layers compute."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mribatch.models import tensorflow_engine
from mribatch.training import step

SIDES = {"cnn": 32, "xception": 71}


def trained_once(backbone: str, workers: int | None) -> dict[str, Any]:
    """Return a network's output for a batch, its gradients, and its weights after the batch."""
    import tensorflow as tf

    from mribatch.models import networks

    side = SIDES[backbone]
    model = networks.build(backbone, 3, side_px=side, workers=workers, seed=1)
    images = tf.constant(np.random.default_rng(0).normal(0.5, 2, (8, side, side, 3)), tf.float32)
    base = model.layers[0]
    with tf.GradientTape() as tape:
        features = base(images, training=True)
        loss = tf.reduce_sum(tf.sin(features))
    gradients = tape.gradient(loss, base.trainable_variables)
    return {"output": [features], "gradients": gradients, "weights": base.get_weights()}


@pytest.mark.parametrize("backbone", SIDES)
def test_training_on_one_worker_gives_the_results_of_keras_batch_normalization(backbone: str) -> None:
    expected, computed = (trained_once(backbone, workers) for workers in (None, 1))
    compared = ["output", "weights"]
    if backbone == "cnn":  # a deeper network amplifies rounding in its gradients
        compared.append("gradients")
    for what in compared:
        for ours, theirs in zip(computed[what], expected[what], strict=True):
            size = float(np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3 * size + 1e-5, err_msg=what)


def test_the_weights_of_a_network_for_training_fit_one_for_prediction(tmp_path: Any) -> None:
    from mribatch.models import networks

    trains, predicts = networks.build("cnn", 3, workers=1, seed=1), networks.build("cnn", 3, side_px=32, seed=2)
    trains.save_weights(tmp_path / "x.weights.h5")
    predicts.load_weights(tmp_path / "x.weights.h5")
    for ours, theirs in zip(trains.get_weights(), predicts.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def small_step(label_smoothing: float = 0.0) -> tuple[Any, "step.TrainingStep"]:
    """Return a network for two labels and the step that trains it."""
    import keras
    import tensorflow as tf

    from mribatch.models import networks

    model = networks.build("cnn", 2, side_px=32, workers=1, seed=1)
    optimizer = keras.optimizers.SGD(1e-3)
    optimizer.build(model.trainable_variables)
    return model, step.TrainingStep(tf.distribute.get_strategy(), model, optimizer, None, label_smoothing)


def small_batch() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    return pixels, np.array([0, 1, 0, 1]), np.ones(4, np.float32)


def first_loss(classes: list[int], **how: float) -> float:
    """Return the training loss of a new network for four scans that are said to be of these classes."""
    _, training = small_step(**how)
    pixels, _, weights = small_batch()
    return float(training.train((pixels, np.array(classes), weights), side_px=32, seed=(0, 0))[0])


def test_label_smoothing_spreads_a_share_of_each_label_over_all_classes_in_training_only() -> None:
    share = 0.3
    first, second = first_loss([0] * 4), first_loss([1] * 4)
    smoothed = first_loss([0] * 4, label_smoothing=share)
    assert smoothed == pytest.approx((1 - share / 2) * first + share / 2 * second, rel=1e-5)
    losses = [small_step(label_smoothing=value)[1].validate(small_batch())[0] for value in (0.0, share)]
    assert losses[0] == losses[1]


def test_augmented_scans_are_only_resized_to_the_side_of_the_epoch() -> None:
    import tensorflow as tf

    pixels = disks(2)
    same, smaller = (step.resized(pixels, tf.constant(side)).numpy() for side in (65, 33))
    np.testing.assert_allclose(same, pixels / 127.5 - 1, atol=1e-6)
    assert smaller.shape == (2, 33, 33, 3)
    assert smaller.mean() == pytest.approx(same.mean(), abs=0.05)


def test_a_step_without_finite_gradients_is_skipped_and_counted() -> None:
    model, training = small_step()
    pixels, classes, weights = small_batch()
    skipped = step.TrainingStep.SUMS.index("skipped")
    assert training.train((pixels, classes, weights), side_px=32, seed=(0, 0))[skipped] == 0
    before = [variable.numpy() for variable in model.trainable_variables]
    broken = np.array([1, np.inf, 1, 1], np.float32)
    assert training.train((pixels, classes, broken), side_px=32, seed=(0, 2))[skipped] == 1
    for ours, theirs in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)


def test_a_killed_process_leaves_no_files_of_tensorflow_behind(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model, training = small_step()
    training.train(small_batch(), side_px=32, seed=(0, 0))
    training.validate(small_batch())
    tensorflow_engine.frozen(lambda images: [model(images)], 32)(small_batch()[0])
    assert not list(tmp_path.iterdir())


def disks(count: int) -> NDArray[np.uint8]:
    """Return images with a bright disk in the centre and a dot beside it."""
    y, x = np.mgrid[-1:1:65j, -1:1:65j]
    images = np.repeat(((x**2 + y**2 < 0.25) * 200).astype(np.uint8)[None, ..., None], 3, axis=-1)
    images[0, 6:10, 30:34] = 255
    return np.repeat(images, count, axis=0)


def augmented(pixels: NDArray[np.uint8], seed: int, **how: float) -> NDArray[np.float32]:
    import tensorflow as tf

    return step.augmented(pixels, tf.constant(65), tf.constant([0, seed]), step.Augmentation(**how)).numpy()


def test_scans_are_rotated_and_zoomed_about_their_centre_and_otherwise_as_in_the_paper() -> None:
    pixels = disks(16)
    plain, turned, zoomed = augmented(pixels, 1), augmented(pixels, 1, rotation_deg=40), augmented(pixels, 1, zoom=0.3)
    middle = np.s_[:, 22:43, 22:43]
    np.testing.assert_allclose(turned[middle], plain[middle], atol=1e-3, err_msg="a disk stays where it is")
    assert np.abs(turned - plain).max() > 0.5, "the dot beside it moves"
    bright = [(images[..., 0] > 0).sum(axis=(1, 2)) for images in (plain, zoomed)]
    assert (bright[1] > 1.1 * bright[0]).any()
    assert (bright[1] < 0.9 * bright[0]).any()
    assert zoomed.min() >= -1
    np.testing.assert_array_equal(zoomed, augmented(pixels, 1, zoom=0.3))
    assert (zoomed != augmented(pixels, 2, zoom=0.3)).any()
