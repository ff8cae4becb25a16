"""The TensorFlow engine: freeze a network to constants and compute it in slices on all cores.

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
from mribatch.models.pixels import network_input
from mribatch.statistics.referral import Features

__all__ = ["TensorFlowEngine", "frozen", "set_threads"]

_SLICE = 8  # scans per core and call


class TensorFlowEngine:
    """A network as an `Engine`. Raises ModelError if the weights do not fit the network.

    with_layers: compute the layers that referral looks at. Without them, the graph is the one of a model without referral.
    """

    def __init__(self, model: Model, with_layers: bool = False) -> None:
        network = networks.load_network(model)
        compute: Callable[..., Sequence[Any]] = _head_and_features
        if with_layers:
            compute = partial(_head_and_layers, networks.with_intermediate(network.layers[0], model.backbone))
        self._compute = frozen(partial(compute, network), model.image_spec.side_px)

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        probabilities, logits, features, *layers = self._compute(pixels)
        return Outputs(probabilities, logits, features, Features(*layers) if layers else None)


def _head_and_features(network: keras.Model, images: Any) -> tuple[Any, Any, Any]:
    """Return probabilities, logits and the backbone's features of scaled images, as tensors."""
    features = network.layers[0](images, training=False)
    _, logits = _head(network, features)
    return tf.nn.softmax(logits), logits, features


def _head_and_layers(base: keras.Model, network: keras.Model, images: Any) -> tuple[Any, ...]:
    """Return what `_head_and_features` does, the averaged intermediate layer and the last hidden one, as tensors."""
    intermediate, features = base(images, training=False)
    last, logits = _head(network, features)
    return tf.nn.softmax(logits), logits, features, tf.reduce_mean(intermediate, [1, 2]), last


def _head(network: keras.Model, features: Any) -> tuple[Any, Any]:
    """Return the last hidden layer and the logits, as tensors."""
    _, *hidden, head = network.layers
    x = features
    for layer in hidden:
        x = layer(x, training=False)
    return x, tf.matmul(x, head.kernel) + head.bias


def frozen(
    compute: Callable[[Any], Sequence[Any]], side_px: int
) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """Return a function of (N, side, side, 3) uint8 that computes tensors of scaled images with all weights as constants.

    With constants, TensorFlow folds batch normalization into the convolutions. Without a GPU, each core computes a slice
    of the batch, so that an interrupted core does not hold up the others in every operation.
    """
    # autograph would leave a file in /tmp
    traced = tf.function(lambda pixels: tuple(compute(network_input(pixels))), autograph=False)
    spec = tf.TensorSpec((None, side_px, side_px, 3), tf.uint8)
    graph = convert_variables_to_constants_v2(traced.get_concrete_function(spec))

    def compute_batch(pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [tensor.numpy() for tensor in graph(tf.constant(pixels))]

    if tf.config.list_physical_devices("GPU"):
        return compute_batch
    threads = ThreadPoolExecutor(tf.config.threading.get_inter_op_parallelism_threads() or os.cpu_count())

    def compute_slices(pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        slices = (pixels[start : start + _SLICE] for start in range(0, max(len(pixels), 1), _SLICE))
        return [np.concatenate(parts) for parts in zip(*threads.map(compute_batch, slices), strict=True)]

    return compute_slices


def set_threads(threads: int) -> None:
    """Let TensorFlow run one operation per thread on this many cores; by default Ray leaves it one core.

    Does nothing in a process where TensorFlow has already started.
    """
    try:
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:
        return
