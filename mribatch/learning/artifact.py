"""A model directory: save, check, load. model.json says how to build the network; weights.h5 fills it.

Reading and checking needs no TensorFlow; `load` does.
"""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mribatch.errors import ModelError, StorageMissing
from mribatch.scans.images import ImageSpec
from mribatch.storage import uris

if TYPE_CHECKING:
    import keras

__all__ = ["CARD", "CURRENT", "HEAD", "PIXELS", "Model", "current", "load", "read", "save"]

FORMAT = 1
CARD = "MODEL_CARD.md"
CURRENT = "CURRENT"
PIXELS = {"dtype": "uint8", "scale": 1 / 127.5, "offset": -1.0, "resize": "bicubic"}
"""How pixels become network input: uint8 RGB times scale plus offset, resized by Pillow."""

HEAD: dict[str, Any] = {"pooling": "max", "dropout": [0.3, 0.25], "dense": 128}
"""Global max pooling, Flatten, Dropout 0.3, Dense 128 ReLU, Dropout 0.25, Dense softmax: the paper's head."""

_NETWORK_KEYS = ("format", "labels", "backbone", "image_side_px", "pixels", "head")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What model.json says, checked against the weights beside it."""

    uri: str
    facts: dict[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.facts["labels"])

    @property
    def backbone(self) -> str:
        return str(self.facts["backbone"])

    @property
    def image_spec(self) -> ImageSpec:
        return ImageSpec(side_px=self.facts["image_side_px"])

    @property
    def digest(self) -> str:
        """12 hex digits that name the weights and everything that turns a scan into their input."""
        return _digest(self.facts)


def save(uri: str, weights: Path, facts: dict[str, Any], card: str) -> Model:
    """Write a model directory from a Keras weights file. model.json comes last: a directory with it is whole.

    facts: labels, backbone, image_side_px, head, and what is to be told of the training. Matrices and kernels are
    stored as float16; vectors (batch normalization, biases) stay float32, because rounding those moves predictions.
    """
    data = _as_float16(weights)
    whole = {"format": FORMAT, "pixels": PIXELS, "head": HEAD, **facts,
             "weights": {"file": "weights.h5", "sha256": hashlib.sha256(data).hexdigest(), "dtype": "float16"}}  # fmt: skip
    whole["digest"] = _digest(whole)
    uris.put(uris.join(uri, "weights.h5"), data)
    uris.put(uris.join(uri, CARD), card.format(digest=whole["digest"]).encode())
    uris.put(uris.join(uri, "model.json"), json.dumps(whole, indent=1).encode())
    return Model(uri=uris.absolute(uri), facts=whole)


def read(uri: str) -> Model:
    """Read and check a model directory, or the current one of a folder of them: the facts are complete, the weights are
    those they name.

    Raises ModelError that says which file is missing or altered, and what to do.
    """
    model = _facts(uri)
    _weights(model)
    return model


def current(uri: str) -> str:
    """The model directory that a folder of them names in its file CURRENT; a model directory is its own.

    Raises ModelError for a CURRENT that names none.
    """
    if CURRENT not in uris.names(uri, CURRENT):
        return uri
    name = uris.read(uris.join(uri, CURRENT)).decode(errors="replace").strip()
    if name not in uris.folders(uri):
        raise ModelError(
            f"{CURRENT} in {uri} names {name!r}, which is no folder there: correct the file, or remove it and promote "
            "one with jobs/promote.py"
        )
    return uris.join(uri, name)


def load(uri: str, expected_digest: str | None = None) -> tuple[Model, "keras.Model"]:
    """As `read`, and build: the network with its weights, for (N, side, side, 3) float32 in -1…1.

    Raises ModelError, also where the directory no longer holds the model of expected_digest.
    """
    from mribatch.learning import network

    model = _facts(uri)
    if expected_digest not in (None, model.digest):
        raise ModelError(f"expected model {expected_digest} in {uri}, found {model.digest}: it was replaced while "
                         "this run went on; run the command again")  # fmt: skip
    built = network.build(model.backbone, len(model.labels), side_px=model.image_spec.side_px)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        path.write_bytes(_weights(model))
        try:
            built.load_weights(path)
        except (ValueError, OSError, KeyError) as err:
            raise ModelError(f"the weights in {uri} do not fit its model.json ({model.backbone}, {len(model.labels)} "
                             "labels): write the directory again with jobs/train.py") from err  # fmt: skip
    return model, built


def _facts(uri: str) -> Model:
    uri = current(uri)
    if not uris.is_s3(uri) and not uris.names(uri):
        raise ModelError(f"no model at {uri}: train one with jobs/train.py or pass another --model")
    try:
        facts = json.loads(uris.read(uris.join(uri, "model.json")))
    except StorageMissing as err:
        raise ModelError(f"no model.json in {uri}: pass a model directory that jobs/train.py wrote, or a folder of them "
                         f"with a file {CURRENT}, which jobs/promote.py writes") from err  # fmt: skip
    except ValueError as err:
        raise ModelError(f"model.json in {uri} is not JSON: copy the directory again or train anew") from err
    _check(uri, facts)
    return Model(uri=uris.absolute(uri), facts=facts)


def _check(uri: str, facts: Any) -> None:
    missing = [key for key in (*_NETWORK_KEYS, "weights") if not isinstance(facts, dict) or key not in facts]
    if missing:
        raise ModelError(f"model.json in {uri} lacks {', '.join(missing)}: copy the directory again or train anew")
    if facts["format"] != FORMAT or facts["pixels"] != PIXELS or facts["head"] != HEAD:
        raise ModelError(f"the model in {uri} is of format {facts['format']} or has another head or pixel scaling; this "
                         f"version reads format {FORMAT}: install the version that wrote it, or train anew")  # fmt: skip
    labels = facts["labels"]
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ModelError(f"the labels in {uri} must be two or more, each once, got {labels}: correct model.json")
    if facts.get("digest", _digest(facts)) != _digest(facts):
        raise ModelError(f"model.json in {uri} was altered: its digest is {facts['digest']}, its contents give "
                         f"{_digest(facts)}; copy the directory again from its source")  # fmt: skip


def _weights(model: Model) -> bytes:
    """The weights' bytes, checked against the SHA-256 in model.json."""
    named = model.facts["weights"]
    place = uris.join(model.uri, named["file"])
    try:
        data = uris.read(place)
    except StorageMissing as err:
        raise ModelError(f"{place} is missing: copy the model directory again, whole") from err
    found = hashlib.sha256(data).hexdigest()
    if found != named["sha256"]:
        raise ModelError(f"{place} is not the file that model.json names: expected SHA-256 {named['sha256'][:12]}…, "
                         f"found {found[:12]}…; copy the model directory again, whole")  # fmt: skip
    return data


def _digest(facts: dict[str, Any]) -> str:
    named = {key: facts[key] for key in _NETWORK_KEYS} | {"weights": facts["weights"]["sha256"]}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]


def _as_float16(weights: Path) -> bytes:
    """A Keras weights file with its matrices and kernels rounded to float16, byte for byte reproducible."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.h5"
        with h5py.File(weights) as source, h5py.File(path, "w") as target:
            source.visititems(lambda name, item: _copy(target, name, item))
        return path.read_bytes()


def _copy(target: h5py.File, name: str, item: Any) -> None:
    if isinstance(item, h5py.Group):
        target.require_group(name)  # without its attributes: they count the layers of the process that wrote it
        return
    values = item[()]
    rounded = values.astype(np.float16) if values.ndim > 1 else values
    target.create_dataset(name, data=rounded)
