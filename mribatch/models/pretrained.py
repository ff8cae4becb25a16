"""Read a backbone's weights from Keras' published .h5 files, from .weights.h5, or from a model's weights.h5.

Only HDF5 arrays are read. No model is deserialized and no pickle is opened. Keras and TensorFlow are not imported, so
that the driver can refuse a wrong file before a run starts.
"""

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mribatch.errors import ModelError
from mribatch.stores import uris

__all__ = ["TENSORS", "Layer", "legacy_layers", "matched", "read_weights", "unfit", "write_plain"]

TENSORS: Mapping[str, int] = {"xception": 234, "resnet50v2": 270, "cnn": 20}
"""Number of weight arrays of each backbone without its top."""

_PUBLISHED = {
    "xception": "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "resnet50v2": "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAGIC = {
    b"\x80": "a pickle, which may run code when it is opened",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"<": "a web page or XML, perhaps a failed download",
}
_AUTOMATIC = re.compile(r"(conv2d|batch_normalization|separable_conv2d)(_\d+)?")
"""Names that Keras numbers automatically; the numbers depend on what the writing process had built before."""

_LAYER_ARRAYS = 4  # of batch normalization; no layer of a backbone has more

_UNREADABLE = (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError, UnicodeDecodeError)
"""The exceptions that h5py raises for damaged files."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A layer in a file, with its arrays in the order in which Keras wrote them."""

    name: str
    arrays: Sequence[NDArray[Any]]


def read_weights(uri: str, backbone: str) -> bytes:
    """Return the bytes of a weights file, after checking that it has as many arrays as the backbone.

    Raises ModelError for any other file, and StorageError for one that cannot be read.
    """
    data = uris.read(uri)
    if not data.startswith(_HDF5):
        raise unfit(uri, backbone, _kind(data))
    try:
        with h5py.File(io.BytesIO(data)) as file:
            layers = _layers(file)
    except _UNREADABLE as err:
        raise unfit(uri, backbone, f"a truncated or damaged HDF5 file of {len(data):,} bytes") from err
    if sum(len(shapes) for shapes in layers.values()) != TENSORS[backbone]:
        raise unfit(uri, backbone, _contents(layers))
    return data


def unfit(uri: str, backbone: str, contents: str) -> ModelError:
    """Return the error for a file that does not contain the weights of a backbone, but these contents."""
    example = f", such as {_PUBLISHED[backbone]}" if backbone in _PUBLISHED else ""
    return ModelError(
        f"expected a Keras weights file (.h5 or .weights.h5) of {backbone} without its top, {TENSORS[backbone]} arrays"
        f"{example}, got {contents}: {uri}"
    )


def legacy_layers(data: bytes) -> list[Layer] | None:
    """Return the layers of a file in the layout of Keras 1 and 2, without dense layers; None for the layout of Keras 3."""
    with h5py.File(io.BytesIO(data)) as file:
        root = _legacy_root(file)
        if root is None:
            return None
        layers = [
            Layer(name=name, arrays=[np.asarray(item) for item in items]) for name, items in _legacy_items(root).items()
        ]
    return [layer for layer in layers if not _is_dense([array.shape for array in layer.arrays])]


def matched(names: Sequence[str], layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers of a file in the order of a network's layers with weights, which have these names.

    Layers are matched by name if the file has every name that Keras does not number; the numbered ones keep their order.
    Otherwise all layers are matched by position, as Keras does.
    """
    fixed = {name for name in names if not _AUTOMATIC.fullmatch(name)}
    by_name = {layer.name: layer for layer in layers if layer.name in fixed}
    if by_name.keys() != fixed or len(layers) != len(names):
        return list(layers)
    numbered = iter([layer for layer in layers if layer.name not in fixed])
    return [by_name[name] if name in fixed else next(numbered) for name in names]


def write_plain(data: bytes, path: Path) -> None:
    """Write a weights file of the backbone alone, which Keras can load, from a file in the layout of Keras 3."""
    with h5py.File(io.BytesIO(data)) as source, h5py.File(path, "w") as target:
        source.copy(_plain_root(source), target, "layers")


def _kind(data: bytes) -> str:
    """Describe a file that is not HDF5."""
    if not data:
        return "an empty file"
    if data.startswith(b"PK"):
        return _zip_kind(data)
    known = [kind for magic, kind in _MAGIC.items() if data.lstrip().startswith(magic)]
    if not known and data[8:10] == b'{"':
        return "a safetensors file"
    return known[0] if known else f"a file of {len(data):,} bytes that is not HDF5"


def _zip_kind(data: bytes) -> str:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except zipfile.BadZipFile:
        return "a damaged zip archive"
    if "config.json" in names:
        return "a complete Keras model (.keras) instead of its weights"
    return "a PyTorch file" if any(name.endswith("data.pkl") for name in names) else "a zip archive"


def _layers(file: h5py.File) -> dict[str, list[tuple[int, ...]]]:
    """Return the shapes of the arrays of each layer, without dense layers."""
    root = _legacy_root(file)
    if root is not None:
        items = _legacy_items(root)
    else:
        group = _plain_root(file)
        variables = {name: group[name].get("vars") or {} for name in group}
        items = {name: [_array(arrays, key) for key in sorted(arrays, key=int)] for name, arrays in variables.items()}
    shapes = {name: [tuple(item.shape) for item in arrays] for name, arrays in items.items()}
    return {name: arrays for name, arrays in shapes.items() if arrays and not _is_dense(arrays)}


def _legacy_root(file: h5py.File) -> h5py.Group | None:
    """Return the group with the layers in the layout of Keras 1 and 2: the file, or `model_weights` of a saved model."""
    for root in (file, file.get("model_weights")):
        if isinstance(root, h5py.Group) and any(name in root.attrs for name in ("layer_names", "layer_names0")):
            return root
    return None


def _legacy_items(root: h5py.Group) -> dict[str, list[h5py.Dataset]]:
    """Return the arrays of each layer that has any, in the order in which they were written.

    A network inside a model is written as one layer; the names of its arrays say which layer they belong to.
    """
    items: dict[str, list[h5py.Dataset]] = {}
    for name in _attribute(root, "layer_names"):
        weights = _attribute(root[name], "weight_names")
        for weight in weights:
            layer = name if len(weights) <= _LAYER_ARRAYS else weight.split("/")[-2]
            items.setdefault(layer, []).append(_array(root[name], weight))
    return items


def _array(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return an array of a group. Raises ValueError for a link into another file."""
    item = group[name]
    if not isinstance(item, h5py.Dataset) or item.external or item.is_virtual or item.file.id != group.file.id:
        raise ValueError(f"{name} is not an array of this file")
    return item


def _attribute(group: h5py.Group, name: str) -> list[str]:
    """Return an attribute that is a list of names; Keras splits a long list into name0, name1 and so on."""
    pieces = [name] if name in group.attrs else []
    while f"{name}{len(pieces)}" in group.attrs and name not in group.attrs:
        pieces.append(f"{name}{len(pieces)}")
    items = [item for piece in pieces for item in group.attrs[piece]]
    return [item.decode() if isinstance(item, bytes) else str(item) for item in items]


def _plain_root(file: h5py.File) -> h5py.Group:
    """Return the group with the backbone's layers in the layout of Keras 3: of the file, or of the network in a model."""
    group = file["layers"]
    return group["functional"]["layers"] if "functional" in group else group


def _is_dense(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Return whether the arrays belong to a dense layer; backbones have none, tops do."""
    return any(len(shape) == 2 for shape in shapes)


def _contents(layers: Mapping[str, Sequence[Any]]) -> str:
    if not layers:
        return "an HDF5 file without them"
    arrays, names = sum(map(len, layers.values())), ", ".join(list(layers)[:3])
    return f"an HDF5 file with {arrays} arrays in {len(layers)} layers ({names} …)"
