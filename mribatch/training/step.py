"""Run one synchronous training or validation step over all workers, as TensorFlow graphs.

TensorFlow is imported inside functions, because the driver imports this module without loading TensorFlow.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mribatch.models.pixels import network_input

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

__all__ = ["DRAWS", "PAPER", "Augmentation", "Batch", "TrainingStep", "augmented", "resized"]

Batch = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]
"""Scans (N, side, side, 3), class numbers (N,), weights (N,): 0 for padding."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of each scan in each step: brightness × 0.8–1.2, a flip of every second one, rotation and zoom.

    rotation_deg: largest angle in degrees, either way. zoom: largest share by which a scan grows or shrinks.
    """

    rotation_deg: float = 0.0
    zoom: float = 0.0


PAPER = Augmentation()
DRAWS = 4  # random seeds per batch: brightness, flip, rotation, zoom


class TrainingStep:
    """One synchronous step over all workers, and the sums from which metrics are computed.

    The gradient is that of the loss summed over the global batch and divided by its size, so the step does not depend on
    the number of workers. If a worker's gradients are not finite (an overflow, a faulty kernel), they count as 0, its
    batch is left out of the sums and the step counts as skipped; the optimizer uses its momentum only. A single NaN would
    silently end all learning, because ReLU turns it into 0.
    """

    SUMS = ("loss", "scans", "right", "sure_right", "sure", "skipped")

    def __init__(
        self,
        strategy: "tf.distribute.Strategy",
        model: "keras.Model",
        optimizer: "keras.optimizers.Optimizer",
        augment: Augmentation | None = PAPER,
        label_smoothing: float = 0.0,
    ) -> None:
        """Take what the step needs.

        augment: None for scans that are augmented already. label_smoothing: share of each label that is spread evenly over
        all classes (Szegedy et al., CVPR 2016), in the training loss only.
        """
        import tensorflow as tf

        self._strategy, self._model, self._optimizer = strategy, model, optimizer
        self._augment, self._label_smoothing = augment, label_smoothing
        self._workers = strategy.num_replicas_in_sync
        # no autograph: it is not needed, and a killed process would leave its files in /tmp
        self._train = tf.function(self._train_step, reduce_retracing=True, autograph=False)
        self._validate = tf.function(self._validate_step, reduce_retracing=True, autograph=False)

    def train(self, batch: Batch, *, side_px: int, seed: tuple[int, int]) -> NDArray[np.float64]:
        """Train on this worker's share of a global batch; return the sums of all workers in the order of SUMS."""
        import tensorflow as tf

        return np.asarray(self._train(*_tensors(batch), tf.constant(side_px), tf.constant(seed)), np.float64)

    def validate(self, batch: Batch) -> NDArray[np.float64]:
        """Return the sums of all workers for a validation batch."""
        return np.asarray(self._validate(*_tensors(batch)), np.float64)

    def _train_step(self, pixels: Any, classes: Any, weights: Any, side: Any, seed: Any) -> Any:
        def replica() -> Any:
            import tensorflow as tf

            images = resized(pixels, side) if self._augment is None else augmented(pixels, side, seed, self._augment)
            with tf.GradientTape() as tape:
                probabilities = self._model(images, training=True)
                losses = _cross_entropy(classes, probabilities, self._label_smoothing) * weights
                loss = tf.reduce_sum(losses) / tf.cast(tf.shape(classes)[0] * self._workers, tf.float32)
            gradients = tape.gradient(loss, self._model.trainable_variables)
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
            gradients = [tf.where(finite, gradient, tf.zeros_like(gradient)) for gradient in gradients]
            self._optimizer.apply_gradients(zip(gradients, self._model.trainable_variables, strict=True))
            sums = _sums(classes, probabilities, losses, weights)
            return tf.where(finite, sums, tf.one_hot(self.SUMS.index("skipped"), len(self.SUMS)))

        return self._reduced(replica)

    def _validate_step(self, pixels: Any, classes: Any, weights: Any) -> Any:
        def replica() -> Any:
            probabilities = self._model(network_input(pixels), training=False)
            losses = _cross_entropy(classes, probabilities) * weights
            return _sums(classes, probabilities, losses, weights)

        return self._reduced(replica)

    def _reduced(self, replica: Callable[[], Any]) -> Any:
        import tensorflow as tf

        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, self._strategy.run(replica), axis=None)


def augmented(pixels: Any, side: Any, seed: Any, augmentation: Augmentation = PAPER) -> Any:
    """Return network input from (N, S, S, 3) uint8: augmented and resized, (N, side, side, 3) float32."""
    import tensorflow as tf

    count = tf.shape(pixels)[0]
    factor = tf.random.stateless_uniform((count, 1, 1, 1), seed, 0.8, 1.2)
    flip = tf.random.stateless_uniform((count, 1, 1, 1), seed + 1, 0.0, 1.0) < 0.5
    images = tf.clip_by_value(tf.cast(pixels, tf.float32) * factor, 0.0, 255.0)
    images = tf.where(flip, tf.reverse(images, [2]), images)
    if augmentation != PAPER:
        images = _moved(images, seed, augmentation)
    return resized(images, side)


def resized(images: Any, side: Any) -> Any:
    """Return network input from (N, S, S, 3) grey levels of 0…255, (N, side, side, 3) float32."""
    import tensorflow as tf

    levels = tf.cast(images, tf.float32)
    levels = tf.cond(
        tf.equal(side, tf.shape(levels)[1]),
        lambda: levels,
        lambda: tf.image.resize(levels, tf.stack([side, side]), antialias=True),
    )
    return network_input(levels)


_BLACK_OUTSIDE = {"fill_value": 0.0, "interpolation": "BILINEAR", "fill_mode": "CONSTANT"}


def _moved(images: Any, seed: Any, augmentation: Augmentation) -> Any:
    """Return (N, S, S, 3) float32 rotated and zoomed about the centre; pixels from outside the scan are black."""
    import tensorflow as tf

    count, middle = tf.shape(images)[0], (tf.cast(tf.shape(images)[1], tf.float32) - 1) / 2
    largest = augmentation.rotation_deg * math.pi / 180
    angle = tf.random.stateless_uniform((count,), seed + 2, -largest, largest)
    scale = 1 / (1 + tf.random.stateless_uniform((count,), seed + 3, -augmentation.zoom, augmentation.zoom))
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    zero = tf.zeros_like(cosine)
    shifts = middle * (1 - cosine + sine), middle * (1 - cosine - sine)
    transforms = tf.stack([cosine, -sine, shifts[0], sine, cosine, shifts[1], zero, zero], 1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images, transforms=transforms, output_shape=tf.shape(images)[1:3], **_BLACK_OUTSIDE
    )


def _tensors(batch: Batch) -> Iterable[Any]:
    import tensorflow as tf

    return tuple(tf.convert_to_tensor(part) for part in batch)


def _cross_entropy(classes: Any, probabilities: Any, smoothing: float = 0.0) -> Any:
    import keras

    losses = keras.ops.sparse_categorical_crossentropy(classes, probabilities)
    if not smoothing:
        return losses
    clipped = keras.ops.clip(probabilities, keras.config.epsilon(), 1.0)
    return (1 - smoothing) * losses - smoothing * keras.ops.mean(keras.ops.log(clipped), axis=-1)


def _sums(classes: Any, probabilities: Any, losses: Any, weights: Any) -> Any:
    """Return the sums of SUMS. A prediction is sure above 0.5, as in Keras' Precision and Recall."""
    import tensorflow as tf

    right = tf.cast(tf.equal(tf.argmax(probabilities, axis=1), classes), tf.float32) * weights
    sure = tf.cast(tf.reduce_max(probabilities, axis=1) > 0.5, tf.float32) * weights
    sums = [tf.reduce_sum(values) for values in (losses, weights, right, right * sure, sure)]
    return tf.stack([*sums, 0.0])
