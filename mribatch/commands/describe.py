"""Describe: rewrite a model's card and curves from its model.json and history, with evidence from evaluations.

    from mribatch.commands.describe import Evidence, describe
    describe("models/mine", {"other_source": Evidence("out/other", "120 scans of another hospital.")})

The weights and the digest do not change.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from mribatch.errors import InputError, ModelError
from mribatch.models import card, directory, recipe
from mribatch.models.exported_card import exported_card
from mribatch.models.format import Model
from mribatch.reports import figures
from mribatch.stores import uris

__all__ = ["Evidence", "describe"]


class Evidence(NamedTuple):
    """An evaluation of the model: the output of `mribatch evaluate`, and a sentence on the scans and how they were chosen.

    If the evaluation measured the set of that key, its figures on that set count, otherwise those on all its scans.
    Of healthy people, the JSON file that benchmarks/healthy.py writes.
    """

    evaluation: str
    about: str


def describe(uri: str, evidence: Mapping[str, Evidence] | None = None, *, healthy: Evidence | None = None) -> Model:
    """Rewrite MODEL_CARD.md, curves.png and model.json of a network's directory.

    evidence: by the keys of `card.RELATIONS`; evidence of other keys stays, and that of healthy people. Raises ModelError
    for a model that is damaged or that an evaluation did not measure, InputError for an unknown key, StorageMissing for a
    missing evaluation.
    """
    model = directory.load_model(uri)
    measured = {key: _measured(model, key, evaluation) for key, evaluation in (evidence or {}).items()}
    known = {} if healthy is None else {"healthy": _of_healthy(model, healthy)}
    training = model.facts["training"]
    stages = [stage | {"command": recipe.portable(stage["command"])} for stage in training.get("started_from", [])]
    facts = (
        model.facts
        | known
        | {
            "training": training | {"command": recipe.portable(training["command"]), "started_from": stages},
            "evidence": model.facts.get("evidence", {}) | measured,
        }
    )
    history = pyarrow.parquet.read_table(pa.BufferReader(uris.read(uris.join(model.uri, "history.parquet"))))
    uris.put(uris.join(model.uri, "curves.png"), figures.training_curves(history, training["epoch"]))
    text = card.model_card(facts) if model.precision == "f32" else exported_card(facts)
    return directory.redescribe(model, facts, text)


def _measured(model: Model, key: str, evidence: Evidence) -> dict[str, object]:
    if key not in card.RELATIONS:
        raise InputError(f"expected evidence of the kind {', '.join(card.RELATIONS)}, got {key}")
    numbers = _numbers(model, uris.join(evidence.evaluation, "metrics.json"))
    figures_of_set = numbers.get("evidence", {}).get(key, {})
    if figures_of_set.get("scans"):
        return {name: figures_of_set[name] for name in card.evidence_of(numbers, "")} | {"about": evidence.about}
    return card.evidence_of(numbers, evidence.about)


def _of_healthy(model: Model, evidence: Evidence) -> dict[str, object]:
    numbers = _numbers(model, evidence.evaluation)
    return {"about": evidence.about, "by_kind": numbers["by_kind"], "default": numbers["default"]}


def _numbers(model: Model, place: str) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads(uris.read(place))
    if numbers["model_digest"] != model.digest:
        raise ModelError(
            f"{place} evaluates model {numbers['model_digest']}, expected {model.digest}: evaluate this model first"
        )
    return numbers
