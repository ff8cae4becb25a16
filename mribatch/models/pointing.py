"""Read and write what was measured of a model's maps: the part `pointing` of model.json. The digest does not name it."""

from collections.abc import Mapping
from typing import Any

from mribatch.models.format import Model
from mribatch.settings.explain import Method
from mribatch.statistics.pointing import Pointing

__all__ = ["pointing_facts", "pointing_of"]


def pointing_of(model: Model, method: Method) -> dict[str, Pointing]:
    """Return what was measured of the maps of a method, by class; nothing if they were not measured."""
    measured = model.facts.get("pointing", {}).get("methods", {}).get(method, {})
    return {label: Pointing(**counts) for label, counts in measured.items()}


def pointing_facts(methods: Mapping[Method, Mapping[str, Pointing]], command: str) -> dict[str, Any]:
    """Return the part of model.json that holds these measurements. command: how to repeat them."""
    counts = {
        method: {label: pointing.as_dict() for label, pointing in classes.items()}
        for method, classes in methods.items()
    }
    return {"command": command, "methods": counts}
