"""Weights files in all common layouts fill a backbone, array by array; other files are refused in one sentence."""

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from mribatch.errors import ModelError, StorageError
from mribatch.models import directory, pretrained

Arrays = list[NDArray[np.float32]]

ONE_ATTRIBUTE_BYTES = 64512  # what Keras 2 took to fit into an HDF5 attribute


def application(name: str, *, top: bool = False) -> Any:
    """Return a network of keras.applications with random weights, also in batch normalization."""
    import keras

    keras.utils.set_random_seed(7)
    make = {"xception": keras.applications.Xception, "resnet50v2": keras.applications.ResNet50V2}[name]
    model = make(include_top=top, weights=None, **({} if top else {"input_shape": (None, None, 3)}))
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.05, array.shape).astype(np.float32) for array in model.get_weights()])
    return model


def old_names(model: Any) -> dict[str, str]:
    """Return the name of each layer in the published file: Keras 3 numbers layers from 0 in each process, Keras 1 from 1."""
    old = {
        "conv2d": "convolution2d",
        "batch_normalization": "batchnormalization",
        "add": "merge",
        "input_layer": "input",
        "global_max_pooling2d": "globalmaxpooling2d",
    }
    names, numbers = {}, dict.fromkeys(old, 0)
    for layer in model.layers:
        kind = layer.name.rstrip("0123456789").rstrip("_")
        if kind in old:
            numbers[kind] += 1
        names[layer.name] = f"{old[kind]}_{numbers[kind]}" if kind in old else layer.name
    return names


def put_names(group: h5py.Group, name: str, values: Sequence[str], limit: int) -> None:
    """Write names as Keras 2 did: in one attribute, or in several numbered ones if they are too long."""
    data = np.asarray([value.encode() for value in values]) if values else np.asarray([], "S1")
    pieces = [data]
    while any(piece.nbytes > limit for piece in pieces):
        pieces = np.array_split(data, len(pieces) + 1)
    for number, piece in enumerate(pieces):
        group.attrs[name if len(pieces) == 1 else f"{name}{number}"] = piece


def write_legacy(
    model: Any, root: h5py.Group, *, order: Callable[[list[Any]], list[Any]] = list, limit: int = ONE_ATTRIBUTE_BYTES
) -> None:
    """Write a model as Keras 2 wrote `save_weights("x.h5")`."""
    names, layers = old_names(model), order(list(model.layers))
    put_names(root, "layer_names", [names[layer.name] for layer in layers], limit)
    root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.0.8"
    for layer in layers:
        group = root.create_group(names[layer.name])
        variables = layer.trainable_weights + layer.non_trainable_weights
        weights = [f"{names[layer.name]}/{variable.name}:0" for variable in variables]
        put_names(group, "weight_names", weights, limit)
        for weight, variable in zip(weights, variables, strict=True):
            group.create_dataset(weight, data=np.asarray(variable))


def legacy_file(path: Path, model: Any, **how: Any) -> str:
    with h5py.File(path, "w") as file:
        write_legacy(model, file, **how)
    return str(path)


@pytest.fixture(scope="module", params=["xception", "resnet50v2"])
def published(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """Return a backbone's name, and its network without and with its top, with equal weights."""
    name = request.param
    bare, topped = application(name), application(name, top=True)
    arrays = topped.get_weights()
    bare.set_weights(arrays[: len(bare.weights)])
    return name, bare, topped


def loaded(backbone: str, weights: str, workers: int | None = None) -> Any:
    """Return the backbone of a network after loading a weights file into it."""
    from mribatch.models import networks

    model = networks.build(backbone, 2, workers=workers, seed=11)
    networks.load_backbone(model, backbone, weights)
    return model.layers[0]


def assert_same_layers(ours: Any, theirs: Any) -> None:
    """Assert that corresponding layers have the same arrays, bit for bit."""
    pairs = zip(*([layer for layer in model.layers if layer.weights] for model in (ours, theirs)), strict=True)
    for own, other in pairs:
        assert len(own.weights) == len(other.weights)
        for array, expected in zip(own.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(array, expected, err_msg=f"{own.name} from {other.name}")


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_the_file_that_keras_publishes_fills_each_layer(
    published: tuple[str, Any, Any], tmp_path: Path, workers: int | None
) -> None:
    name, bare, _ = published
    path = legacy_file(tmp_path / f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5", bare)
    assert_same_layers(loaded(name, path, workers), bare)


def test_the_published_layout_is_read_as_keras_reads_it(published: tuple[str, Any, Any], tmp_path: Path) -> None:
    name, bare, _ = published
    path = legacy_file(tmp_path / "x.h5", bare)
    theirs = application(name)
    theirs.set_weights([np.zeros_like(array) for array in theirs.get_weights()])
    theirs.load_weights(path)
    assert_same_layers(loaded(name, path), theirs)


def test_a_published_file_with_its_top_fills_the_layers_below(published: tuple[str, Any, Any], tmp_path: Path) -> None:
    name, bare, topped = published
    assert_same_layers(loaded(name, legacy_file(tmp_path / "any name", topped)), bare)
    topped.save_weights(tmp_path / "top.weights.h5")
    assert_same_layers(loaded(name, str(tmp_path / "top.weights.h5")), bare)


def test_a_file_whose_lists_of_names_are_split_is_read(published: tuple[str, Any, Any], tmp_path: Path) -> None:
    name, bare, _ = published
    path = legacy_file(tmp_path / "x.h5", bare, limit=1000)
    with h5py.File(path) as file:
        assert "layer_names" not in file.attrs
        assert "layer_names1" in file.attrs
    assert_same_layers(loaded(name, path), bare)


def test_named_layers_are_found_in_any_order(published: tuple[str, Any, Any], tmp_path: Path) -> None:
    """Layers of equal shape would be swapped unnoticed if only their order counted."""

    def numbered_last(layers: list[Any]) -> list[Any]:
        automatic = [x for x in layers if x.name.startswith(("conv2d_", "batch_norm")) or x.name == "conv2d"]
        automatic = [x for x in automatic if "block" not in x.name]
        return [x for x in reversed(layers) if x not in automatic] + automatic

    name, bare, _ = published
    assert_same_layers(loaded(name, legacy_file(tmp_path / "x.h5", bare, order=numbered_last)), bare)


def test_a_complete_model_of_keras_2_gives_its_weights_and_is_not_built(
    published: tuple[str, Any, Any], tmp_path: Path
) -> None:
    name, bare, _ = published
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = b'{"class_name": "Lambda", "config": "would run code"}'
        write_legacy(bare, file.create_group("model_weights"))
    assert_same_layers(loaded(name, str(tmp_path / "model.h5")), bare)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_backbone_inside_a_model_of_keras_2_is_found(
    published: tuple[str, Any, Any], tmp_path: Path, frozen: bool
) -> None:
    """Keras 2 wrote such a network as one layer: trainable weights first, then the others."""
    name, bare, _ = published
    names = old_names(bare)
    variables = bare.trainable_weights + bare.non_trainable_weights
    if frozen:
        variables = [variable for layer in bare.layers for variable in layer.weights]
    owner = {id(variable): names[layer.name] for layer in bare.layers for variable in layer.weights}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        put_names(file, "layer_names", [name, "dropout", "dense"], ONE_ATTRIBUTE_BYTES)
        put_names(file.create_group("dropout"), "weight_names", [], ONE_ATTRIBUTE_BYTES)
        saved = {
            name: {f"{owner[id(variable)]}/{variable.name}:0": np.asarray(variable) for variable in variables},
            "dense": {"dense/kernel:0": np.zeros((2048, 3)), "dense/bias:0": np.zeros(3)},
        }
        for layer, arrays in saved.items():
            put_names(file.create_group(layer), "weight_names", list(arrays), ONE_ATTRIBUTE_BYTES)
            for weight, array in arrays.items():
                file[layer].create_dataset(weight, data=array)
    assert_same_layers(loaded(name, str(tmp_path / "x.h5")), bare)


def test_files_of_keras_3_fill_each_layer_whatever_their_name(published: tuple[str, Any, Any], tmp_path: Path) -> None:
    name, bare, _ = published
    bare.save_weights(tmp_path / "x.weights.h5")
    (tmp_path / "x.bin").write_bytes((tmp_path / "x.weights.h5").read_bytes())
    assert_same_layers(loaded(name, str(tmp_path / "x.bin")), bare)


@pytest.mark.parametrize("backbone", ["cnn", "xception"])
def test_the_weights_of_a_model_directory_give_its_backbone(backbone: str, tmp_path: Path) -> None:
    from mribatch.models import networks

    model = networks.build(backbone, 3, seed=5)
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "weights.h5").write_bytes(directory.rounded(tmp_path / "m.weights.h5"))
    assert_same_layers(loaded(backbone, str(tmp_path / "m.weights.h5")), model.layers[0])
    for ours, theirs in zip(
        loaded(backbone, str(tmp_path / "weights.h5")).get_weights(), model.layers[0].get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-3, err_msg="half precision")


@pytest.mark.shared
def test_the_shared_imagenet_weights_are_those_of_keras(shared: Path) -> None:
    path = shared / "weights/xception_imagenet_notop.weights.h5"
    theirs = application("xception")
    theirs.load_weights(path)
    assert_same_layers(loaded("xception", str(path)), theirs)


def test_the_expected_number_of_arrays_is_that_of_each_backbone() -> None:
    from mribatch.models import networks

    counts = {name: len(networks.build(name, 2).layers[0].weights) for name in pretrained.TENSORS}
    assert counts == pretrained.TENSORS


def archive(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "contents"),
    [
        (b"", "an empty file"),
        (archive("config.json", "metadata.json", "model.weights.h5"), r"a complete Keras model \(\.keras\)"),
        (archive("archive/data.pkl", "archive/data/0"), "a PyTorch file"),
        (archive("a.npy"), "a zip archive"),
        (b"PK\x03\x04 and no more", "a damaged zip archive"),
        (pickle.dumps({"weights": [1.0]}), "a pickle"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"\n<!DOCTYPE html><title>403</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"conv1":{"dtype":"F32"}}', "a safetensors file"),
        (b"no weights at all", "that is not HDF5"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_described(data: bytes, contents: str, tmp_path: Path) -> None:
    (tmp_path / "given.h5").write_bytes(data)
    with pytest.raises(ModelError, match=rf"of xception .*_notop\.h5, got .*{contents}.*given\.h5$") as caught:
        pretrained.read_weights(str(tmp_path / "given.h5"), "xception")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.9999])
def test_a_truncated_file_is_refused(published: tuple[str, Any, Any], tmp_path: Path, share: float) -> None:
    name, bare, _ = published
    data = Path(legacy_file(tmp_path / "x.h5", bare)).read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match="truncated or damaged HDF5 file"):
        pretrained.read_weights(str(tmp_path / "cut.h5"), name)


@pytest.mark.parametrize(
    "save", [lambda model, path: legacy_file(path, model), lambda model, path: model.save_weights(path)]
)
def test_the_weights_of_another_network_are_refused_before_anything_is_built(
    published: tuple[str, Any, Any], tmp_path: Path, save: Callable[[Any, Path], object]
) -> None:
    name, bare, _ = published
    (other,) = {"xception", "resnet50v2"} - {name}
    save(bare, tmp_path / "x.weights.h5")
    contents = f"{pretrained.TENSORS[name]} arrays in"
    with pytest.raises(ModelError, match=rf"of {other} .*{pretrained.TENSORS[other]} arrays.*, got .*{contents}"):
        pretrained.read_weights(str(tmp_path / "x.weights.h5"), other)


def hdf5(fill: Callable[[h5py.File], object]) -> bytes:
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        fill(file)
    return data.getvalue()


@pytest.mark.parametrize(
    ("fill", "contents"),
    [
        (lambda file: file.create_dataset("x", data=[1.0]), "damaged"),
        (lambda file: file.attrs.update({"layer_names": [b"conv"]}), "damaged"),
        (lambda file: file.attrs.update({"layer_names": np.asarray([], "S1")}), "without them"),
        (lambda file: file.create_group("layers"), "without them"),
    ],
)
def test_an_hdf5_file_of_something_else_is_refused(
    fill: Callable[[h5py.File], object], contents: str, tmp_path: Path
) -> None:
    (tmp_path / "x.h5").write_bytes(hdf5(fill))
    with pytest.raises(ModelError, match=contents):
        pretrained.read_weights(str(tmp_path / "x.h5"), "cnn")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[h5py.File]:
    """Return a legacy file of a cnn, open for changes."""
    from mribatch.models import networks

    with h5py.File(tmp_path / "cnn.h5", "w") as file:
        write_legacy(networks.build("cnn", 2).layers[0], file)
        yield file


def test_arrays_of_another_shape_are_refused(small: h5py.File, tmp_path: Path) -> None:
    weight = "convolution2d_2/convolution2d_2/kernel:0"
    transposed = small[weight][...].transpose(0, 1, 3, 2)
    del small[weight]
    small[weight] = transposed
    small.flush()
    with pytest.raises(ModelError, match="arrays of other shapes"):
        loaded("cnn", str(tmp_path / "cnn.h5"))


def test_a_link_into_another_file_is_not_followed(small: h5py.File, tmp_path: Path) -> None:
    weight = "convolution2d_1/convolution2d_1/kernel:0"
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = small[weight][...]
    del small[weight]
    small[weight] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
    small.flush()
    with pytest.raises(ModelError, match="damaged"):
        pretrained.read_weights(str(tmp_path / "cnn.h5"), "cnn")


def test_the_error_for_a_missing_file_or_a_folder_names_its_path(tmp_path: Path) -> None:
    for path in (tmp_path / "none.h5", tmp_path):
        with pytest.raises((ModelError, StorageError), match=str(path)):
            pretrained.read_weights(str(path), "xception")
