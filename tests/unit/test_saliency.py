"""Class activation maps: each method does its formula's arithmetic, and a network's map points at what it answers from."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from mribatch.errors import ModelError
from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.scans.decode import decode
from mribatch.settings.explain import METHODS, Method
from mribatch.statistics.pointing import peaks
from tests.conftest import ROOT

if TYPE_CHECKING:
    import keras

SIDE = 64
ACTIVATIONS = [[[[1.0, 2.0], [3.0, 0.0]]]]  # one scan, 1 × 2 places, 2 channels
GRADIENTS = [[[[4.0, -3.0], [0.0, -1.0]]]]  # mean by channel: 2, -2


@pytest.mark.parametrize(
    ("method", "expected"),
    [("grad_cam", [-2.0, 6.0]), ("hires_cam", [-2.0, 0.0])],
)
def test_each_method_weighs_activations_with_gradients_as_its_paper_does(method: str, expected: list[float]) -> None:
    import tensorflow as tf

    from mribatch.models import saliency

    computed = getattr(saliency, method)(tf.constant(ACTIVATIONS), tf.constant(GRADIENTS))
    assert computed.numpy().tolist() == [[expected]]


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


@pytest.fixture(scope="module")
def network() -> "keras.Model":
    return brightness_network()


def bright_squares() -> tuple[Any, Any]:
    """Return dark pictures with one bright square each, and the boxes of the squares."""
    corners = np.array([[8, 8], [40, 12], [16, 36], [38, 38]])
    pixels = np.zeros((len(corners), SIDE, SIDE, 3), np.uint8)
    for picture, (x, y) in zip(pixels, corners, strict=True):
        picture[y : y + 18, x : x + 18] = 255
    return pixels, np.concatenate([corners, corners + 18], axis=1) / SIDE


@pytest.mark.parametrize("method", METHODS)
def test_the_map_points_at_the_square_that_makes_the_network_answer(network: "keras.Model", method: Method) -> None:
    from mribatch.models.saliency import Explainer

    pixels, boxes = bright_squares()
    probabilities, maps = Explainer(network, "cnn", SIDE, method)(pixels)
    assert (probabilities.argmax(axis=1) == 0).all()
    assert maps.shape == (len(pixels), SIDE, SIDE)
    assert (maps.max(axis=(1, 2)) == 1).all()
    points = peaks(maps)
    assert ((points >= boxes[:, :2]) & (points <= boxes[:, 2:])).all()


def test_the_map_of_a_mirrored_scan_is_the_mirrored_map(network: "keras.Model") -> None:
    from mribatch.models.saliency import Explainer

    pixels, _ = bright_squares()
    explain = Explainer(network, "cnn", SIDE, METHODS[0])
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


# The check of Adebayo et al. 2018, "Sanity checks for saliency maps": a map that does not change with the network's weights
# explains nothing of its answers.


def shuffled(layers: list[Any], seed: int) -> None:
    """Shuffle the weights of these layers, each array within itself."""
    rng = np.random.default_rng(seed)
    for layer in layers:
        layer.set_weights([rng.permutation(array.ravel()).reshape(array.shape) for array in layer.get_weights()])


def rank_correlation(maps: Any, others: Any) -> float:
    """Return the mean over scans of Spearman's correlation of two maps."""
    return float(
        np.mean([spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(maps, others, strict=True)])
    )


def test_the_maps_of_the_shipped_model_change_when_its_head_and_its_last_block_are_shuffled() -> None:
    import tensorflow as tf

    from mribatch.models import networks, saliency

    model = directory.load_model(str(ROOT / "models" / "brain-mri-v2"))
    network = networks.load_network(model)
    files = [min((ROOT / "samples" / label).iterdir()) for label in model.labels]
    pixels = [decode(path.read_bytes(), model.image_spec)[0].pixels for path in files]
    images = tf.cast(np.stack(pixels), tf.float32) / 127.5 - 1
    parts, recipe = saliency._parts(network, model.backbone), saliency._METHODS[METHODS[0]][1]
    compute = tf.function(lambda classes: saliency._signed(parts, recipe, SIDE, images, classes), autograph=False)
    answers = tf.range(len(model.labels))
    maps = compute(answers)[1].numpy()
    head = [layer for layer in network.layers[1:] if layer.weights]
    last_block = [layer for layer in network.layers[0].layers if layer.name.startswith("block14") and layer.weights]
    saved = [(layer, layer.get_weights()) for layer in (*head, *last_block)]
    headless, blockless = [], []
    for seed in range(3):
        shuffled(head, seed)
        headless.append(rank_correlation(maps, compute(answers)[1].numpy()))
        shuffled(last_block, seed)
        blockless.append(rank_correlation(maps, compute(answers)[1].numpy()))
        for layer, weights in saved:
            layer.set_weights(weights)
    assert max(headless) <= 0.5, headless
    assert max(blockless) <= 0.1, blockless
