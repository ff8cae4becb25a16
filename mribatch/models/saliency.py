"""Compute class activation maps: where in a scan the score of its predicted class comes from.

Imports Keras and TensorFlow, so it is imported inside functions only, in the processes that explain.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from mribatch.errors import ModelError
from mribatch.models import networks
from mribatch.models.format import Model
from mribatch.models.tensorflow_engine import frozen
from mribatch.settings.explain import Method

__all__ = ["Explainer", "Maps", "explainer", "grad_cam", "hires_cam"]


class Maps(NamedTuple):
    """What a network answers for N scans, and where its answers come from, float32."""

    probabilities: NDArray[np.float32]
    """(N, labels), rows summing to 1."""

    maps: NDArray[np.float32]
    """(N, side, side): values above 0 speak for the predicted class, those below 0 against it. The largest value is 1, or all
    are 0 if nothing speaks for it."""


def grad_cam(activations: Any, gradients: Any) -> Any:
    """Return (N, h, w) maps of (N, h, w, C) tensors: channels weighted by their mean gradient (Selvaraju et al. 2017).

    Negative values, which the paper cuts off, are kept.
    """
    return tf.reduce_sum(tf.reduce_mean(gradients, (1, 2), keepdims=True) * activations, -1)


def hires_cam(activations: Any, gradients: Any) -> Any:
    """Return (N, h, w) maps of (N, h, w, C) tensors: the sum of gradient times activation (Draelos & Carin 2020)."""
    return tf.reduce_sum(gradients * activations, -1)


class Explainer:
    """A network with the maps of its answers.

    network: from `networks`, with its weights; backbone: its name. Each scan is also computed mirrored and shifted by half a
    place of the map's coarse grid, and the ten maps are averaged, which evens out that grid. Scans are `side_px` wide.
    """

    def __init__(self, network: keras.Model, backbone: str, side_px: int, method: Method) -> None:
        parts = _parts(network, backbone)
        layer, recipe = _METHODS[method]
        step_px = side_px // _places(parts, layer) // 2
        self._compute = frozen(partial(_explained, parts, recipe, side_px, step_px), side_px)

    def __call__(self, pixels: NDArray[np.uint8]) -> Maps:
        """Explain a batch of scans, (N, side, side, 3) uint8 RGB."""
        return Maps(*self._compute(pixels))


def explainer(model: Model, method: Method) -> Explainer:
    """Load a model to explain it. Raises ModelError for a classical one, and if the weights do not fit the network."""
    if model.is_classical:
        raise ModelError(
            f"{model.uri} is a classical model ({model.kind}), and only networks can be explained: choose a network"
        )
    return Explainer(networks.load_network(model), model.backbone, model.image_spec.side_px, method)


class _Parts(NamedTuple):
    """A network cut in three: images → middle activations → last activations and features → logits."""

    lower: keras.Model
    upper: keras.Model
    hidden: list[Any]
    head: Any


def _parts(network: keras.Model, backbone: str) -> _Parts:
    base, *hidden, head = network.layers
    middle, last = _activations(base, backbone)
    return _Parts(keras.Model(base.inputs, middle), keras.Model(middle, [last, base.output]), hidden, head)


def _activations(base: keras.Model, backbone: str) -> tuple[Any, Any]:
    """Return the activations of a backbone that maps are drawn from: finer ones in its middle, and its last ones.

    In Xception, these are the outputs of blocks 12 and 14.
    """
    if backbone == "xception":
        return base.get_layer("block13_sepconv1_act").input, base.get_layer("block14_sepconv2_act").output
    if backbone == "resnet50v2":
        return base.get_layer("conv4_block6_out").output, base.get_layer("post_relu").output
    middle, last = [layer.output for layer in base.layers if isinstance(layer, layers.ReLU)][-2:]
    return middle, last


def _places(parts: _Parts, layer: str) -> int:
    """Return how many places the map of a layer has in a row."""
    return int({"middle": parts.lower.output, "last": parts.upper.outputs[0]}[layer].shape[1])


def _explained(parts: _Parts, method: "_Recipe", side_px: int, step_px: int, images: Any) -> tuple[Any, Any]:
    """Return probabilities and maps of scaled images, as tensors. step_px: how far they are shifted down, up, left and right."""
    logits, maps = _signed(parts, method, side_px, images)
    classes = tf.argmax(logits, 1)

    def shifted(shift: Any) -> Any:
        _, moved = _signed(parts, method, side_px, tf.roll(images, shift, (1, 2)), classes)
        return tf.roll(moved, -shift, (1, 2))

    shifts = tf.constant([(down, right) for down in (-step_px, step_px) for right in (-step_px, step_px)])
    one_by_one = tf.map_fn(shifted, shifts, fn_output_signature=tf.float32, parallel_iterations=1)
    maps += tf.reduce_sum(one_by_one, 0)
    highest = tf.nn.relu(tf.reduce_max(maps, (1, 2), keepdims=True))
    return tf.nn.softmax(logits), tf.math.divide_no_nan(maps, highest)


def _signed(parts: _Parts, method: "_Recipe", side_px: int, images: Any, classes: Any = None) -> tuple[Any, Any]:
    """Return logits and unscaled maps. classes: (N,) to explain; None explains the answers."""
    middle = parts.lower(tf.concat([images, tf.reverse(images, [2])], 0), training=False)
    with tf.GradientTape() as tape:
        tape.watch(middle)
        last, features = parts.upper(middle, training=False)
        for layer in parts.hidden:
            features = layer(features, training=False)
        logits = tf.matmul(features, parts.head.kernel) + parts.head.bias
        upright, _ = tf.split(logits, 2)
        chosen = tf.argmax(upright, 1) if classes is None else classes
        score = tf.gather(logits, tf.tile(chosen, [2]), axis=1, batch_dims=1)
    to_middle, to_last = tape.gradient(score, [middle, last])
    return upright, method({"middle": (middle, to_middle), "last": (last, to_last)}, side_px)


_Activations = Mapping[str, tuple[Any, Any]]
_Recipe = Callable[[_Activations, int], Any]


def _single(cam: Callable[[Any, Any], Any], layer: str, activations: _Activations, side_px: int) -> Any:
    """Return the map of one layer: averaged with that of the mirrored scan, enlarged to the scan's side."""
    upright, mirrored = tf.split(cam(*activations[layer]), 2)
    coarse = (upright + tf.reverse(mirrored, [2]))[..., None]
    return tf.image.resize(coarse, (side_px, side_px), tf.image.ResizeMethod.BICUBIC)[..., 0]


_METHODS: Mapping[Method, tuple[str, _Recipe]] = {
    "grad-cam": ("last", partial(_single, grad_cam, "last")),
    "hires-cam": ("middle", partial(_single, hires_cam, "middle")),
}
