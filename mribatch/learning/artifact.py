"""A model directory: save, check, load. model.json says how to build the model; the files that it names fill it.

Those are weights.h5 for a network; classifier.skops for a classical model, and backbone.h5 where it sees features.
Reading and checking needs no TensorFlow; `network` does.
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

__all__ = [
    "CARD",
    "CURRENT",
    "HEAD",
    "PIXELS",
    "Model",
    "contents",
    "current",
    "named",
    "network",
    "read",
    "rounded",
    "save",
    "save_classical",
    "size_bytes",
]

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
    def kind(self) -> str:
        """What a person calls it: the backbone of a network, the name of a classical model."""
        return str(self.facts["head"].get("classifier", self.backbone))

    @property
    def image_spec(self) -> ImageSpec:
        return ImageSpec(side_px=self.facts["image_side_px"])

    @property
    def is_classical(self) -> bool:
        """It is a scikit-learn pipeline, not a network."""
        return "classifier" in self.facts["head"]

    @property
    def has_network(self) -> bool:
        """TensorFlow computes a part of it at least."""
        return not self.is_classical or "features" in self.facts

    @property
    def digest(self) -> str:
        """12 hex digits that name the weights and everything that turns a scan into their input."""
        return _digest(self.facts)


def save(uri: str, weights: Path, facts: dict[str, Any], card: str) -> Model:
    """Write a model directory from a Keras weights file. model.json comes last: a directory with it is whole.

    facts: labels, backbone, image_side_px, head, and what is to be told of the training. The card's `{digest}` is filled in.
    """
    return _save(uri, {"weights": ("weights.h5", rounded(weights))}, {"head": HEAD, **facts}, card)


def save_classical(uri: str, classifier: bytes, backbone: bytes | None, facts: dict[str, Any], card: str) -> Model:
    """As `save`, from a pipeline stored with skops and, where it sees the features of a backbone, that one's weights.

    facts: as for `save`; head names the classifier.
    """
    files = {"weights": ("classifier.skops", classifier)}
    if backbone is not None:
        files["features"] = ("backbone.h5", backbone)
    return _save(uri, files, facts, card)


def _save(uri: str, files: dict[str, tuple[str, bytes]], facts: dict[str, Any], card: str) -> Model:
    stored = {role: {"file": name, "sha256": hashlib.sha256(data).hexdigest()} for role, (name, data) in files.items()}
    whole = {"format": FORMAT, "pixels": PIXELS, **facts, **stored}
    whole["digest"] = _digest(whole)
    for name, data in files.values():
        uris.put(uris.join(uri, name), data)
    uris.put(uris.join(uri, CARD), card.replace("{digest}", whole["digest"]).encode())
    uris.put(uris.join(uri, "model.json"), json.dumps(whole, indent=1).encode())
    return Model(uri=uris.absolute(uri), facts=whole)


def read(uri: str) -> Model:
    """Read and check a model directory, or the current one of a folder of them: the facts are complete, the weights are
    those they name.

    Raises ModelError that says which file is missing or altered, and what to do.
    """
    model = _facts(uri)
    for role in _files(model.facts):
        contents(model, role)
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


def named(uri: str, expected_digest: str | None = None) -> Model:
    """As `read`, with its files still unread. Raises ModelError where the directory no longer holds the model of
    expected_digest."""
    model = _facts(uri)
    if expected_digest not in (None, model.digest):
        raise ModelError(f"expected model {expected_digest} in {uri}, found {model.digest}: it was replaced while "
                         "this run went on; run the command again")  # fmt: skip
    return model


def network(model: Model) -> "keras.Model":
    """The network with its weights, for (N, side, side, 3) float32 in -1…1. Raises ModelError."""
    from mribatch.learning import network

    built = network.build(model.backbone, len(model.labels), side_px=model.image_spec.side_px)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        path.write_bytes(contents(model, "weights"))
        try:
            built.load_weights(path)
        except (ValueError, OSError, KeyError) as err:
            raise ModelError(f"the weights in {model.uri} do not fit its model.json ({model.backbone}, {len(model.labels)} "
                             "labels): write the directory again with jobs/train.py") from err  # fmt: skip
    return built


def contents(model: Model, role: str) -> bytes:
    """The bytes of a file that model.json names, checked against their SHA-256."""
    named = model.facts[role]
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


def size_bytes(model: Model) -> int:
    """What the model takes on disk, without its card."""
    return sum(len(contents(model, role)) for role in _files(model.facts))


def rounded(weights: Path) -> bytes:
    """A Keras weights file in float16, byte for byte reproducible. Vectors (batch normalization, biases) stay float32,
    because rounding those moves predictions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.h5"
        with h5py.File(weights) as source, h5py.File(path, "w") as target:
            source.visititems(lambda name, item: _copy(target, name, item))
        return path.read_bytes()


def _facts(uri: str) -> Model:
    uri = current(uri)
    if not uris.is_s3(uri) and not uris.names(uri):
        raise ModelError(f"no model at {uri}: expected a model directory that jobs/train.py wrote")
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
    known_head = facts["head"] == HEAD or "classifier" in facts["head"]
    if facts["format"] != FORMAT or facts["pixels"] != PIXELS or not known_head:
        raise ModelError(f"the model in {uri} is of format {facts['format']} or has another head or pixel scaling; this "
                         f"version reads format {FORMAT}: install the version that wrote it, or train anew")  # fmt: skip
    labels = facts["labels"]
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ModelError(f"the labels in {uri} must be two or more, each once, got {labels}: correct model.json")
    if facts.get("digest", _digest(facts)) != _digest(facts):
        raise ModelError(f"model.json in {uri} was altered: its digest is {facts['digest']}, its contents give "
                         f"{_digest(facts)}; copy the directory again from its source")  # fmt: skip


def _files(facts: dict[str, Any]) -> list[str]:
    return [role for role in ("weights", "features") if role in facts]


def _digest(facts: dict[str, Any]) -> str:
    named = {key: facts[key] for key in _NETWORK_KEYS} | {role: facts[role]["sha256"] for role in _files(facts)}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]


def _copy(target: h5py.File, name: str, item: Any) -> None:
    if isinstance(item, h5py.Group):
        target.require_group(name)  # without its attributes: they count the layers of the process that wrote it
        return
    values = item[()]
    rounded = values.astype(np.float16) if values.ndim > 1 else values
    target.create_dataset(name, data=rounded)
