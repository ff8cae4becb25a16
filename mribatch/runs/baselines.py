"""Compare: labelled scans → decoded once → split again and again → every model on every split → a table, tests, a page.

Each model's answers are a file as soon as they are there; a comparison that was cut off goes on from these.
"""

import hashlib
import json
import logging
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

import mribatch
from mribatch import schema
from mribatch.config import BaselinesConfig, ScoreConfig
from mribatch.errors import InputError, RunFailed
from mribatch.learning import artifact, classical, features, splits
from mribatch.learning.predict import Predictor
from mribatch.reports import card, comparison, figures
from mribatch.reports.comparison import Contender
from mribatch.reports.metrics import Scores
from mribatch.runs.answers import Answers, Split, answered
from mribatch.runs.cluster import check_seen, predictors, working_nodes
from mribatch.runs.progress import lines
from mribatch.runs.score import score_listing
from mribatch.runs.session import session
from mribatch.runs.survey import readable
from mribatch.runs.train import train
from mribatch.scans.images import ImageSpec, decode
from mribatch.storage import ledger, source, uris

__all__ = ["Compared", "compare"]

log = logging.getLogger("mribatch.baselines")

_DEEP = {"cnn": "CNN", "resnet50v2": "ResNet50V2", "xception": "Xception"}
_RATE_SCANS = 128
_RATE_S = 1.0  # and one call at least: long enough for a rate, short beside all else
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


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The models side by side, and where to read of them."""

    contenders: list[Contender]
    report: str
    exit_code: int = 0

    def table(self) -> str:
        rows = [(one.title, one.accuracy, *one.interval, len(one.scores)) for one in comparison.ranked(self.contenders)]
        lines = [f"{'model':<40} {'accuracy':>9} {'95% interval':>18} {'splits':>7}"]
        lines += [
            f"{title:<40} {mean:>9.2%} {low:>8.2%} … {high:>7.2%} {count:>7}" for title, mean, low, high, count in rows
        ]
        return "\n".join([*lines, f"report  {self.report}"])


def compare(config: BaselinesConfig) -> Compared:
    """Fit every model of config.models on config.repeats splits of the labelled scans, and say how they did.

    The same command goes on where it was cut off. Raises InputError for classes that are not there or too small, and
    everything that `train` and `score` raise.
    """
    table = _of_classes(source.labelled(config.data), config)
    with uris.probe(config.output) as probe, session():
        check_seen({table["scan_uri"][0].as_py(): table["scan_version"][0].as_py(), probe: None})
        material = _material(config, table)
        fingerprint = _fingerprint(config, material)
        parts = [_split(config, material, number) for number in range(config.repeats)]
        _fit_classical(config, material, parts, fingerprint)
        for backbone in (name for name in config.models if name in _DEEP):
            for split in parts[: config.deep_repeats]:
                _train_deep(config, material, split, backbone, fingerprint)
        rates = _rates(config, material, parts[0])
        contenders = [_contender(config, material, parts, name, fingerprint, rates[name]) for name in config.models]
    return Compared(contenders=contenders, report=_write(config, material, contenders))


def _of_classes(table: pa.Table, config: BaselinesConfig) -> pa.Table:
    there = sorted(set(table["label"].to_pylist()))
    absent = sorted(set(config.classes) - set(there))
    if absent:
        raise InputError(
            f"no scans of {', '.join(absent)} in {config.data}: it has {', '.join(there)}; correct --classes"
        )
    return table.filter(pc.is_in(table["label"], pa.array(config.classes or there)))


# What models see


def _material(config: BaselinesConfig, table: pa.Table) -> Material:
    """Decode each scan once; keep its grey pixels and, where a model wants them, the features of the frozen backbone."""
    log.info("reading %d scans", table.num_rows)
    weights = None
    if any(_kind(name) == "backbone" for name in config.models):
        weights = ray.get(ray.remote(features.backbone_weights).remote(_weights_seen(config)))
    threads, pool = predictors(working_nodes())
    rows = source.decoded(table, ImageSpec(side_px=config.image_side)).map_batches(
        features.Extractor, fn_constructor_args=(weights, config.image_side, threads), batch_format="pyarrow",
        batch_size=config.batch_size, zero_copy_batch=True, **pool,
    )  # fmt: skip
    seen = readable(rows, config.max_reject_rate)
    labels = config.classes or tuple(sorted(set(seen["label"].to_pylist())))
    seen_by_kind = {
        kind: features.array(seen[kind], dtype)
        for kind, dtype in features.FEATURES.items()
        if kind in seen.column_names
    }
    kept = seen.select([*source.LABELLED.names, "pixels_sha256"])
    return Material(
        table=kept, labels=labels, features=seen_by_kind, backbone=weights,
        classes=np.asarray(pc.index_in(kept["label"], pa.array(labels)).to_numpy(), np.int64),
        groups=np.array(splits.content_groups(kept), np.int64),
    )  # fmt: skip


def _weights_seen(config: BaselinesConfig) -> str:
    weights = config.xception_weights
    return weights if weights in ("imagenet", "none") else uris.absolute(weights)


def _kind(name: str) -> str | None:
    """What a classical model sees; None for a deep one."""
    return classical.RECIPES[name].features if name in classical.RECIPES else None


def _fingerprint(config: BaselinesConfig, material: Material) -> str:
    """Of all that answers depend on, but for which models take part and how often."""
    settings = config.as_dict()
    for name in ("data", "output", "models", "repeats", "deep_repeats"):
        del settings[name]
    scans = material.table.select(["scan_uri", "label", "pixels_sha256"]).to_pylist()
    return hashlib.sha256(json.dumps([settings, scans], sort_keys=True).encode()).hexdigest()


def _split(config: BaselinesConfig, material: Material, number: int) -> Split:
    train_rows, test_rows = splits.holdout(
        material.table,
        test_fraction=config.test_fraction,
        seed=config.seed + number,
        copies_straddle=config.paper_protocol,
    )
    return Split(number=number, train=train_rows, test=test_rows)


# The classical models


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """What one task fits: models that see the same features, on one split."""

    config: BaselinesConfig
    names: tuple[str, ...]
    kind: str
    split: Split
    fingerprint: str


def _fit_classical(config: BaselinesConfig, material: Material, parts: list[Split], fingerprint: str) -> None:
    """Fit what has no answers yet, side by side over the cluster's cores."""
    todo = []
    for split in parts:
        for kind in ("pixels", "backbone"):
            names = [name for name in config.models if _kind(name) == kind]
            left = [name for name in names if Answers.read(_folder(config), fingerprint, name, split.number) is None]
            if left:
                todo.append(_Work(config=config, names=tuple(left), kind=kind, split=split, fingerprint=fingerprint))
    if not todo:
        return
    log.info("fitting %d classical models, %d splits", sum(len(work.names) for work in todo), len(parts))
    task: Any = ray.remote(num_cpus=1)(_fit)
    with lines() as said:
        there = ray.put(material)
        ray.get([task.remote(work, there, said) for work in sorted(todo, key=lambda work: work.kind, reverse=True)])


def _fit(work: _Work, material: Material, said: Any) -> None:
    config, split, seen = work.config, work.split, material.features[work.kind]
    span, shared_s, begun = None, 0.0, time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        learnt_from = material.classes[split.train], material.groups[split.train], config.seed
        train_side, test_side = seen[split.train], seen[split.test]
        if work.kind == "pixels":
            span = classical.Span(train_side)
            train_side, test_side = span.coordinates(train_side), span.coordinates(test_side)
            classical.components(train_side, *learnt_from, cache)
            shared_s = time.monotonic() - begun
        for name in work.names:
            fitted = classical.fit(name, train_side, *learnt_from, cache)
            scores = classical.probabilities(fitted.pipeline, test_side, len(material.labels))
            seconds = fitted.seconds + shared_s
            if split.number == 0:
                whole = fitted.pipeline if span is None else classical.on_pixels(fitted.pipeline, span)
                _publish(work, material, name, whole, fitted.chosen, seconds)
            answers = _answers(material, split, name, scores, seconds, fitted.chosen)
            answers.write(_folder(config), work.fingerprint)
            right = (scores.argmax(axis=1) == material.classes[split.test]).mean()
            title = classical.RECIPES[name].title
            said.say.remote(
                f"split {split.number + 1}/{config.repeats} · {title} · accuracy {right:.4f} · {seconds:.1f} s"
            )


def _publish(work: _Work, material: Material, name: str, pipeline: Any, chosen: dict[str, Any], seconds: float) -> None:
    """The model directory of the first split's model."""
    config, data = work.config, material.table
    facts = {
        "labels": list(material.labels),
        "backbone": features.BACKBONE if work.kind == "backbone" else "none",
        "image_side_px": config.image_side,
        "head": {"classifier": name, "features": work.kind},
        "training": {
            "command": config.command("jobs/baselines.py"), "chosen": chosen, "seconds": seconds,
            "data": {"scans": data.num_rows, "train": len(work.split.train), "test": len(work.split.test),
                     "different_images": len(set(data["pixels_sha256"].to_pylist())),
                     "split": "scan by scan, copies on both sides" if config.paper_protocol else "by content"},
        },
        "libraries": {"mribatch": mribatch.__version__} | {name: version(name) for name in _LIBRARIES},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    title = classical.RECIPES[name].title
    backbone = material.backbone if work.kind == "backbone" else None
    artifact.save_classical(
        _model(config, name), classical.stored(pipeline), backbone, facts, card.classical_card(title, facts)
    )


# The deep models, through the project's own training and scoring


def _train_deep(config: BaselinesConfig, material: Material, split: Split, backbone: Any, fingerprint: str) -> None:
    if Answers.read(_folder(config), fingerprint, backbone, split.number) is not None:
        return
    log.info("split %d/%d · %s", split.number + 1, config.deep_repeats, _DEEP[backbone])
    work = uris.join(config.output, "work")
    name = f"{backbone}-{split.number + 1}"
    trained = train(
        config.training(
            backbone,
            data=_manifest(material, split, uris.join(work, f"split-{split.number + 1}.parquet")),
            output=_model(config, backbone) if split.number == 0 else uris.join(work, name),
            storage=work,
            run_name=f"{name}-{fingerprint[:12]}",
        )
    )
    scores = _scored(config, material, split, trained.model)
    seconds = float(sum(trained.history["seconds"].to_pylist()))
    epochs = {"epochs": trained.history.num_rows, "image_side_px": trained.model.image_spec.side_px}
    _answers(material, split, backbone, scores, seconds, epochs).write(_folder(config), fingerprint)


def _manifest(material: Material, split: Split, place: str) -> str:
    """The training side of a split, as labelled data: the validation scans are drawn from it."""
    rows = material.table.take(pa.array(split.train))
    data = pa.BufferOutputStream()
    pq.write_table(
        rows.select(["scan_uri", "label", "patient_id"]).rename_columns(["uri", "label", "patient_id"]), data
    )
    uris.put(place, data.getvalue().to_pybytes())
    return place


def _scored(config: BaselinesConfig, material: Material, split: Split, model: artifact.Model) -> NDArray[Any]:
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


# Answers and what becomes of them


def _answers(
    material: Material, split: Split, name: str, scores: NDArray[Any], seconds: float, chosen: dict[str, Any]
) -> Answers:
    rows = material.table.take(pa.array(split.test))
    has_copy = np.isin(material.groups[split.test], material.groups[split.train])
    table = answered(rows.select(["scan_uri", "label"]), has_copy, material.labels, scores)
    return Answers(
        model=name, split=split.number, rows=table, seconds=seconds, chosen=chosen, train_scans=len(split.train)
    )


def _contender(
    config: BaselinesConfig,
    material: Material,
    parts: list[Split],
    name: str,
    fingerprint: str,
    rate: tuple[float, int],
) -> Contender:
    found = (Answers.read(_folder(config), fingerprint, name, split.number) for split in parts)
    answers = [each for each in found if each is not None]
    return Contender(
        name=name,
        title=_DEEP.get(name) or classical.RECIPES[name].title,
        scores=[_scores(each, material.labels) for each in answers],
        has_copy=[np.array(each.rows["has_copy"].to_pylist(), bool) for each in answers],
        seconds=[each.seconds for each in answers],
        chosen=[each.chosen for each in answers],
        train_scans=answers[0].train_scans,
        scans_per_s=rate[0],
        size_bytes=rate[1],
    )


def _scores(answers: Answers, labels: tuple[str, ...]) -> Scores:
    columns = [answers.rows[schema.probability_column(label)].to_numpy() for label in labels]
    probabilities = np.stack(columns, axis=1).astype(np.float64)
    truth = np.asarray(pc.index_in(answers.rows["label"], pa.array(labels)).to_numpy(), np.int64)
    return Scores(labels=labels, truth=truth, probabilities=probabilities / probabilities.sum(axis=1, keepdims=True))


def _rates(config: BaselinesConfig, material: Material, split: Split) -> dict[str, tuple[float, int]]:
    """The scans that each first split's model scores in a second with all cores of a node to itself, and its bytes."""
    cores = max(1, int(max(node["Resources"].get("CPU", 1) for node in working_nodes())))
    scans = material.table.take(pa.array(split.test[:_RATE_SCANS])).select(schema.PLAN.names).to_pylist()
    task: Any = ray.remote(num_cpus=cores)(_clocked)
    places = {name: _model(config, name) for name in config.models}
    rates: dict[str, tuple[float, int]] = ray.get(task.remote(places, scans, cores))
    return rates


def _clocked(places: dict[str, str], scans: list[dict[str, str]], threads: int) -> dict[str, tuple[float, int]]:
    """One model after the other in one process, so that the rates compare."""
    rates = {}
    for name, uri in places.items():
        model = artifact.read(uri)
        found = (decode(uris.read_version(*scan.values()), model.image_spec).pixels for scan in scans)
        pixels = np.stack([each for each in found if each is not None])
        predictor = Predictor(uri, threads=threads)
        predictor.probabilities(pixels)
        begun, calls = time.monotonic(), 0
        while time.monotonic() - begun < _RATE_S:
            predictor.probabilities(pixels)
            calls += 1
        rates[name] = calls * len(pixels) / (time.monotonic() - begun), artifact.size_bytes(model)
    return rates


def _write(config: BaselinesConfig, material: Material, contenders: list[Contender]) -> str:
    """comparison.parquet, comparison.md, the figures and comparison.html, the page last. Its URI."""
    best = comparison.ranked(contenders)
    bars = figures.accuracy_bars(
        [one.title for one in best], [one.accuracy for one in best], [one.interval for one in best]
    )
    pictures = {"accuracy": ("Accuracy on scans that nothing was learnt from", bars)}
    for one in best:
        pictures[f"confusion_{one.name}"] = (f"{one.title}: all splits", figures.confusion_matrix(one.pooled))
    facts, data = _facts(config, material, contenders), pa.BufferOutputStream()
    pq.write_table(comparison.comparison_table(best), data)
    out = config.output
    uris.put(uris.join(out, "comparison.parquet"), data.getvalue().to_pybytes())
    uris.put(uris.join(out, "comparison.md"), comparison.markdown(contenders, facts).encode())
    for name, (_, png) in pictures.items():
        uris.put(uris.join(out, f"{name}.png"), png)
    place = uris.join(uris.absolute(out), "comparison.html")
    uris.put(place, comparison.comparison_page(contenders, facts, dict(pictures.values())).encode())
    return place


def _facts(config: BaselinesConfig, material: Material, contenders: list[Contender]) -> dict[str, object]:
    images, counts = len(set(material.table["pixels_sha256"].to_pylist())), material.table["label"].value_counts()
    how = (
        "scan by scan: copies of one image stand on both sides"
        if config.paper_protocol
        else "by content: copies on one side"
    )
    facts: dict[str, object] = {
        "scans": f"{material.table.num_rows:,}, {images:,} different images",
        "classes": ", ".join(f"{row['values']} {row['counts']:,}" for row in counts.to_pylist()),
        "splits": f"{config.repeats}, {1 - config.test_fraction:.0%} to learn from, {how}",
        "classical models": f"grey pixels or frozen Xception features at {config.image_side} px, tuned by cross-validation within "
                            "the training side; principal components are part of what is tuned",
        "command": config.command("jobs/baselines.py"),
    }  # fmt: skip
    deep = [one for one in contenders if one.name in _DEEP]
    if deep:
        told = (f"{one.title} {one.chosen[0]['epochs']} epochs at {one.chosen[0]['image_side_px']} px" for one in deep)
        facts["budget of the deep models"] = f"{', '.join(told)}; {len(deep[0].scores)} of the splits"
    return facts


def _folder(config: BaselinesConfig) -> str:
    return uris.join(config.output, "answers")


def _model(config: BaselinesConfig, name: str) -> str:
    return uris.join(uris.absolute(config.output), "models", name)
