"""Save, check and load model directories: model.json says how to build the model, the files that it names fill it.

A network has weights.h5. A classical model has classifier.skops, and backbone.h5 if it works on features.
No function here loads TensorFlow.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mribatch.errors import ModelError, StorageMissing
from mribatch.models import trained_on
from mribatch.models.format import CARD, FORMAT, HEAD, PIXELS, Model, check, digest_of, stored_roles
from mribatch.stores import uris

__all__ = [
    "CURRENT",
    "fill_in",
    "load_model",
    "open_model",
    "read_file",
    "redescribe",
    "rounded",
    "save",
    "save_calibrated",
    "save_changed",
    "save_classical",
    "save_exported",
    "size_bytes",
]

CURRENT = "CURRENT"
"""The file in a folder of model directories that names the one in use."""


def save(uri: str, weights: Path, facts: dict[str, Any], card: str) -> Model:
    """Write a model directory from a Keras weights file.

    model.json is written last, so a directory that has it is complete. facts: labels, backbone, image_side_px, head, and
    what is known about the training. card: the text of MODEL_CARD.md, see `fill_in`.
    """
    return _save(uri, {"weights": ("weights.h5", rounded(weights))}, {"head": HEAD, **facts}, card)


def save_classical(uri: str, classifier: bytes, backbone: bytes | None, facts: dict[str, Any], card: str) -> Model:
    """Write a model directory from a pipeline stored with skops and the weights of the backbone that it needs, if any.

    facts, card: as for `save`; `head` names the classifier.
    """
    files = {"weights": ("classifier.skops", classifier)}
    if backbone is not None:
        files["features"] = ("backbone.h5", backbone)
    return _save(uri, files, facts, card)


def save_changed(model: Model, uri: str, weights: Path, facts: dict[str, Any], card: str) -> Model:
    """Write a copy of a network's directory with other weights, from a Keras weights file.

    facts: those of `model` that the copy keeps, with what is new. card: as for `save`.
    """
    _copy(model, uri, trained_on.FILE)
    return _save(uri, _files(model) | {"weights": ("weights.h5", rounded(weights))}, facts, card)


def save_exported(
    model: Model, uri: str, files: Mapping[str, tuple[str, bytes]], facts: dict[str, Any], card: str
) -> Model:
    """Write a copy of a network's directory in another precision, with its curves and history.

    files: by their keys in model.json, names and contents that replace those of `model` or are new. facts: those of the copy,
    its precision included. card: as for `save`.
    """
    _copy(model, uri, "history.parquet", "curves.png", trained_on.FILE)
    return _save(uri, _files(model) | {**files}, facts, card)


def _files(model: Model) -> dict[str, tuple[str, bytes]]:
    """Return the name and the checked contents of each file that model.json names."""
    return {role: (model.facts[role]["file"], read_file(model, role)) for role in stored_roles(model.facts)}


def _save(uri: str, files: dict[str, tuple[str, bytes]], facts: dict[str, Any], card: str) -> Model:
    stored = {role: {"file": name, "sha256": hashlib.sha256(data).hexdigest()} for role, (name, data) in files.items()}
    complete = {"format": FORMAT, "pixels": PIXELS, **facts, **stored}
    complete["digest"] = digest_of(complete)
    for name, data in files.values():
        uris.put(uris.join(uri, name), data)
    return _describe(uris.absolute(uri), complete, card)


def redescribe(model: Model, facts: dict[str, Any], card: str) -> Model:
    """Replace model.json and the card of a model directory; the model itself stays the same.

    Raises ModelError for facts that would change the digest.
    """
    if digest_of(facts) != model.digest:
        raise ModelError(
            f"the facts are those of another model: expected digest {model.digest}, got {digest_of(facts)}"
        )
    return _describe(model.uri, facts, card)


def save_calibrated(uri: str, model: Model, referral: bytes, facts: dict[str, Any], card: str) -> Model:
    """Write a model directory of a model's files, its curves and history, and the arrays of a referral.

    uri: may be the model's own. referral: of an .npz file. facts: those of the new model, its temperature included.
    card: as for `save`.
    """
    entry = {"file": "referral.npz", "sha256": hashlib.sha256(referral).hexdigest()}
    complete = {key: value for key, value in facts.items() if key != "digest"} | {"referral": entry}
    complete["digest"] = digest_of(complete)
    if uris.absolute(uri) != model.uri:
        for role in ("weights", "features"):
            if role in model.facts:
                uris.put(uris.join(uri, model.facts[role]["file"]), read_file(model, role))
        _copy(model, uri, "history.parquet", "curves.png", trained_on.FILE)
    uris.put(uris.join(uri, "referral.npz"), referral)
    return _describe(uris.absolute(uri), complete, card)


def _copy(model: Model, uri: str, *names: str) -> None:
    """Copy those of some files that a model directory has."""
    for name in {*names} & {*uris.names(model.uri)}:
        uris.put(uris.join(uri, name), uris.read(uris.join(model.uri, name)))


def _describe(uri: str, facts: dict[str, Any], card: str) -> Model:
    model = Model(uri=uri, facts=facts)
    uris.put(uris.join(uri, CARD), fill_in(card, model).encode())
    uris.put(uris.join(uri, "model.json"), json.dumps(facts, indent=1).encode())
    return model


def fill_in(card: str, model: Model) -> str:
    """Replace `{digest}` and `{name}` in the text of a card by the model's digest and its directory's name."""
    name = model.uri.rstrip("/").rpartition("/")[2]
    return card.replace("{digest}", model.digest).replace("{name}", name)


def load_model(uri: str) -> Model:
    """Read model.json of a model directory and check all files that it names.

    uri: a model directory, or a folder of them with a file CURRENT. Raises ModelError that says which file is missing or
    altered, and what to do.
    """
    model = open_model(uri)
    for role in stored_roles(model.facts):
        read_file(model, role)
    return model


def open_model(uri: str, expected_digest: str | None = None) -> Model:
    """Read and check model.json only; the other files are checked when they are read.

    Raises ModelError where the directory no longer holds the model of expected_digest.
    """
    uri = _current(uri)
    if not uris.is_s3(uri) and not uris.names(uri):
        raise ModelError(f"no model at {uri}: expected a model directory that `mribatch train` wrote")
    try:
        facts = json.loads(uris.read(uris.join(uri, "model.json")))
    except StorageMissing as err:
        raise ModelError(
            f"no model.json in {uri}: pass a model directory that `mribatch train` wrote, or a folder of them with a file "
            f"{CURRENT}, which `mribatch promote` writes"
        ) from err
    except ValueError as err:
        raise ModelError(f"model.json in {uri} is not JSON: copy the directory again or train a new model") from err
    check(uri, facts)
    model = Model(uri=uris.absolute(uri), facts=facts)
    if expected_digest not in (None, model.digest):
        raise ModelError(
            f"expected model {expected_digest} in {uri}, found {model.digest}: it was replaced during this run; run the "
            "command again"
        )
    return model


def _current(uri: str) -> str:
    """Return the model directory that CURRENT names, or the URI itself where there is no such file.

    Raises ModelError for a CURRENT that names no directory.
    """
    if CURRENT not in uris.names(uri, CURRENT):
        return uri
    name = uris.read(uris.join(uri, CURRENT)).decode(errors="replace").strip()
    if name not in uris.folders(uri):
        raise ModelError(
            f"{CURRENT} in {uri} names {name!r}, which is not a folder in it: correct the file, or remove it and promote "
            "a model with `mribatch promote`"
        )
    return uris.join(uri, name)


def read_file(model: Model, role: str) -> bytes:
    """Return the bytes of a file that model.json names, checked against their SHA-256. role: see `stored_roles`."""
    entry = model.facts[role]
    place = uris.join(model.uri, entry["file"])
    try:
        data = uris.read(place)
    except StorageMissing as err:
        raise ModelError(f"{place} is missing: copy the complete model directory again") from err
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry["sha256"]:
        raise ModelError(
            f"{place} is not the file that model.json names: expected SHA-256 {entry['sha256'][:12]}…, found "
            f"{digest[:12]}…; copy the complete model directory again"
        )
    return data


def size_bytes(model: Model) -> int:
    """Return the size of the model's files in bytes, without the card and model.json."""
    return sum(len(read_file(model, role)) for role in stored_roles(model.facts))


def rounded(weights: Path) -> bytes:
    """Return a Keras weights file in float16; equal weights give equal bytes.

    Vectors (batch normalization, biases) stay float32, because rounding them moves predictions.
    """

    def copy(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group):
            target.require_group(name)  # not its attributes: they count the layers that the writing process had built
        else:
            values = item[()]
            target.create_dataset(name, data=values.astype(np.float16) if values.ndim > 1 else values)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.h5"
        with h5py.File(weights) as source, h5py.File(path, "w") as target:
            source.visititems(copy)
        return path.read_bytes()
