"""Estimate the batch-normalization statistics of a network anew on unlabelled scans, and compare it before and after.

AdaBN: Li, Wang, Shi, Liu and Hou 2016, Revisiting Batch Normalization for Practical Domain Adaptation, arXiv:1603.04779; Nado
et al. 2020, Evaluating Prediction-Time Batch Normalization for Robustness under Covariate Shift, arXiv:2006.10963.
TensorFlow is loaded by calls, not before.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.errors import ModelError, RunFailed
from mribatch.models import directory
from mribatch.models.embedding import pixels_of
from mribatch.models.pixels import network_input

__all__ = ["AdaptedWeights", "PairedPredictor", "Statistics", "adapted_weights", "assign", "estimate", "pooled"]


class Statistics(NamedTuple):
    """The mean and variance of each channel, (C,) float32, for each batch normalization of a backbone in its order."""

    means: list[NDArray[np.float32]]
    variances: list[NDArray[np.float32]]


class AdaptedWeights(NamedTuple):
    """New statistics, and the bytes of a Keras weights file of the network that has them."""

    statistics: Statistics
    weights: bytes


def adapted_weights(model: str, digest: str, pixels: NDArray[np.uint8], batch_scans: int) -> AdaptedWeights:
    """Load a model and give it the statistics of scans, (N, side, side, 3) uint8 RGB. Raises as `estimate` and ModelError."""
    from mribatch.models import networks

    network = networks.load_network(directory.open_model(model, digest))
    statistics = estimate(network, pixels, batch_scans)
    assign(network, statistics)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapted.weights.h5"
        network.save_weights(path)
        return AdaptedWeights(statistics, path.read_bytes())


def estimate(network: Any, pixels: NDArray[np.uint8], batch_scans: int) -> Statistics:
    """Return the statistics of scans that pass through a network in batches of about equal size, float32.

    Each batch is normalized by its own statistics, as in training. The network keeps the ones that it has. Raises ModelError
    for a network without batch normalization, RunFailed for statistics that are not finite.
    """
    layers = _normalizations(network)
    batches = np.array_split(pixels, -(-len(pixels) // batch_scans))
    with _without_memory(layers):
        pass_through = _pass_through(network.layers[0], pixels.shape[1])
        of_batches = [_of_batch(pass_through, layers, batch) for batch in batches]
    statistics = pooled(of_batches, [len(batch) for batch in batches])
    if not all(np.isfinite(values).all() for part in statistics for values in part):
        raise RunFailed("the statistics of these scans are not finite: the model's weights are damaged; train it again")
    return statistics


def pooled(of_batches: Sequence[Statistics], scans: Sequence[int]) -> Statistics:
    """Return the statistics of all scans from those of their batches.

    scans: of each batch, its weight. A variance is the mean variance within the batches plus the variance of their means.
    """
    means, variances = [], []
    for within in zip(*(zip(*batch, strict=True) for batch in of_batches), strict=True):
        batch_means, batch_variances = (np.array(part, np.float64) for part in zip(*within, strict=True))
        mean = np.average(batch_means, axis=0, weights=scans)
        spread = np.average((batch_means - mean) ** 2, axis=0, weights=scans)
        means.append(mean.astype(np.float32))
        variances.append((np.average(batch_variances, axis=0, weights=scans) + spread).astype(np.float32))
    return Statistics(means, variances)


def assign(network: Any, statistics: Statistics) -> None:
    """Give a network the statistics that `estimate` returned for the same architecture."""
    for layer, mean, variance in zip(_normalizations(network), *statistics, strict=True):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)


def _normalizations(network: Any) -> list[Any]:
    import keras

    backbone = network.layers[0]
    layers = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        raise ModelError(
            "the network has no batch normalization, so nothing in it can be adapted: use another backbone"
        )
    return layers


@contextmanager
def _without_memory(layers: Sequence[Any]) -> Iterator[None]:
    """Let each batch replace the moving averages while this lasts; restore them afterwards."""
    kept = [(layer.momentum, layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, (momentum, mean, variance) in zip(layers, kept, strict=True):
            layer.momentum = momentum
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)


def _pass_through(backbone: Any, side_px: int) -> Callable[[NDArray[np.uint8]], object]:
    """Return a function that lets a batch pass through a backbone as in training.

    A graph frees each activation when it is used up; without one, Keras keeps all of them: 5 GB for 32 scans of Xception.
    """
    import tensorflow as tf

    spec = tf.TensorSpec((None, side_px, side_px, 3), tf.uint8)
    # autograph would leave a file in /tmp
    traced = tf.function(
        lambda pixels: backbone(network_input(pixels), training=True), input_signature=[spec], autograph=False
    )
    return lambda pixels: traced(tf.constant(pixels))


def _of_batch(
    pass_through: Callable[[NDArray[np.uint8]], object], layers: Sequence[Any], pixels: NDArray[np.uint8]
) -> Statistics:
    pass_through(pixels)
    return Statistics(
        [layer.moving_mean.numpy() for layer in layers], [layer.moving_variance.numpy() for layer in layers]
    )


class PairedPredictor:
    """Add `before` and `after`, the classes that a model predicts without and with new statistics, to tables of decoded scans.

    threads: cores to compute with; None uses all of the machine.
    """

    def __init__(self, model: str, digest: str, statistics: Statistics, threads: int | None = None) -> None:
        from mribatch.models import networks
        from mribatch.models.tensorflow_engine import frozen, set_threads

        if threads is not None:
            set_threads(threads)
        self._model = directory.open_model(model, digest)
        network = networks.load_network(self._model)
        side_px = self._model.image_spec.side_px
        self._before = frozen(lambda images: [network(images, training=False)], side_px)
        assign(network, statistics)  # the first function holds the old ones as constants
        self._after = frozen(lambda images: [network(images, training=False)], side_px)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with the two columns and without pixels; they are null where pixels are."""
        readable = np.asarray(table["pixels"].is_valid())
        pixels = pixels_of(table, self._model.image_spec.side_px)
        table = table.drop_columns(["pixels"])
        for name, compute in (("before", self._before), ("after", self._after)):
            answers = np.zeros(table.num_rows, np.int64)
            answers[readable] = compute(pixels)[0].argmax(axis=1) if len(pixels) else 0
            table = table.append_column(
                name, pa.array(np.asarray(self._model.labels)[answers], pa.string(), mask=~readable)
            )
        return table
