"""Build a model's network as an OpenVINO graph, straight from the arrays of its weights.h5.

It is the network that `networks` builds with Keras, as it predicts: dropout is left out, and batch normalization after a
convolution is part of the convolution's weights. Neither Keras nor TensorFlow is imported.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mribatch.errors import ModelError
from mribatch.models import directory
from mribatch.models.format import PIXELS, Model
from mribatch.models.openvino_library import core, openvino

__all__ = ["OUTPUTS", "build", "stored"]

Array = NDArray[np.float32]
Node = Any  # of the graph; OpenVINO's operations are not typed

OUTPUTS = ("probabilities", "logits", "features", "intermediate", "penultimate")
"""The outputs of the graph, each (N, D) float32. See `Outputs` and `Features` for what they are."""

_EPSILON = {"xception": 1e-3, "resnet50v2": 1.001e-5, "cnn": 1e-3}  # of batch normalization, as Keras builds them
_BLOCKS = (3, 4, 6, 3)  # in the stages of ResNet50V2

ov, ops = openvino()


def build(model: Model) -> Any:
    """Return the graph of a network for one scan, (1, side, side, 3) uint8 RGB, with the outputs OUTPUTS.

    Raises ModelError for weights that do not fit the network.
    """
    data = directory.read_file(model, "weights")
    try:
        with h5py.File(io.BytesIO(data)) as file:
            graph = _graph(model, file["layers"])
        _check_shape(graph, len(model.labels))
    except _NotFinite as err:
        raise ModelError(f"the weights in {model.uri} are NaN or infinite in part: train the model again") from err
    except (LookupError, OSError, ValueError, RuntimeError, TypeError, AttributeError) as err:
        raise ModelError(
            f"the weights in {model.uri} do not fit its model.json ({model.backbone}, {len(model.labels)} labels): write "
            "the directory again with `mribatch train`"
        ) from err
    return graph


def stored(model: Model) -> Any:
    """Return the graph in a quantized model's directory, with input and outputs as those of `build`.

    Raises ModelError for files that are missing or altered, and for a graph that does not fit model.json.
    """
    graph, weights = (directory.read_file(model, role) for role in ("graph", "weights"))
    try:
        network = core().read_model(graph, weights)
        _check_shape(network, len(model.labels))
    except (ValueError, RuntimeError) as err:
        raise ModelError(
            f"the graph in {model.uri} cannot be read, or does not fit its model.json: export the model again with `mribatch export`"
        ) from err
    return network


class _NotFinite(Exception):
    """A weight is NaN or infinite."""


def _check_shape(graph: Any, labels: int) -> None:
    """Raise ValueError unless the graph has the outputs OUTPUTS, and a probability for each label."""
    if len(graph.outputs) != len(OUTPUTS):
        raise ValueError(f"expected {len(OUTPUTS)} outputs, got {len(graph.outputs)}")
    shape = tuple(graph.output(0).shape)
    if shape != (1, labels):
        raise ValueError(f"expected {labels} probabilities, got {shape}")


def _graph(model: Model, layers: Any) -> Any:
    side_px = model.image_spec.side_px
    pixels = ops.parameter([1, side_px, side_px, 3], np.uint8)
    scaled = ops.add(ops.multiply(ops.convert(pixels, "f32"), _constant(PIXELS["scale"])), _constant(PIXELS["offset"]))
    backbone = _Layers(layers["functional"]["layers"], _EPSILON[model.backbone])
    image = ops.transpose(scaled, _axes(0, 3, 1, 2))
    intermediate, final = _BACKBONES[model.backbone](backbone, image)
    backbone.check_used()
    features = ops.reduce_max(final, _axes(2, 3))
    penultimate = ops.relu(_dense(layers["dense"], features))
    logits = _dense(layers["dense_1"], penultimate)
    averaged = ops.reduce_mean(intermediate, _axes(2, 3))
    results = (ops.softmax(logits, 1), logits, features, averaged, penultimate)
    return ov.Model([ops.result(result) for result in results], [pixels], model.backbone)


class _Layers:
    """The layers of a backbone in a weights file, taken in the order in which Keras numbers those of each kind."""

    def __init__(self, group: Any, epsilon: float) -> None:
        self._group, self._epsilon = group, epsilon
        self._taken: Counter[str] = Counter()

    def take(self, kind: str) -> list[Array]:
        """Return the arrays of the next layer of a kind, such as conv2d. Raises KeyError where there is none."""
        number = self._taken[kind]
        self._taken[kind] += 1
        return _arrays(self._group[f"{kind}_{number}" if number else kind])

    def check_used(self) -> None:
        """Raise ValueError if the file has layers that were not taken."""
        stored = sum(bool(len(layer.get("vars") or ())) for layer in self._group.values())
        if stored != self._taken.total():
            raise ValueError(f"expected {self._taken.total()} layers, got {stored}")

    def normalization(self) -> tuple[Array, Array]:
        """Return the next batch normalization as a factor and a summand of each channel."""
        gamma, beta, mean, variance = (array.astype(np.float64) for array in self.take("batch_normalization"))
        factor = gamma / np.sqrt(variance + self._epsilon)
        return factor.astype(np.float32), (beta - mean * factor).astype(np.float32)


def _arrays(layer: Any) -> list[Array]:
    """Return the arrays of a layer, float32."""
    stored = layer["vars"]
    # read first, then converted: HDF5's own conversion from float16 takes a second for an Xception
    arrays = [stored[key][()].astype(np.float32) for key in sorted(stored, key=int)]
    if not all(np.isfinite(array).all() for array in arrays):
        raise _NotFinite  # a maximum with a number hides NaN, so it might not reach the probabilities
    return arrays


# Operations. Activations are (N, channels, height, width), kernels (height, width, in, out) as Keras stores them.


def _constant(values: Any) -> Node:
    return ops.constant(np.asarray(values, np.float32))


def _axes(*axes: int) -> Node:
    return ops.constant(np.array(axes, np.int64))


def _channels(values: Array) -> Node:
    return _constant(values.reshape(1, -1, 1, 1))


def _dense(layer: Any, x: Node) -> Node:
    kernel, bias = _arrays(layer)
    return ops.add(ops.matmul(x, _constant(kernel), False, False), _constant(bias))


def _convolution(x: Node, kernel: Array, stride: int = 1, padding: str = "same_upper", pads: int = 0) -> Node:
    weights = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    return ops.convolution(x, _constant(weights), [stride] * 2, [pads] * 2, [pads] * 2, [1, 1], padding)


def _normalized_convolution(
    layers: _Layers, x: Node, stride: int = 1, padding: str = "same_upper", pads: int = 0
) -> Node:
    """Return a convolution without bias followed by batch normalization, as one convolution."""
    (kernel,) = layers.take("conv2d")
    factor, summand = layers.normalization()
    return ops.add(_convolution(x, kernel * factor, stride, padding, pads), _channels(summand))


def _biased_convolution(layers: _Layers, x: Node) -> Node:
    kernel, bias = layers.take("conv2d")
    return ops.add(_convolution(x, kernel), _channels(bias))


def _normalized(layers: _Layers, x: Node) -> Node:
    """Return batch normalization that follows no convolution, and ReLU."""
    factor, summand = layers.normalization()
    return ops.relu(ops.add(ops.multiply(x, _channels(factor)), _channels(summand)))


def _separable(layers: _Layers, x: Node) -> Node:
    """Return a 3 × 3 separable convolution followed by batch normalization."""
    depthwise, pointwise = layers.take("separable_conv2d")
    factor, summand = layers.normalization()
    spatial = np.ascontiguousarray(depthwise.transpose(2, 3, 0, 1)[:, :, None])
    x = ops.group_convolution(x, _constant(spatial), [1, 1], [1, 1], [1, 1], [1, 1])
    return ops.add(_convolution(x, pointwise * factor), _channels(summand))


def _pooled(x: Node, size: int, padding: str = "valid") -> Node:
    """Return the maxima of windows, two pixels apart."""
    return ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [size] * 2, "floor", padding).output(0)


def _edged(x: Node) -> Node:
    """Return activations with one more row or column of zeros on each side."""
    edge = ops.constant(np.array([0, 0, 1, 1], np.int64))
    return ops.pad(x, edge, edge, "constant", _constant(0))


# Backbones: each returns the intermediate layer that `networks.with_intermediate` names, and the last layer.


def _xception(layers: _Layers, x: Node) -> tuple[Node, Node]:
    """Chollet, Xception: Deep Learning with Depthwise Separable Convolutions (2017), figure 5."""
    x = ops.relu(_normalized_convolution(layers, x, 2, "valid"))
    x = ops.relu(_normalized_convolution(layers, x, 1, "valid"))
    x = _xception_shrinking(layers, x, _separable(layers, x))
    for _ in range(2):
        x = _xception_shrinking(layers, x, _separable(layers, ops.relu(x)))
    middle = x = _xception_middle(layers, x, blocks=4)
    x = _xception_middle(layers, x, blocks=4)
    x = _xception_shrinking(layers, x, _separable(layers, ops.relu(x)))
    for _ in range(2):
        x = ops.relu(_separable(layers, x))
    return middle, x


def _xception_shrinking(layers: _Layers, x: Node, first: Node) -> Node:
    """Return a block that halves the side, given the first of its two separable convolutions."""
    second = _separable(layers, ops.relu(first))
    return ops.add(_pooled(second, 3, "same_upper"), _normalized_convolution(layers, x, 2))


def _xception_middle(layers: _Layers, x: Node, blocks: int) -> Node:
    for _ in range(blocks):
        shortcut = x
        for _ in range(3):
            x = _separable(layers, ops.relu(x))
        x = ops.add(x, shortcut)
    return x


def _resnet50v2(layers: _Layers, x: Node) -> tuple[Node, Node]:
    """He et al., Identity Mappings in Deep Residual Networks (2016), with Keras' strides in the last block of a stage."""
    kernel, bias = layers.take("conv2d")
    x = ops.add(_convolution(x, kernel, 2, "explicit", 3), _channels(bias))
    x = middle = _pooled(_edged(x), 3)
    for stage, blocks in enumerate(_BLOCKS):
        middle = x
        for block in range(blocks):
            is_last = block == blocks - 1 and stage < len(_BLOCKS) - 1
            x = _residual(layers, x, stride=2 if is_last else 1, widens=block == 0)
    return middle, _normalized(layers, x)


def _residual(layers: _Layers, x: Node, stride: int, widens: bool) -> Node:
    """Return a block of three convolutions beside its input: as it is, convolved to more channels, or every second pixel."""
    active = _normalized(layers, x)
    inner = ops.relu(_normalized_convolution(layers, active))
    inner = ops.relu(_normalized_convolution(layers, inner, stride, "explicit", 1))
    shortcut = _biased_convolution(layers, active) if widens else x
    if stride > 1:
        shortcut = ops.max_pool(x, [stride] * 2, [1, 1], [0, 0], [0, 0], [1, 1]).output(0)
    return ops.add(shortcut, _biased_convolution(layers, inner))


def _cnn(layers: _Layers, x: Node) -> tuple[Node, Node]:
    for _ in range(3):
        x = _pooled(ops.relu(_normalized_convolution(layers, x)), 2)
    return x, _pooled(ops.relu(_normalized_convolution(layers, x)), 2)


_BACKBONES: Mapping[str, Callable[[_Layers, Node], tuple[Node, Node]]] = {
    "xception": _xception,
    "resnet50v2": _resnet50v2,
    "cnn": _cnn,
}
