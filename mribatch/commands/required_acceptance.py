"""Refuse to score with a model that a site has not accepted, where the settings ask for that."""

import hashlib
import json
from typing import Any

from mribatch.errors import ModelError, StorageMissing
from mribatch.models.format import Model
from mribatch.settings.score import ScoreConfig
from mribatch.stores import uris

__all__ = ["FILE", "FIT", "required_acceptance"]

FILE = "acceptance.json"
FIT = "fit for triage here"
"""The verdict that allows scoring."""


def required_acceptance(config: ScoreConfig, model: Model) -> dict[str, Any] | None:
    """Return what a run's record says of the acceptance that the settings require; None if they require none.

    Raises ModelError unless it is an acceptance of this model and says that it is fit.
    """
    if config.require_acceptance is None:
        return None
    flag, place = config.flags("require_acceptance"), _file(config.require_acceptance)
    try:
        data = uris.read(place)
        acceptance = json.loads(data)
        digest, verdict = acceptance["model_digest"], acceptance["verdict"]
    except StorageMissing as err:
        raise ModelError(f"{flag}: no {place}: run `mribatch accept` on labelled scans of this site first") from err
    except (ValueError, TypeError, KeyError) as err:
        raise ModelError(f"{flag}: {place} is not what `mribatch accept` writes: run that again") from err
    if digest != model.digest:
        raise ModelError(
            f"{flag}: {place} is of model {digest}, not of {model.digest}: run `mribatch accept` for this model"
        )
    if verdict != FIT:
        raise ModelError(
            f"{flag}: {place} says {verdict!r} of model {digest}: see its page for the reasons; adapt or train a model, and "
            "run `mribatch accept` again"
        )
    return {
        "uri": uris.absolute(place),
        "sha256": hashlib.sha256(data).hexdigest(),
        "created_at": acceptance.get("created_at"),
        "verdict": verdict,
        "scans_sha256": acceptance.get("data", {}).get("content_sha256"),
    }


def _file(place: str) -> str:
    return place if place.endswith(".json") else uris.join(place, FILE)
