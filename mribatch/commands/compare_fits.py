"""Fit every model on every split: classical models side by side, deep ones by the project's own training and scoring."""

import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
from mribatch.commands.compare_cache import Answers, Split, answered, clusters_place, model_place, stored
from mribatch.commands.score import score_listing
from mribatch.commands.screen import progress
from mribatch.commands.train import train
from mribatch.errors import RunFailed
from mribatch.models import card, classical_engine, directory, features, recipe, trained_on
from mribatch.models.format import Model
from mribatch.predictions import ledger
from mribatch.settings.compare import BaselinesConfig
from mribatch.settings.score import ScoreConfig
from mribatch.stores import uris
from mribatch.training import classical
from mribatch.version import __version__

__all__ = ["DEEP", "Material", "features_of", "fit_classical", "train_deep", "versions"]

log = logging.getLogger("mribatch.baselines")

DEEP = {"cnn": "CNN", "resnet50v2": "ResNet50V2", "xception": "Xception"}
_BY_GROUPS = "by groups of near copies"
_LIBRARIES = ("ray", "tensorflow", "keras", "scikit-learn", "skops", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """The readable scans and the features that models are fitted on; row i is scan i.

    table: LABELLED, content_sha256, pixels_sha256 and cluster. classes: (N,) numbers of labels. groups: (N,), equal for near
    copies and for one patient.
    features: by kind; pixels (N, side × side) uint8, backbone (N, 2048) float32.
    """

    table: pa.Table
    labels: tuple[str, ...]
    classes: NDArray[np.int64]
    groups: NDArray[np.int64]
    features: dict[str, NDArray[Any]]
    backbone: bytes | None


def features_of(name: str) -> str | None:
    """Return the kind of features of a classical model; None for a deep model."""
    model = classical.CLASSICAL_MODELS.get(name)
    return model.features if model else None


def versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that answers depend on."""
    return {"mribatch": __version__} | {name: version(name) for name in _LIBRARIES}


# Classical models


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """What one task fits: models with the same features, on one split."""

    config: BaselinesConfig
    names: tuple[str, ...]
    kind: str
    split: Split
    fingerprint: str

    def memory_bytes(self) -> float:
        """Return the memory that the task needs at most."""
        pixels = self.config.image_side**2 if self.kind == "pixels" and self.split.number == 0 else 0
        return classical.memory_bytes(len(self.split.train), pixels)


def fit_classical(config: BaselinesConfig, material: Material, parts: Sequence[Split], fingerprint: str) -> None:
    """Fit the models that have no answers yet, side by side on all cores of the cluster."""
    todo = sorted(_todo(config, parts, fingerprint), key=lambda work: work.kind, reverse=True)
    if not todo:
        return
    fits = sum(len(work.names) for work in todo)
    log.info("fitting %d classical models on %d splits", fits, len(parts))
    task: Any = ray.remote(num_cpus=1, max_calls=1)(_fit)  # num_cpus sets the process's threads for good, so one call
    most = min(node["Resources"].get("memory", math.inf) for node in working_nodes())
    with progress("fitting", fits, "models", logged=False) as bar, lines(lambda _: bar.advance()) as reporter:
        shared, products = ray.put(material), _products(material, todo)
        pending = [
            task.options(memory=min(work.memory_bytes(), most)).remote(work, shared, products, reporter)
            for work in _spread(todo)
        ]
        ray.get(pending)


def _todo(config: BaselinesConfig, parts: Sequence[Split], fingerprint: str) -> Iterator[_Work]:
    for split in parts:
        for kind in ("pixels", "backbone"):
            names = [name for name in config.models if features_of(name) == kind]
            left = tuple(name for name in names if stored(config, fingerprint, name, split) is None)
            if left:
                yield _Work(config=config, names=left, kind=kind, split=split, fingerprint=fingerprint)


def _spread(todo: Sequence[_Work]) -> list[_Work]:
    """Divide the last tasks into ones of fewer models, so that no core is idle at the end."""
    cores = max(1, int(sum(node["Resources"]["CPU"] for node in working_nodes())))
    odd = len(todo) % cores
    parts = cores // odd if odd else 1
    last = [replace(work, names=work.names[part::parts]) for work in todo[len(todo) - odd :] for part in range(parts)]
    return [*todo[: len(todo) - odd], *(work for work in last if work.names)]


def _products(material: Material, todo: Sequence[_Work]) -> Any:
    """Return a reference to the inner products of all scans; each split uses those of its own scans."""
    if all(work.kind != "pixels" for work in todo):
        return None
    task: Any = ray.remote(num_cpus=most_cores(), max_calls=1)(features.products)
    return task.remote(material.features["pixels"])


def _fit(work: _Work, material: Material, products: NDArray[np.float64] | None, reporter: Any) -> None:
    """Tune and fit the models of one task on a worker, store their answers and report each."""
    config, split = work.config, work.split
    with tempfile.TemporaryDirectory() as cache:
        sides = _Sides(work, material, products, cache)
        for name in work.names:
            fitted = classical.fit(name, sides.train, *sides.targets, cache)
            scores = classical_engine.probabilities(fitted.pipeline, sides.test, len(material.labels))
            seconds, digest = fitted.seconds + sides.seconds, None
            if split.number == 0:
                digest = _publish(work, material, name, sides.on_features(fitted.pipeline), fitted.chosen, seconds)
            _answers(material, split, name, scores, seconds, fitted.chosen, digest).write(config, work.fingerprint)
            accuracy = (scores.argmax(axis=1) == material.classes[split.test]).mean()
            title = classical.CLASSICAL_MODELS[name].title
            line = f"split {split.number + 1}/{config.repeats} · {title} · accuracy {accuracy:.4f} · {seconds:.1f} s"
            reporter.say.remote(line)


class _Sides:
    """The features of both sides of a split. Pixels become coordinates in the span of the training scans, which is smaller.

    seconds: what the models share of the time for that.
    """

    def __init__(self, work: _Work, material: Material, products: NDArray[np.float64] | None, cache: str) -> None:
        train, test, values = work.split.train, work.split.test, material.features[work.kind]
        self.targets = material.classes[train], material.groups[train], work.config.seed
        self.train, self.test, self.seconds = values[train], values[test], 0.0
        self._span: classical.Span | None = None
        self._centred: tuple[NDArray[Any], NDArray[Any]] | None = None
        if products is not None and work.kind == "pixels":
            begun = time.monotonic()
            self._span = classical.Span(products[np.ix_(train, train)])
            self.train, self.test = self._span.training, self._span.coordinates(products[np.ix_(test, train)])
            classical.components(self.train, *self.targets, cache)
            self.seconds = time.monotonic() - begun
            self._centred = features.centred(values[train]) if work.split.number == 0 else None

    def on_features(self, pipeline: Any) -> Any:
        """Return a fitted pipeline as one that takes the features themselves, not coordinates."""
        if self._span is None or self._centred is None:
            return pipeline
        return classical.on_pixels(pipeline, self._span, *self._centred)


def _publish(
    work: _Work, material: Material, name: str, pipeline: Any, chosen: Mapping[str, Any], seconds: float
) -> str:
    """Write the model directory of a model that was fitted on the first split, and return its digest."""
    config, title = work.config, classical.CLASSICAL_MODELS[name].title
    facts = {
        "labels": list(material.labels),
        "backbone": features.BACKBONE if work.kind == "backbone" else "none",
        "image_side_px": config.image_side,
        "head": {"classifier": name, "features": work.kind},
        "training": {
            "command": recipe.portable(config.command("jobs/baselines.py")),
            "chosen": chosen,
            "seconds": seconds,
            "data": _data_facts(work, material),
            "scans": _recorded(work, material, name),
        },
        "libraries": versions(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    backbone = material.backbone if work.kind == "backbone" else None
    text = card.classical_card(title, facts)
    return directory.save_classical(model_place(config, name), classical.stored(pipeline), backbone, facts, text).digest


def _recorded(work: _Work, material: Material, name: str) -> dict[str, Any]:
    """Write which scans a model was fitted on, and return what model.json says of that."""
    contents = material.table["content_sha256"].take(pa.array(work.split.train)).to_pylist()
    return trained_on.write(model_place(work.config, name), {"training": contents}) | {"complete": True}


def _data_facts(work: _Work, material: Material) -> dict[str, Any]:
    return {
        "scans": material.table.num_rows,
        "train": len(work.split.train),
        "test": len(work.split.test),
        "different_images": len(set(material.table["pixels_sha256"].to_pylist())),
        "split": "scan by scan, near copies on both sides" if work.config.paper_protocol else _BY_GROUPS,
    }


# Deep models


def train_deep(config: BaselinesConfig, material: Material, split: Split, backbone: Any, fingerprint: str) -> None:
    """Train a deep model on a split and store its answers, unless they are stored already."""
    if stored(config, fingerprint, backbone, split) is not None:
        return
    log.info("split %d/%d · %s", split.number + 1, config.deep_repeats, DEEP[backbone])
    work, name = uris.join(config.output, "work"), f"{backbone}-{split.number + 1}"
    trained = train(
        config.training(
            backbone,
            data=_manifest(material, split, uris.join(work, f"split-{split.number + 1}.parquet")),
            groups=clusters_place(config),
            output=model_place(config, backbone) if split.number == 0 else uris.join(work, name),
            storage=work,
            run_name=f"{name}-{fingerprint[:12]}",
        )
    )
    scores = _scores(config, material, split, trained.model)
    seconds = float(sum(trained.history["seconds"].to_pylist()))
    chosen = {"epochs": trained.history.num_rows, "image_side_px": trained.model.image_spec.side_px}
    answers = _answers(material, split, backbone, scores, seconds, chosen, trained.model.digest)
    trained_on = trained.model.facts["training"]["data"]["split"]["train"]
    replace(answers, train_scans=trained_on).write(config, fingerprint)


def _manifest(material: Material, split: Split, place: str) -> str:
    """Write the training side of a split as a manifest, and return its URI; `train` draws validation scans from it."""
    rows = material.table.take(pa.array(split.train)).select(["scan_uri", "label", "patient_id"])
    data = pa.BufferOutputStream()
    pq.write_table(rows.rename_columns(["uri", "label", "patient_id"]), data)
    uris.put(place, data.getvalue().to_pybytes())
    return place


def _scores(config: BaselinesConfig, material: Material, split: Split, model: Model) -> NDArray[Any]:
    """Score a split's test scans as `score` does, and return their probabilities (N, labels)."""
    scans = material.table.take(pa.array(split.test)).select(schema.PLAN.names)
    output = uris.join(config.output, "work", "predictions")
    scoring = ScoreConfig(
        model=model.uri, input=(config.data,), output=output, batch_size=config.batch_size, identifiers="none"
    )
    score_listing(scoring, model, scans)
    rows = ledger.predictions(output, model.digest).to_pylist()
    by_key = {(row["scan_uri"], row["scan_version"]): row for row in rows if row["status"] == schema.Status.OK}
    keys = list(zip(*(scans[name].to_pylist() for name in schema.PLAN.names), strict=True))
    lost = [uri for uri, version in keys if (uri, version) not in by_key]
    if lost:
        raise RunFailed(
            f"{len(lost)} test scans can no longer be scored, the first is {lost[0]}: run the command again"
        )
    columns = [schema.probability_column(label) for label in material.labels]
    return np.array([[by_key[key][column] for column in columns] for key in keys])


def _answers(
    material: Material,
    split: Split,
    name: str,
    scores: NDArray[Any],
    seconds: float,
    chosen: dict[str, Any],
    model_digest: str | None,
) -> Answers:
    rows = material.table.take(pa.array(split.test)).select(["scan_uri", "label"])
    has_copy = np.isin(material.groups[split.test], material.groups[split.train])
    return Answers(
        model=name,
        split=split.number,
        rows=answered(rows, has_copy, material.labels, scores),
        seconds=seconds,
        chosen=chosen,
        train_scans=len(split.train),
        model_digest=model_digest,
    )
