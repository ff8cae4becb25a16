"""The TensorFlow engine: a network frozen to constants, computed in slices on the cores.

Imports Keras and TensorFlow, so it is imported inside functions only, in the processes that train or predict.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mribatch.models import networks
from mribatch.models.engine import Outputs
from mribatch.models.format import Model
from mribatch.models.pixels import scaled

__all__ = ["TensorFlowEngine", "frozen", "set_threads"]

_SLICE = 8  # scans that one core scores at once


class TensorFlowEngine:
    """A network of `networks.load` as an `Engine`. Raises ModelError where its weights do not fit."""

    def __init__(self, model: Model) -> None:
        self._compute = frozen(partial(_head_and_features, networks.load(model)), model.image_spec.side_px)

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        return Outputs(*self._compute(pixels))


def _head_and_features(network: keras.Model, images: Any) -> tuple[Any, Any, Any]:
    """Return probabilities, logits and the backbone's features of scaled images, as tensors."""
    backbone, *hidden, head = network.layers
    features = x = backbone(images, training=False)
    for layer in hidden:
        x = layer(x, training=False)
    logits = tf.matmul(x, head.kernel) + head.bias
    return tf.nn.softmax(logits), logits, features


def frozen(
    compute: Callable[[Any], Sequence[Any]], side_px: int
) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """Return a function of (N, side, side, 3) uint8 that computes tensors of scaled images with all weights as constants.

    TensorFlow then folds batch normalization into the convolutions. Without a GPU, cores take slices of a batch, so
    that one which is interrupted does not stop the others in each operation.
    """
    traced = tf.function(
        lambda pixels: tuple(compute(scaled(pixels))), autograph=False
    )  # it would leave a file in /tmp
    spec = tf.TensorSpec((None, side_px, side_px, 3), tf.uint8)
    graph = convert_variables_to_constants_v2(traced.get_concrete_function(spec))

    def whole_batch(pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [tensor.numpy() for tensor in graph(tf.constant(pixels))]

    if tf.config.list_physical_devices("GPU"):
        return whole_batch
    threads = ThreadPoolExecutor(tf.config.threading.get_inter_op_parallelism_threads() or os.cpu_count())

    def sliced(pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        slices = (pixels[at : at + _SLICE] for at in range(0, max(len(pixels), 1), _SLICE))
        return [np.concatenate(parts) for parts in zip(*threads.map(whole_batch, slices), strict=True)]

    return sliced


def set_threads(threads: int) -> None:
    """Let TensorFlow compute on so many cores, each with work of its own; Ray would leave it one.

    Does nothing where TensorFlow runs already, in a process that was used before.
    """
    try:
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:
        return
