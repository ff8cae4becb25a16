"""Class activation maps: each method does its formula's arithmetic, and a network's map points at what it answers from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mribatch.errors import ModelError
from mribatch.models.format import Model
from mribatch.settings.explain import METHODS, Method
from mribatch.statistics.pointing import peaks

if TYPE_CHECKING:
    import keras

SIDE = 64
ACTIVATIONS = [[[[1.0, 2.0], [3.0, 0.0]]]]  # one scan, 1 × 2 places, 2 channels
GRADIENTS = [[[[2.0, -1.0], [0.0, 3.0]]]]  # mean by channel: 1, 1


@pytest.mark.parametrize(
    ("method", "expected"),
    [("grad_cam", [3.0, 3.0]), ("hires_cam", [0.0, 0.0]), ("layer_cam", [2.0, 0.0])],
)
def test_each_method_weighs_activations_with_gradients_as_its_paper_does(method: str, expected: list[float]) -> None:
    import tensorflow as tf

    from mribatch.models import saliency

    computed = getattr(saliency, method)(tf.constant(ACTIVATIONS), tf.constant(GRADIENTS))
    assert computed.numpy().tolist() == [[expected]]


@pytest.fixture(scope="module")
def brightness_network() -> "keras.Model":
    """Return a network with weights set by hand: bright scans are of class 0, dark ones of class 1."""
    import keras

    from mribatch.models import networks

    network = networks.build("cnn", 2, side_px=SIDE)
    backbone, *_, hidden, _, head = network.layers
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, *_ = layer.get_weights()
            layer.set_weights([np.full_like(kernel, 1 / np.prod(kernel.shape[:3]))])  # means
    hidden.set_weights([np.full_like(array, 0.01 * (array.ndim - 1)) for array in hidden.get_weights()])
    head.set_weights([np.tile(np.float32([1, -1]), (128, 1)), np.float32([-1, 1])])
    return network


def bright_squares() -> tuple[Any, Any]:
    """Return dark pictures with one bright square each, and the boxes of the squares."""
    corners = np.array([[8, 8], [40, 12], [16, 36], [38, 38]])
    pixels = np.zeros((len(corners), SIDE, SIDE, 3), np.uint8)
    for picture, (x, y) in zip(pixels, corners, strict=True):
        picture[y : y + 18, x : x + 18] = 255
    return pixels, np.concatenate([corners, corners + 18], axis=1) / SIDE


@pytest.mark.parametrize("method", METHODS)
def test_the_map_points_at_the_square_that_makes_the_network_answer(
    brightness_network: "keras.Model", method: Method
) -> None:
    from mribatch.models.saliency import Explainer

    pixels, boxes = bright_squares()
    probabilities, maps = Explainer(brightness_network, "cnn", SIDE, method)(pixels)
    assert (probabilities.argmax(axis=1) == 0).all()
    assert maps.shape == (len(pixels), SIDE, SIDE)
    assert (maps.max(axis=(1, 2)) == 1).all() and maps.min() >= 0
    points = peaks(maps)
    assert ((points >= boxes[:, :2]) & (points <= boxes[:, 2:])).all()


def test_the_map_of_a_mirrored_scan_is_the_mirrored_map(brightness_network: "keras.Model") -> None:
    from mribatch.models.saliency import Explainer

    pixels, _ = bright_squares()
    explain = Explainer(brightness_network, "cnn", SIDE, METHODS[0])
    upright, mirrored = explain(pixels).maps, explain(pixels[:, :, ::-1]).maps
    np.testing.assert_allclose(mirrored, upright[:, :, ::-1], atol=1e-4)


def test_the_answer_is_that_of_the_engine(tiny_model: Model) -> None:
    from mribatch.models.saliency import explainer
    from mribatch.models.tensorflow_engine import TensorFlowEngine

    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    computed = explainer(tiny_model, METHODS[0])(pixels).probabilities
    np.testing.assert_allclose(computed, TensorFlowEngine(tiny_model)(pixels).probabilities, atol=1e-5)


def test_a_classical_model_is_refused_with_a_sentence() -> None:
    from mribatch.models.saliency import explainer

    with pytest.raises(ModelError, match="only networks can be explained"):
        explainer(Model(uri="m", facts={"head": {"classifier": "svm"}, "backbone": "none"}), METHODS[0])
