"""Compare: labelled scans → decoded once → split repeatedly → every model on every split → a table, tests, a page.

Each model's answers are stored as soon as they are known; an interrupted comparison resumes from these.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from mribatch import schema
from mribatch.cluster import decoding, streaming
from mribatch.cluster.nodes import check_seen, most_cores, predictors, working_nodes
from mribatch.cluster.session import session
from mribatch.commands.classes import list_labelled
from mribatch.commands.compare_cache import Answers, Split, clusters_place, model_place, stored
from mribatch.commands.compare_elsewhere import listed_elsewhere, scored_elsewhere
from mribatch.commands.compare_fits import DEEP, Material, features_of, fit_classical, train_deep, versions
from mribatch.commands.groups import compared, given_clusters, grouped
from mribatch.commands.paying import paying
from mribatch.commands.rows import class_numbers
from mribatch.commands.screen import Block, Shown, Table, progress
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
from mribatch.statistics.shares import percent
from mribatch.stores import uris
from mribatch.training import classical, splits

__all__ = ["Compared", "compare"]

log = logging.getLogger("mribatch.baselines")

_LEASE_S = 20.0
_RATE_SCANS = 128
_RATE_S = 0.5  # measured for this long, and for one call at least: enough for a rate, short beside all else


@paying
def compare(config: BaselinesConfig) -> "Compared":
    """Fit every model of config.models on config.repeats splits of the labelled scans, and report how well they did.

    The same command resumes an interrupted comparison. Raises InputError for classes that are missing or too small, and
    everything that `train` and `score` raise.
    """
    config = replace(config, output=uris.absolute(config.output))  # workers have working directories of their own
    if config.unused:
        log.warning("warning: not used by any of --models: %s", ", ".join(config.unused))
    table = list_labelled(config.data, classes=config.classes, exclude=config.exclude, outputs=(config.output,))
    other = listed_elsewhere(config, table)
    _check_weights(config)
    given = given_clusters(config)
    with (
        lock.held(config.output, "comparison", new_run_id(), lease_s=_LEASE_S),
        uris.probe(config.output) as probe,
        session(),
    ):
        check_seen({table["scan_uri"][0].as_py(): table["scan_version"][0].as_py(), probe: None})
        material = _material(config, table, given)
        fingerprint = _fingerprint(config, material)
        parts = [_split(config, material, number) for number in range(config.repeats)]
        fit_classical(config, material, parts, fingerprint)
        for backbone in (name for name in config.models if name in DEEP):
            for split in parts[: config.deep_repeats]:
                train_deep(config, material, split, backbone, fingerprint)
        rates = _rates(config, material, parts[0])
        others = {} if other is None else scored_elsewhere(config, material.labels, other)
        answers = {name: [stored(config, fingerprint, name, split) for split in parts] for name in config.models}
        contenders = [
            replace(_contender(config, material, name, answers[name], rates[name]), other=others.get(name))
            for name in config.models
        ]
    return Compared(contenders=contenders, report=_write(config, material, contenders))


@dataclass(frozen=True, kw_only=True)
class Compared(Shown):
    """The models side by side, and where the report is."""

    contenders: list[Contender]
    report: str
    exit_code: int = 0

    def blocks(self) -> list[Block]:
        """Return a row for each model, the best first, and the report's place."""
        rows = []
        for contender in comparison.ranked(self.contenders):
            low, high = contender.interval
            interval, count = f"{low:.2%} … {high:.2%}", f"{len(contender.scores)}"
            rows.append((contender.title, *map(percent, contender.evidence), interval, count))
        head = ("model", "as published", "groups apart", "other source", "95% interval", "splits")
        return [Table(rows, head), *comparison.not_measured(self.contenders), f"report  {self.report}"]


def _check_weights(config: BaselinesConfig) -> None:
    """Refuse a wrong weights file of a backbone in use before anything starts."""
    in_use = {"xception" if name.startswith("frozen") else name for name in config.models}
    for backbone, weights in (("xception", config.xception_weights), ("resnet50v2", config.resnet50v2_weights)):
        if backbone in in_use and weights not in ("imagenet", "none"):
            pretrained.read_weights(weights, backbone)


# The scans


def _material(config: BaselinesConfig, table: pa.Table, given: Mapping[str, int] | None) -> Material:
    """Decode each scan once; keep its grey pixels and, if a model needs them, the features of the frozen backbone."""
    weights = _frozen_weights(config) if any(features_of(name) == "backbone" for name in config.models) else None
    scans = _features(config, table, weights)
    labels = config.classes or tuple(sorted(set(scans["label"].to_pylist())))
    kept = scans.select([*LABELLED.names, "content_sha256", "pixels_sha256"])
    kept = grouped(config, kept, given, clusters_place(config), lambda: compared(scans.select(schema.PLAN.names)))
    kinds = [kind for kind in features.FEATURES if kind in scans.column_names]
    return Material(
        table=kept,
        labels=labels,
        classes=class_numbers(kept["label"], labels),
        groups=np.array(splits.content_groups(kept), np.int64),
        features={kind: features.rows_of(scans[kind], features.FEATURES[kind]) for kind in kinds},
        backbone=weights,
    )


def _frozen_weights(config: BaselinesConfig) -> bytes:
    """Return the weights of the frozen Xception, read by a worker: the driver never loads TensorFlow."""
    weights = config.xception_weights
    place = weights if weights in ("imagenet", "none") else uris.absolute(weights)
    task: Any = ray.remote(max_calls=1)(features.backbone_weights)
    data: bytes = ray.get(task.remote(place, "--xception-weights"))
    return data


def _features(config: BaselinesConfig, table: pa.Table, weights: bytes | None) -> pa.Table:
    """Return the readable scans with their features. Raises InputError if a class has none."""
    log.info("reading %d scans …", table.num_rows)
    threads, pool = predictors(working_nodes())
    rows = streaming.decoded(table, ImageSpec(side_px=config.image_side)).map_batches(
        features.Extractor,
        fn_constructor_args=(weights, config.image_side, threads),
        batch_format="pyarrow",
        batch_size=config.batch_size,
        zero_copy_batch=True,
        **pool,
    )
    with progress("reading", table.num_rows, "scans") as bar:
        scans = streaming.readable(rows, config.max_reject_rate, bar.advance)
    lost = sorted(set(table["label"].to_pylist()) - set(scans["label"].to_pylist()))
    if lost:
        raise InputError(
            f"no scan of {', '.join(lost)} in {config.data} can be read: repair them, or leave the class out with --classes"
        )
    return scans


def _fingerprint(config: BaselinesConfig, material: Material) -> str:
    """Return a digest of all that answers depend on, which excludes the choice of models and the number of splits."""
    settings = config.as_dict()
    for name in _NOT_IN_FINGERPRINT:
        del settings[name]
    scans = material.table.select(["scan_uri", "label", "patient_id", "pixels_sha256", "cluster"]).to_pylist()
    weights = [_sha256(config.xception_weights), _sha256(config.resnet50v2_weights)]
    return hashlib.sha256(json.dumps([settings, scans, weights, versions()], sort_keys=True).encode()).hexdigest()


_NOT_IN_FINGERPRINT = (
    *("data", "exclude", "groups", "other_source", "output"),
    *("models", "repeats", "deep_repeats", "requester_pays"),
)


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


# Speed


def _rates(config: BaselinesConfig, material: Material, split: Split) -> dict[str, tuple[float, int]]:
    """Return how many scans per second each first split's model scores with all cores of a node, and its bytes."""
    log.info("measuring how fast each model scores, with all cores of a node …")
    cores = most_cores()
    scans = material.table.take(pa.array(split.test[:_RATE_SCANS])).select(schema.PLAN.names).to_pylist()
    task: Any = ray.remote(num_cpus=cores, max_calls=1)(_measured)
    places = {name: model_place(config, name) for name in config.models}
    rates: dict[str, tuple[float, int]] = ray.get(task.remote(places, scans, cores))
    return rates


def _measured(places: dict[str, str], scans: list[dict[str, str]], threads: int) -> dict[str, tuple[float, int]]:
    """Time one model after the other in one process, so that their rates can be compared."""
    rates, decode = {}, cache(partial(_pixels, scans))
    for name, uri in places.items():
        model = directory.load_model(uri)
        pixels = decode(model.image_spec)
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


# The report


def _contender(
    config: BaselinesConfig,
    material: Material,
    name: str,
    stored_answers: Iterable[Answers | None],
    rate: tuple[float, int],
) -> Contender:
    results = [answers for answers in stored_answers if answers is not None]
    return Contender(
        name=name,
        title=DEEP.get(name) or classical.CLASSICAL_MODELS[name].title,
        scores=[answers.scores(material.labels) for answers in results],
        has_copy=[np.array(answers.rows["has_copy"].to_pylist(), bool) for answers in results],
        seconds=[answers.seconds for answers in results],
        chosen=[answers.chosen for answers in results],
        train_scans=results[0].train_scans,
        scans_per_s=rate[0],
        size_bytes=rate[1],
        as_published=config.paper_protocol,
    )


def _write(config: BaselinesConfig, material: Material, contenders: list[Contender]) -> str:
    """Write comparison.parquet, comparison.md, the figures and comparison.html, the page last, and return its URI."""
    best, data = comparison.ranked(contenders), pa.BufferOutputStream()
    facts, pictures = _facts(config, material, contenders), _pictures(best)
    pq.write_table(comparison.comparison_table(best), data)
    folder = uris.absolute(config.output)
    uris.put(uris.join(folder, "comparison.parquet"), data.getvalue().to_pybytes())
    uris.put(uris.join(folder, "comparison.md"), comparison.markdown(contenders, facts).encode())
    for name, (_, png) in pictures.items():
        uris.put(uris.join(folder, f"{name}.png"), png)
    place = uris.join(folder, "comparison.html")
    files = {"comparison.parquet": "a row for each model and split", "comparison.md": "the tables as Markdown"}
    files |= {f"{name}.png": caption for name, (caption, _) in pictures.items()}
    uris.put(place, comparison.comparison_page(contenders, facts, files).encode())
    return place


def _pictures(best: Sequence[Contender]) -> dict[str, tuple[str, bytes]]:
    """Return captions and PNG bytes by file name."""
    titles = [contender.title for contender in best]
    intervals = [contender.interval for contender in best]
    dots = figures.accuracy_dots(titles, [contender.accuracy for contender in best], intervals)
    matrices = {
        f"confusion_{contender.name}": (f"{contender.title}: all splits", figures.confusion_matrix(contender.pooled))
        for contender in best
    }
    kind = "as published" if best[0].as_published else "with groups apart"
    return {"accuracy": (f"Accuracy on the test scans, {kind}", dots), **matrices}


def _facts(config: BaselinesConfig, material: Material, contenders: Sequence[Contender]) -> Mapping[str, object]:
    scans, images = material.table.num_rows, len(set(material.table["pixels_sha256"].to_pylist()))
    counts = material.table["label"].value_counts().to_pylist()
    copies = "by groups: near copies and the scans of a patient on one side"
    if config.paper_protocol:
        copies = "scan by scan: near copies on both sides, so accuracy mostly measures how well slices are recognized"
    facts: dict[str, object] = {
        "scans": f"{scans:,}, {images:,} different images",
        "classes": ", ".join(f"{row['values']} {row['counts']:,}" for row in counts),
        "splits": f"{config.repeats}, {1 - config.test_fraction:.0%} for training, {copies}",
        "classical models": (
            f"grey pixels or frozen Xception features at {config.image_side} px, tuned by cross-validation within the "
            "training side; principal components are part of what is tuned"
        ),
        "command": config.command("jobs/baselines.py"),
    }
    return facts | _budget([contender for contender in contenders if contender.name in DEEP])


def _budget(deep: Sequence[Contender]) -> dict[str, str]:
    if not deep:
        return {}
    chosen = [(contender.title, contender.chosen[0]) for contender in deep]
    budgets = (f"{title} {choice['epochs']} epochs at {choice['image_side_px']} px" for title, choice in chosen)
    return {"budget of the deep models": f"{', '.join(budgets)}; {len(deep[0].scores)} of the splits"}
