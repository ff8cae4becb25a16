"""Build the networks in code (three backbones under the paper's head) and load their weights.

Imports Keras and TensorFlow, so it is imported inside functions only, in the processes that train or predict.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from mribatch.errors import ModelError
from mribatch.models import directory, pretrained
from mribatch.models.format import HEAD, Model, check_original

__all__ = ["build", "build_backbone", "load_backbone", "load_network", "with_intermediate"]

_CNN_FILTERS = (32, 64, 128, 256)
_AFTER_INTERMEDIATE = {"xception": "block9_sepconv1_act", "resnet50v2": "conv5_block1_preact_bn"}


def build(
    backbone: str, classes: int, *, side_px: int | None = None, workers: int | None = None, seed: int = 0
) -> keras.Model:
    """Return a network from (N, side, side, 3) float32 in -1…1 to (N, classes) float32 probabilities.

    side_px: None accepts images of any side. workers: how many processes will train the network together, None for
    prediction only; it decides how batch statistics are computed, not their values. The first layer is the backbone. All
    weights are random until they are loaded.
    """
    keras.utils.set_random_seed(seed)
    base = _application(backbone, (side_px, side_px, 3))
    if workers is not None:
        weights = base.get_weights()
        base = keras.models.clone_model(base, clone_function=partial(_for_training, workers=workers))
        base.set_weights(weights)
    keras.utils.set_random_seed(seed)  # so that the head starts the same for any number of workers
    first, second = HEAD["dropout"]
    return keras.Sequential(
        [
            keras.Input((side_px, side_px, 3)),
            base,
            layers.Flatten(),
            layers.Dropout(first, seed=seed),
            layers.Dense(HEAD["dense"], activation="relu"),
            layers.Dropout(second, seed=seed + 1),
            layers.Dense(classes, activation="softmax", dtype="float32"),
        ]
    )


def load_backbone(model: keras.Model, backbone: str, weights: str, flag: str = "") -> None:
    """Load weights into the backbone of a network.

    weights: `imagenet`, `none` (keep the random ones) or a file: one that Keras publishes (.h5, with or without the top),
    .weights.h5, or a model's weights.h5. flag: the flag that named the weights, for messages. Raises ModelError for
    weights that cannot be downloaded or read, or do not fit.
    """
    if weights == "none":
        return
    base = model.layers[0]
    if weights == "imagenet":
        base.set_weights(_imagenet(backbone, flag).get_weights())
        return
    data = pretrained.read_weights(weights, backbone)
    try:
        layers = pretrained.legacy_layers(data)
        if layers is not None:
            _assign(base, layers)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "backbone.weights.h5"
            pretrained.write_plain(data, path)
            base.load_weights(path)
    except (ValueError, OSError, KeyError) as err:
        raise pretrained.unfit(weights, backbone, "arrays of other shapes") from err


def _assign(base: keras.Model, layers: list[pretrained.Layer]) -> None:
    """Assign the arrays of a file of Keras 1 or 2. Raises ValueError where counts or shapes differ."""
    own = [layer for layer in base.layers if layer.weights]
    order = pretrained.matched([layer.name for layer in own], layers)
    for layer, saved in zip(own, order, strict=True):
        variables = layer.trainable_weights + layer.non_trainable_weights  # as Keras 2 ordered them
        for variable, array in zip(variables, saved.arrays, strict=True):
            if tuple(variable.shape) != array.shape:
                raise ValueError(f"{layer.name} has shape {variable.shape}, {saved.name} has {array.shape}")
            variable.assign(array)


def build_backbone(name: str, weights: str, flag: str = "") -> keras.Model:
    """Return a backbone from images to pooled (N, features) float32; weights, flag: as for `load_backbone`."""
    network = build(name, 2)
    load_backbone(network, name, weights, flag)
    return network.layers[0]


def _application(name: str, shape: tuple[int | None, int | None, int], weights: str | None = None) -> keras.Model:
    if name == "cnn":
        return _cnn(shape)
    applications = {"xception": keras.applications.Xception, "resnet50v2": keras.applications.ResNet50V2}
    return applications[name](include_top=False, weights=weights, pooling=HEAD["pooling"], input_shape=shape)


def _imagenet(backbone: str, flag: str) -> keras.Model:
    try:
        return _application(backbone, (None, None, 3), weights="imagenet")
    except Exception as err:  # keras raises a bare Exception for a failed download
        hint = f" with {flag} FILE, or none" if flag else ""
        raise ModelError(
            f"the ImageNet weights of {backbone} could not be downloaded: without internet, pass a local file{hint}"
        ) from err


def _cnn(shape: tuple[int | None, int | None, int]) -> keras.Model:
    """Return four convolutions with batch normalization and pooling: small enough to train on a laptop's CPU."""
    image = keras.Input(shape)
    x = image
    for filters in _CNN_FILTERS:
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D()(x)
    return keras.Model(image, layers.GlobalMaxPooling2D()(x), name="functional")


def _for_training(layer: Any, workers: int) -> Any:
    """Return a copy of a layer for training by this many workers.

    With one worker, batch normalization runs one kernel where Keras runs a dozen; workers share its statistics.
    """
    config = layer.get_config()
    if not isinstance(layer, layers.BatchNormalization):
        return layer.__class__.from_config(config)
    if workers == 1:
        return BatchNormalization.from_config(config | {"autocast": False})  # scale stays float32
    return layer.__class__.from_config(config | {"synchronized": True})


class BatchNormalization(layers.BatchNormalization):  # type: ignore[misc]
    """Keras' layer with TensorFlow's fused kernel for training.

    Same results; without it a training step takes about 1.5 times as long. It has the name of Keras' layer, so that their
    weights files are interchangeable.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training:
            return super().call(inputs, training=training, mask=mask)
        normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon
        )
        pixels = tf.cast(tf.size(inputs) / tf.size(mean), tf.float32)
        biased = variance * (pixels - 1) / pixels  # the moving average that Keras keeps
        for average, batch in ((self.moving_mean, mean), (self.moving_variance, biased)):
            updated = average * self.momentum + batch * (1 - self.momentum)
            average.assign(tf.where(tf.math.is_finite(updated), updated, average))
        return normalized


def with_intermediate(base: keras.Model, backbone: str) -> keras.Model:
    """Return a backbone that gives an intermediate layer, (N, height, width, D), beside its features.

    Xception: the output of block 8. ResNet50V2: of stage 4. cnn: of its third pooling.
    """
    if backbone == "cnn":
        pooled = [layer for layer in base.layers if isinstance(layer, layers.MaxPooling2D)][2].output
    else:
        pooled = base.get_layer(_AFTER_INTERMEDIATE[backbone]).input
    return keras.Model(base.input, [pooled, base.output])


def load_network(model: Model) -> keras.Model:
    """Return a model's network with its weights, for (N, side, side, 3) float32 in -1…1. Raises ModelError."""
    check_original(model, "use")
    network = build(model.backbone, len(model.labels), side_px=model.image_spec.side_px)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        path.write_bytes(directory.read_file(model, "weights"))
        try:
            network.load_weights(path)
        except (ValueError, OSError, KeyError) as err:
            raise ModelError(
                f"the weights in {model.uri} do not fit its model.json ({model.backbone}, {len(model.labels)} labels): write "
                "the directory again with `mribatch train`"
            ) from err
    return network
