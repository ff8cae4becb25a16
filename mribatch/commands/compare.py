"""Compare: labelled scans → decoded once → split again and again → every model on every split → a table, tests, a page.

Each model's answers are a file as soon as they are there; a comparison that was cut off goes on from these.
"""

import hashlib
import json
import logging
import time
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from mribatch import schema
from mribatch.cluster import decoding
from mribatch.cluster.decoding import readable
from mribatch.cluster.nodes import check_seen, most_cores, predictors, working_nodes
from mribatch.cluster.session import session
from mribatch.commands.classes import shown
from mribatch.commands.compare_cache import Answers, Split
from mribatch.commands.compare_fits import (
    DEEP,
    Material,
    fit_classical,
    given,
    kind_of,
    model_place,
    train_deep,
    versions,
)
from mribatch.commands.paying import paying
from mribatch.errors import InputError, RunFailed
from mribatch.models import directory, features, pretrained
from mribatch.models.predictor import Predictor
from mribatch.predictions import lock
from mribatch.predictions.lock import new_run_id
from mribatch.reports import comparison, figures
from mribatch.reports.comparison import Contender
from mribatch.scans.limits import ImageSpec
from mribatch.settings.compare import BaselinesConfig
from mribatch.sources.labels import LABELLED
from mribatch.statistics.metrics import Scores
from mribatch.stores import uris
from mribatch.training import classical, splits

__all__ = ["Compared", "compare"]

log = logging.getLogger("mribatch.baselines")

_LEASE_S = 20.0
_RATE_SCANS = 128
_RATE_S = 0.5  # and one call at least: long enough for a rate, short beside all else


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


@paying
def compare(config: BaselinesConfig) -> Compared:
    """Fit every model of config.models on config.repeats splits of the labelled scans, and say how they did.

    The same command goes on where it was cut off. Raises InputError for classes that are not there or too small, and
    everything that `train` and `score` raise.
    """
    config = replace(config, output=uris.absolute(config.output))  # workers have working directories of their own
    if config.unused:
        log.warning("warning: not used by any of --models: %s", ", ".join(config.unused))
    table = shown(config.data, classes=config.classes, exclude=config.exclude, outputs=(config.output,))
    _check_weights(config)
    with (
        lock.held(config.output, "comparison", new_run_id(), lease_s=_LEASE_S),
        uris.probe(config.output) as probe,
        session(),
    ):
        check_seen({table["scan_uri"][0].as_py(): table["scan_version"][0].as_py(), probe: None})
        material = _material(config, table)
        fingerprint = _fingerprint(config, material)
        parts = [_split(config, material, number) for number in range(config.repeats)]
        fit_classical(config, material, parts, fingerprint)
        for backbone in (name for name in config.models if name in DEEP):
            for split in parts[: config.deep_repeats]:
                train_deep(config, material, split, backbone, fingerprint)
        rates = _rates(config, material, parts[0])
        contenders = [_contender(config, material, parts, name, fingerprint, rates[name]) for name in config.models]
    return Compared(contenders=contenders, report=_write(config, material, contenders))


def _check_weights(config: BaselinesConfig) -> None:
    """Refuse a wrong weights file of a backbone in use before anything starts."""
    in_use = {"xception" if name.startswith("frozen") else name for name in config.models}
    for backbone, weights in (("xception", config.xception_weights), ("resnet50v2", config.resnet50v2_weights)):
        if backbone in in_use and weights not in ("imagenet", "none"):
            pretrained.read_weights(weights, backbone)


# What models see


def _material(config: BaselinesConfig, table: pa.Table) -> Material:
    """Decode each scan once; keep its grey pixels and, where a model wants them, the features of the frozen backbone."""
    log.info("reading %d scans", table.num_rows)
    weights = None
    if any(kind_of(name) == "backbone" for name in config.models):
        weights = ray.get(
            ray.remote(max_calls=1)(features.backbone_weights).remote(_weights_seen(config), "--xception-weights")
        )
    threads, pool = predictors(working_nodes())
    rows = decoding.decoded(table, ImageSpec(side_px=config.image_side)).map_batches(
        features.Extractor, fn_constructor_args=(weights, config.image_side, threads), batch_format="pyarrow",
        batch_size=config.batch_size, zero_copy_batch=True, **pool,
    )  # fmt: skip
    seen = readable(rows, config.max_reject_rate)
    _check_classes(config, table, seen)
    labels = config.classes or tuple(sorted(set(seen["label"].to_pylist())))
    seen_by_kind = {
        kind: features.rows_of(seen[kind], dtype)
        for kind, dtype in features.FEATURES.items()
        if kind in seen.column_names
    }
    kept = seen.select([*LABELLED.names, "pixels_sha256"])
    return Material(
        table=kept, labels=labels, features=seen_by_kind, backbone=weights,
        classes=np.asarray(pc.index_in(kept["label"], pa.array(labels)).to_numpy(), np.int64),
        groups=np.array(splits.content_groups(kept), np.int64),
    )  # fmt: skip


def _check_classes(config: BaselinesConfig, table: pa.Table, seen: pa.Table) -> None:
    gone = sorted(set(table["label"].to_pylist()) - set(seen["label"].to_pylist()))
    if gone:
        raise InputError(f"no scan of {', '.join(gone)} in {config.data} can be read: repair them, or leave the class out with "
                         "--classes")  # fmt: skip


def _weights_seen(config: BaselinesConfig) -> str:
    weights = config.xception_weights
    return weights if weights in ("imagenet", "none") else uris.absolute(weights)


def _fingerprint(config: BaselinesConfig, material: Material) -> str:
    """Of all that answers depend on, but for which models take part and how often."""
    settings = config.as_dict()
    for name in ("data", "exclude", "output", "models", "repeats", "deep_repeats", "requester_pays"):
        del settings[name]
    scans = material.table.select(["scan_uri", "label", "patient_id", "pixels_sha256"]).to_pylist()
    weights = [_sha256(config.xception_weights), _sha256(config.resnet50v2_weights)]
    return hashlib.sha256(json.dumps([settings, scans, weights, versions()], sort_keys=True).encode()).hexdigest()


def _sha256(weights: str) -> str:
    return weights if weights in ("imagenet", "none") else hashlib.sha256(uris.read(weights)).hexdigest()


def _split(config: BaselinesConfig, material: Material, number: int) -> Split:
    train_rows, test_rows = splits.holdout(
        material.table,
        test_fraction=config.test_fraction,
        seed=config.seed + number,
        copies_straddle=config.paper_protocol,
    )
    return Split(number=number, train=train_rows, test=test_rows)


# Answers and what becomes of them


def _contender(
    config: BaselinesConfig,
    material: Material,
    parts: list[Split],
    name: str,
    fingerprint: str,
    rate: tuple[float, int],
) -> Contender:
    found = (given(config, fingerprint, name, split) for split in parts)
    answers = [each for each in found if each is not None]
    return Contender(
        name=name,
        title=DEEP.get(name) or classical.CLASSICAL_MODELS[name].title,
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
    log.info("measuring how fast each model scores, with all cores of a node")
    cores = most_cores()
    scans = material.table.take(pa.array(split.test[:_RATE_SCANS])).select(schema.PLAN.names).to_pylist()
    task: Any = ray.remote(num_cpus=cores, max_calls=1)(_clocked)
    places = {name: model_place(config, name) for name in config.models}
    rates: dict[str, tuple[float, int]] = ray.get(task.remote(places, scans, cores))
    return rates


def _clocked(places: dict[str, str], scans: list[dict[str, str]], threads: int) -> dict[str, tuple[float, int]]:
    """One model after the other in one process, so that the rates compare."""
    rates, seen = {}, cache(partial(_pixels, scans))
    for name, uri in places.items():
        model = directory.load_model(uri)
        pixels = seen(model.image_spec)
        predictor = Predictor(uri, threads=threads)
        predictor.probabilities(pixels)
        begun, calls = time.monotonic(), 0
        while time.monotonic() - begun < _RATE_S:
            predictor.probabilities(pixels)
            calls += 1
        rates[name] = calls * len(pixels) / (time.monotonic() - begun), directory.size_bytes(model)
    return rates


def _pixels(scans: list[dict[str, str]], spec: ImageSpec) -> NDArray[np.uint8]:
    rows = decoding.decode_table(pa.Table.from_pylist(scans, schema=schema.PLAN), spec=spec)
    pixels = rows["pixels"].drop_null().to_pylist()
    if not pixels:
        raise RunFailed("none of the test scans can be read any more: run the command again when they are back")
    return np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, spec.side_px, spec.side_px, 3)


def _write(config: BaselinesConfig, material: Material, contenders: list[Contender]) -> str:
    """comparison.parquet, comparison.md, the figures and comparison.html, the page last. Its URI."""
    best = comparison.ranked(contenders)
    bars = figures.accuracy_bars(
        [one.title for one in best], [one.accuracy for one in best], [one.interval for one in best]
    )
    pictures = {"accuracy": ("Accuracy on the test scans", bars)}
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
    deep = [one for one in contenders if one.name in DEEP]
    if deep:
        told = (f"{one.title} {one.chosen[0]['epochs']} epochs at {one.chosen[0]['image_side_px']} px" for one in deep)
        facts["budget of the deep models"] = f"{', '.join(told)}; {len(deep[0].scores)} of the splits"
    return facts
