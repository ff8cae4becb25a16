"""Choose the scans of an export: those to calibrate on, and those on which both models are compared."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mribatch.commands.classes import list_labelled
from mribatch.errors import InputError, StorageMissing
from mribatch.models.format import Model
from mribatch.settings.export import LEAST_SCANS, ExportConfig
from mribatch.sources.labels import evaluation_scans
from mribatch.sources.listing import list_scans
from mribatch.sources.manifest import is_manifest

__all__ = ["Scans", "chosen_scans", "spread"]

log = logging.getLogger("mribatch.export")


class Scans(NamedTuple):
    """Listings. `compared` has the column `label` if its scans are labelled."""

    calibration: pa.Table
    compared: pa.Table


def chosen_scans(config: ExportConfig, model: Model) -> Scans:
    """List the scans of an export. Raises InputError for too few of them and for labels that the model does not know."""
    table = _calibration(config, model)
    is_labelled = "label" in table.column_names
    usable = table.filter(pc.fill_null(pc.not_equal(table["split"], "test"), True)) if is_labelled else table
    calibration = spread(usable if usable.num_rows else table, config.calibration_scans)
    if calibration.num_rows < LEAST_SCANS:
        raise InputError(
            f"{config.calibration} has {calibration.num_rows} scans, at least {LEAST_SCANS} are needed to calibrate on: add scans"
        )
    if config.data is not None:
        return Scans(calibration, evaluation_scans(list_labelled(config.data, outputs=(config.output,)), model.labels))
    return Scans(calibration, evaluation_scans(table, model.labels) if is_labelled else calibration)


def _calibration(config: ExportConfig, model: Model) -> pa.Table:
    """Return the scans at config.calibration, with labels if it is a manifest or a folder of classes that the model knows."""
    try:
        table = list_labelled(config.calibration, exclude=config.exclude, outputs=(config.output,))
    except (InputError, StorageMissing) as err:
        if is_manifest(config.calibration):
            raise
        why = str(err)
    else:
        if is_manifest(config.calibration) or {*table["label"].to_pylist()} & {*model.labels}:
            return table
        why = "none of its folders is a class of the model"
    log.info("taken as scans without labels: %s (%s)", config.calibration, why)
    return list_scans([config.calibration], config.exclude)


def spread(table: pa.Table, scans: int) -> pa.Table:
    """Return at most so many rows, about equally many of each `label` if there is that column, spread over its rows."""
    labels = np.asarray(table["label"].to_pylist() if "label" in table.column_names else [""] * table.num_rows)
    classes = [np.flatnonzero(labels == label) for label in sorted({*labels.tolist()})]
    chosen: list[int] = []
    for rows, share in zip(classes, _shares([len(rows) for rows in classes], scans), strict=True):
        chosen += rows[np.linspace(0, len(rows), share, endpoint=False).astype(int)].tolist()
    return table.take(pa.array(sorted(chosen), pa.int64()))


def _shares(sizes: Sequence[int], scans: int) -> list[int]:
    """Return how many scans of each class are taken: equally many, and more of the others where a class has too few."""
    shares = [0] * len(sizes)
    for taken, number in enumerate(np.argsort(sizes, kind="stable").tolist()):
        shares[number] = min(sizes[number], scans // (len(sizes) - taken))
        scans -= shares[number]
    return shares
