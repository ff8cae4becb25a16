"""Read and write what was measured of a model's maps: the part `pointing` of model.json. The digest does not name it."""

from collections.abc import Mapping
from typing import Any

from mribatch.models.format import Model
from mribatch.settings.explain import Method
from mribatch.statistics.pointing import Pointing

__all__ = ["pointing_facts", "pointing_of"]


def pointing_of(model: Model, method: Method) -> dict[str, Pointing]:
    """Return what was measured of the maps of a method, by class; nothing if they were not measured with this model."""
    pointing = model.facts.get("pointing", {})
    counts = pointing["methods"].get(method, {}) if pointing.get("digest") == model.digest else {}
    return {label: Pointing(**count) for label, count in counts.items()}


def pointing_facts(digest: str, methods: Mapping[Method, Mapping[str, Pointing]], command: str) -> dict[str, Any]:
    """Return the part of model.json that holds these measurements.

    digest: of the model that was measured; another one needs its own measurement. command: how to repeat it.
    """
    counts = {
        method: {label: pointing.as_dict() for label, pointing in classes.items()}
        for method, classes in methods.items()
    }
    return {"digest": digest, "command": command, "methods": counts}
