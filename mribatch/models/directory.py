"""A model directory: save, check, load. model.json says how to build the model; the files that it names fill it.

Those are weights.h5 for a network; classifier.skops for a classical model, and backbone.h5 where it sees features.
Reading and checking needs no TensorFlow; `network` does.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mribatch.errors import ModelError, StorageMissing
from mribatch.models.format import CARD, FORMAT, HEAD, PIXELS, Model, check, digest_of, stored_roles
from mribatch.stores import uris

if TYPE_CHECKING:
    pass

__all__ = [
    "CURRENT",
    "contents",
    "current",
    "named",
    "read",
    "redescribe",
    "rounded",
    "save",
    "save_classical",
    "size_bytes",
]

CURRENT = "CURRENT"


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
    whole["digest"] = digest_of(whole)
    for name, data in files.values():
        uris.put(uris.join(uri, name), data)
    uris.put(uris.join(uri, CARD), card.replace("{digest}", whole["digest"]).encode())
    uris.put(uris.join(uri, "model.json"), json.dumps(whole, indent=1).encode())
    return Model(uri=uris.absolute(uri), facts=whole)


def redescribe(model: Model, facts: dict[str, Any], card: str) -> Model:
    """Write model.json and the card of a model directory again, with other facts on the same model.

    Raises ModelError for facts that would change the digest.
    """
    if digest_of(facts) != model.digest:
        raise ModelError(
            f"the facts are those of another model: expected digest {model.digest}, got {digest_of(facts)}"
        )
    uris.put(uris.join(model.uri, CARD), card.replace("{digest}", model.digest).encode())
    uris.put(uris.join(model.uri, "model.json"), json.dumps(facts, indent=1).encode())
    return Model(uri=model.uri, facts=facts)


def read(uri: str) -> Model:
    """Read and check a model directory, or the current one of a folder of them: the facts are complete, the weights are
    those they name.

    Raises ModelError that says which file is missing or altered, and what to do.
    """
    model = _facts(uri)
    for role in stored_roles(model.facts):
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
    return sum(len(contents(model, role)) for role in stored_roles(model.facts))


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
    check(uri, facts)
    return Model(uri=uris.absolute(uri), facts=facts)


def _copy(target: h5py.File, name: str, item: Any) -> None:
    if isinstance(item, h5py.Group):
        target.require_group(name)  # without its attributes: they count the layers of the process that wrote it
        return
    values = item[()]
    rounded = values.astype(np.float16) if values.ndim > 1 else values
    target.create_dataset(name, data=rounded)
