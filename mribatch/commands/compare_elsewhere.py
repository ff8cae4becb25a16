"""Try the models of a comparison's first split on labelled scans of another source."""

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from mribatch import schema
from mribatch.cluster import decoding
from mribatch.cluster.nodes import check_seen, most_cores
from mribatch.commands.classes import list_labelled
from mribatch.commands.compare_cache import model_place
from mribatch.commands.rows import class_numbers
from mribatch.errors import InputError
from mribatch.models import directory
from mribatch.models.predictor import Predictor
from mribatch.settings.compare import BaselinesConfig
from mribatch.statistics.metrics import Scores

__all__ = ["listed_elsewhere", "scored_elsewhere"]

log = logging.getLogger("mribatch.baselines")

_BLOCK_SCANS = 128  # 34 MB at 299 px


def listed_elsewhere(config: BaselinesConfig, table: pa.Table) -> pa.Table | None:
    """Return the labelled scans of --other-source that have one of --classes; None without that flag.

    table: the scans of the comparison. Raises InputError for classes that these lack, unless --classes leaves them out.
    """
    if config.other_source is None:
        return None
    other = list_labelled(config.other_source, outputs=(config.output,))
    known = set(table["label"].to_pylist())
    unknown = sorted(set(other["label"].to_pylist()) - known)
    if unknown and not config.classes:
        raise InputError(
            f"--other-source {config.other_source} has classes that {config.data} lacks: {', '.join(unknown)}; rename or "
            "remove them, or name the classes to compare with --classes"
        )
    kept = other.filter(pc.is_in(other["label"], pa.array(sorted(known))))
    if not kept.num_rows:
        raise InputError(
            f"--other-source {config.other_source} has no scans of {', '.join(sorted(known))}: name others"
        )
    return kept


def scored_elsewhere(config: BaselinesConfig, labels: tuple[str, ...], scans: pa.Table) -> dict[str, Scores]:
    """Score the readable scans with each model of the first split, in one process with all cores of a node.

    Returns scores by model name. Raises InputError if no scan can be read.
    """
    log.info("trying the models on %s scans of another source …", f"{scans.num_rows:,}")
    check_seen({scans["scan_uri"][0].as_py(): scans["scan_version"][0].as_py()})
    cores = most_cores()
    task: Any = ray.remote(num_cpus=cores, max_calls=1)(_probabilities)
    places = {name: model_place(config, name) for name in config.models}
    answers: dict[str, tuple[list[int], NDArray[Any]]] = ray.get(task.remote(places, scans, labels, cores))
    truth = class_numbers(scans["label"], labels)
    return {
        name: Scores(labels=labels, truth=truth[rows], probabilities=values / values.sum(axis=1, keepdims=True))
        for name, (rows, values) in answers.items()
    }


def _probabilities(
    places: dict[str, str], scans: pa.Table, labels: tuple[str, ...], threads: int
) -> dict[str, tuple[list[int], NDArray[Any]]]:
    """Return the row numbers of readable scans and their probabilities (N, labels), by model."""
    return {name: _of_model(place, scans, labels, threads) for name, place in places.items()}


def _of_model(
    place: str, scans: pa.Table, labels: tuple[str, ...], threads: int
) -> tuple[list[int], NDArray[np.float64]]:
    model = directory.load_model(place)
    predictor, side = Predictor(place, threads=threads), model.image_spec.side_px
    rows: list[int] = []
    parts = []
    for at in range(0, scans.num_rows, _BLOCK_SCANS):
        block = decoding.decode_table(scans.slice(at, _BLOCK_SCANS).select(schema.PLAN.names), spec=model.image_spec)
        good = np.flatnonzero(np.asarray(block["pixels"].is_valid()))
        if len(good):
            cells = block["pixels"].drop_null().to_pylist()
            parts.append(predictor.probabilities(np.frombuffer(b"".join(cells), np.uint8).reshape(-1, side, side, 3)))
            rows += (at + good).tolist()
    if not parts:
        raise InputError(f"none of the {scans.num_rows} scans of --other-source can be read: repair or replace them")
    columns = [model.labels.index(label) for label in labels]
    return rows, np.concatenate(parts)[:, columns].astype(np.float64)
