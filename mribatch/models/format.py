"""Define model.json: its keys, its checks, its digest, and the `Model` that it describes."""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from mribatch.errors import ModelError
from mribatch.scans.limits import ImageSpec

__all__ = [
    "CARD",
    "FORMAT",
    "HEAD",
    "MEASUREMENTS",
    "PIXELS",
    "Model",
    "check",
    "check_original",
    "digest_of",
    "stored_roles",
]

FORMAT = 1

CARD = "MODEL_CARD.md"

PIXELS = {"dtype": "uint8", "scale": 1 / 127.5, "offset": -1.0, "resize": "bicubic"}
"""How pixels become network input: uint8 RGB times scale plus offset, resized by Pillow."""

MEASUREMENTS = frozenset({"evidence", "metrics", "pointing", "healthy", "honesty", "referred"})
"""Keys of model.json for what was measured of that very model: a changed copy does not have them."""

HEAD: dict[str, Any] = {"pooling": "max", "dropout": [0.3, 0.25], "dense": 128}
"""Global max pooling, Flatten, Dropout 0.3, Dense 128 ReLU, Dropout 0.25, Dense softmax: the paper's head."""

_PRECISIONS = ("f32", "bf16", "int8")
_NETWORK_KEYS = ("format", "labels", "backbone", "image_side_px", "pixels", "head")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model directory and the checked contents of its model.json."""

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
        """The name for people: the backbone of a network, the name of a classical model."""
        return str(self.facts["head"].get("classifier", self.backbone))

    @property
    def image_spec(self) -> ImageSpec:
        return ImageSpec(side_px=self.facts["image_side_px"])

    @property
    def is_classical(self) -> bool:
        """True for a scikit-learn pipeline, False for a network."""
        return "classifier" in self.facts["head"]

    @property
    def has_network(self) -> bool:
        """True if TensorFlow computes at least a part of it."""
        return not self.is_classical or "features" in self.facts

    @property
    def precision(self) -> str:
        """What the network is computed in: f32, or int8 or bf16 for a model that `mribatch export` wrote."""
        return str(self.facts.get("precision", "f32"))

    @property
    def temperature(self) -> float | None:
        """What divides the logits; None for a model that was not calibrated."""
        return self.facts.get("temperature")

    @property
    def has_referral(self) -> bool:
        """True if it says which scans a person should look at."""
        return "referral" in self.facts

    @property
    def digest(self) -> str:
        """12 hex digits that identify the weights and everything that turns a scan into their input."""
        return digest_of(self.facts)


def check(uri: str, facts: Any) -> None:
    """Raise ModelError for the contents of a model.json that this version cannot use."""
    missing = [key for key in (*_NETWORK_KEYS, "weights") if not isinstance(facts, dict) or key not in facts]
    if missing:
        raise ModelError(
            f"model.json in {uri} lacks {', '.join(missing)}: copy the directory again or train a new model"
        )
    known_head = facts["head"] == HEAD or "classifier" in facts["head"]
    if facts["format"] != FORMAT or facts["pixels"] != PIXELS or not known_head:
        raise ModelError(
            f"the model in {uri} has format {facts['format']}, or another head or pixel scaling; this version reads "
            f"format {FORMAT}: install the version that wrote it, or train a new model"
        )
    temperature = facts.get("temperature", 1.0)
    if not isinstance(temperature, float) or not 0 < temperature < math.inf:
        raise ModelError(
            f"the temperature in {uri} must be a number above 0, got {temperature}: copy the directory again"
        )
    _check_precision(uri, facts)
    labels = facts["labels"]
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ModelError(f"the labels in {uri} must be two or more, each once, got {labels}: correct model.json")
    if facts.get("digest", digest_of(facts)) != digest_of(facts):
        raise ModelError(
            f"model.json in {uri} was altered: its digest is {facts['digest']}, its contents give {digest_of(facts)}; "
            "copy the directory again from its source"
        )


def _check_precision(uri: str, facts: dict[str, Any]) -> None:
    precision = facts.get("precision", "f32")
    if precision not in _PRECISIONS:
        raise ModelError(
            f"the model in {uri} has precision {precision}; this version knows {', '.join(_PRECISIONS)}: install the version "
            "that wrote it"
        )
    if ("graph" in facts) != (precision == "int8"):
        raise ModelError(
            f"model.json in {uri} must name a graph if, and only if, the precision is int8, got {precision}: export the "
            "model again with `mribatch export`"
        )


def check_original(model: Model, purpose: str) -> None:
    """Raise ModelError for a model that `mribatch export` wrote: it only scores. purpose: such as "calibrate"."""
    if model.precision != "f32":
        source = model.facts.get("exported", {}).get("from", "unknown")
        raise ModelError(
            f"the model in {model.uri} has {model.precision} precision, and such a model only scores scans: {purpose} model "
            f"{source}, which it was exported from"
        )


def stored_roles(facts: dict[str, Any]) -> list[str]:
    """Return the keys of model.json that name a file."""
    return [role for role in ("weights", "graph", "features", "referral") if role in facts]


def digest_of(facts: dict[str, Any]) -> str:
    """Return the 12 hex digits that identify the model described by these facts."""
    values = {key: facts[key] for key in _NETWORK_KEYS} | {role: facts[role]["sha256"] for role in stored_roles(facts)}
    values |= {key: facts[key] for key in ("temperature", "precision") if key in facts}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
