"""Fit every model on every split: the classical ones side by side, the deep ones through the project's own training and
scoring. What each answers goes into a file; what becomes of the answers is not said here.
"""

import logging
import math
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from mribatch import schema
from mribatch.cluster.nodes import most_cores, working_nodes
from mribatch.cluster.progress import lines
from mribatch.commands.compare_cache import Answers, Split, answered
from mribatch.commands.score import score_listing
from mribatch.commands.train import train
from mribatch.errors import ModelError, RunFailed
from mribatch.models import card, classical_engine, directory, features, recipe
from mribatch.models.format import Model
from mribatch.predictions import ledger
from mribatch.settings.compare import BaselinesConfig
from mribatch.settings.score import ScoreConfig
from mribatch.stores import uris
from mribatch.training import classical
from mribatch.version import __version__

__all__ = ["DEEP", "Material", "fit_classical", "given", "kind_of", "model_place", "train_deep", "versions"]

log = logging.getLogger("mribatch.fitting")

DEEP = {"cnn": "CNN", "resnet50v2": "ResNet50V2", "xception": "Xception"}
_LIBRARIES = ("ray", "tensorflow", "keras", "scikit-learn", "skops", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """The readable scans and what models see of them; row i is scan i.

    table: LABELLED and pixels_sha256. classes: (N,) numbers of labels. groups: (N,), equal for copies and for one patient.
    features: by their kind; pixels (N, side × side) uint8, backbone (N, 2048) float32.
    """

    table: pa.Table
    labels: tuple[str, ...]
    classes: NDArray[np.int64]
    groups: NDArray[np.int64]
    features: dict[str, NDArray[Any]]
    backbone: bytes | None


def kind_of(name: str) -> str | None:
    """What a classical model sees; None for a deep one."""
    return classical.CLASSICAL_MODELS[name].features if name in classical.CLASSICAL_MODELS else None


def versions() -> dict[str, str]:
    return {"mribatch": __version__} | {name: version(name) for name in _LIBRARIES}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """What one task fits: models that see the same features, on one split."""

    config: BaselinesConfig
    names: tuple[str, ...]
    kind: str
    split: Split
    fingerprint: str


def fit_classical(config: BaselinesConfig, material: Material, parts: list[Split], fingerprint: str) -> None:
    """Fit what has no answers yet, side by side over the cluster's cores."""
    todo = []
    for split in parts:
        for kind in ("pixels", "backbone"):
            names = [name for name in config.models if kind_of(name) == kind]
            left = [name for name in names if given(config, fingerprint, name, split) is None]
            if left:
                todo.append(_Work(config=config, names=tuple(left), kind=kind, split=split, fingerprint=fingerprint))
    if not todo:
        return
    log.info("fitting %d classical models, %d splits", sum(len(work.names) for work in todo), len(parts))
    task: Any = ray.remote(num_cpus=1, max_calls=1)(_fit)  # its one thread would stay with the process
    most = min(node["Resources"].get("memory", math.inf) for node in working_nodes())
    todo = _spread(sorted(todo, key=lambda work: work.kind, reverse=True))
    with lines() as said:
        there, products = ray.put(material), _products(material, todo)
        ray.get([task.options(memory=min(_memory_bytes(config, work), most)).remote(work, there, products, said)
                 for work in todo])  # fmt: skip


def _spread(todo: list[_Work]) -> list[_Work]:
    """The last ones in parts, of some models each, so that no core is idle while they are fitted."""
    cores = max(1, int(sum(node["Resources"]["CPU"] for node in working_nodes())))
    odd = len(todo) % cores
    parts = cores // odd if odd else 1
    divided = [
        replace(work, names=work.names[part::parts]) for work in todo[len(todo) - odd :] for part in range(parts)
    ]
    return [*todo[: len(todo) - odd], *(work for work in divided if work.names)]


def _products(material: Material, todo: list[_Work]) -> Any:
    """A reference to the inner products of all scans with all, of which each split's span takes those between its own."""
    if all(work.kind != "pixels" for work in todo):
        return None
    task: Any = ray.remote(num_cpus=most_cores(), max_calls=1)(features.products)
    return task.remote(material.features["pixels"])


def _memory_bytes(config: BaselinesConfig, work: _Work) -> float:
    pixels = config.image_side**2 if work.kind == "pixels" and work.split.number == 0 else 0
    return classical.memory_bytes(len(work.split.train), pixels)


def given(config: BaselinesConfig, fingerprint: str, name: str, split: Split) -> Answers | None:
    """The answers that are there. Those of the first split count only beside the model that gave them."""
    answers = Answers.read(_folder(config), fingerprint, name, split.number)
    if answers is None or split.number:
        return answers
    try:
        there = directory.open_model(model_place(config, name)).digest
    except ModelError:
        return None
    return answers if there == answers.model_digest else None


def _fit(work: _Work, material: Material, products: NDArray[np.float64] | None, said: Any) -> None:
    config, split, seen = work.config, work.split, material.features[work.kind]
    span, pixels, shared_s, begun = None, None, 0.0, time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        learnt_from = material.classes[split.train], material.groups[split.train], config.seed
        train_side, test_side = seen[split.train], seen[split.test]
        if products is not None and work.kind == "pixels":
            span = classical.Span(products[np.ix_(split.train, split.train)])
            train_side, test_side = span.training, span.coordinates(products[np.ix_(split.test, split.train)])
            classical.components(train_side, *learnt_from, cache)
            shared_s = time.monotonic() - begun
            pixels = features.centred(seen[split.train]) if split.number == 0 else None
        for name in work.names:
            fitted = classical.fit(name, train_side, *learnt_from, cache)
            scores = classical_engine.probabilities(fitted.pipeline, test_side, len(material.labels))
            seconds, digest = fitted.seconds + shared_s, None
            if split.number == 0:
                whole = classical.on_pixels(fitted.pipeline, span, *pixels) if span and pixels else fitted.pipeline
                digest = _publish(work, material, name, whole, fitted.chosen, seconds)
            answers = _answers(material, split, name, scores, seconds, fitted.chosen, digest)
            answers.write(_folder(config), work.fingerprint)
            right = (scores.argmax(axis=1) == material.classes[split.test]).mean()
            title = classical.CLASSICAL_MODELS[name].title
            said.say.remote(
                f"split {split.number + 1}/{config.repeats} · {title} · accuracy {right:.4f} · {seconds:.1f} s"
            )


def _publish(work: _Work, material: Material, name: str, pipeline: Any, chosen: dict[str, Any], seconds: float) -> str:
    """Write the model directory of the first split's model; its digest."""
    config, data = work.config, material.table
    facts = {
        "labels": list(material.labels),
        "backbone": features.BACKBONE if work.kind == "backbone" else "none",
        "image_side_px": config.image_side,
        "head": {"classifier": name, "features": work.kind},
        "training": {
            "command": recipe.portable(config.command("jobs/baselines.py")), "chosen": chosen, "seconds": seconds,
            "data": {"scans": data.num_rows, "train": len(work.split.train), "test": len(work.split.test),
                     "different_images": len(set(data["pixels_sha256"].to_pylist())),
                     "split": "scan by scan, copies on both sides" if config.paper_protocol else "by content"},
        },
        "libraries": versions(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    title = classical.CLASSICAL_MODELS[name].title
    backbone = material.backbone if work.kind == "backbone" else None
    return directory.save_classical(
        model_place(config, name), classical.stored(pipeline), backbone, facts, card.classical_card(title, facts)
    ).digest


# The deep models, through the project's own training and scoring


def train_deep(config: BaselinesConfig, material: Material, split: Split, backbone: Any, fingerprint: str) -> None:
    if given(config, fingerprint, backbone, split) is not None:
        return
    log.info("split %d/%d · %s", split.number + 1, config.deep_repeats, DEEP[backbone])
    work = uris.join(config.output, "work")
    name = f"{backbone}-{split.number + 1}"
    trained = train(
        config.training(
            backbone,
            data=_manifest(material, split, uris.join(work, f"split-{split.number + 1}.parquet")),
            output=model_place(config, backbone) if split.number == 0 else uris.join(work, name),
            storage=work,
            run_name=f"{name}-{fingerprint[:12]}",
        )
    )
    scores = _scored(config, material, split, trained.model)
    seconds = float(sum(trained.history["seconds"].to_pylist()))
    epochs = {"epochs": trained.history.num_rows, "image_side_px": trained.model.image_spec.side_px}
    answers = _answers(material, split, backbone, scores, seconds, epochs, trained.model.digest)
    learnt_from = trained.model.facts["training"]["data"]["split"]["train"]
    replace(answers, train_scans=learnt_from).write(_folder(config), fingerprint)


def _manifest(material: Material, split: Split, place: str) -> str:
    """The training side of a split, as labelled data: the validation scans are drawn from it."""
    rows = material.table.take(pa.array(split.train))
    data = pa.BufferOutputStream()
    pq.write_table(
        rows.select(["scan_uri", "label", "patient_id"]).rename_columns(["uri", "label", "patient_id"]), data
    )
    uris.put(place, data.getvalue().to_pybytes())
    return place


def _scored(config: BaselinesConfig, material: Material, split: Split, model: Model) -> NDArray[Any]:
    """The probabilities of a split's test scans, (N, labels), by the same pipeline as everywhere."""
    scans = material.table.take(pa.array(split.test)).select(schema.PLAN.names)
    output = uris.join(config.output, "work", "predictions")
    score_listing(
        ScoreConfig(model=model.uri, input=(config.data,), output=output, batch_size=config.batch_size), model, scans
    )
    rows = ledger.predictions(output, model.digest)
    found = {
        (row["scan_uri"], row["scan_version"]): row for row in rows.to_pylist() if row["status"] == schema.Status.OK
    }
    keys = list(zip(*(scans[name].to_pylist() for name in schema.PLAN.names), strict=True))
    lost = [key for key in keys if key not in found]
    if lost:
        raise RunFailed(
            f"{len(lost)} test scans could not be scored any more, the first is {lost[0][0]}: repeat the command"
        )
    columns = [schema.probability_column(label) for label in material.labels]
    return np.array([[found[key][column] for column in columns] for key in keys])


def _answers(
    material: Material,
    split: Split,
    name: str,
    scores: NDArray[Any],
    seconds: float,
    chosen: dict[str, Any],
    model_digest: str | None,
) -> Answers:
    rows = material.table.take(pa.array(split.test))
    has_copy = np.isin(material.groups[split.test], material.groups[split.train])
    table = answered(rows.select(["scan_uri", "label"]), has_copy, material.labels, scores)
    return Answers(
        model=name,
        split=split.number,
        rows=table,
        seconds=seconds,
        chosen=chosen,
        train_scans=len(split.train),
        model_digest=model_digest,
    )


def _folder(config: BaselinesConfig) -> str:
    return uris.join(config.output, "answers")


def model_place(config: BaselinesConfig, name: str) -> str:
    return uris.join(uris.absolute(config.output), "models", name)
