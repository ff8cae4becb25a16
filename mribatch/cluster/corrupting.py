"""Score scans on the cluster as they are and under every corruption."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from mribatch.cluster.nodes import predictors, working_nodes
from mribatch.cluster.streaming import collected, decoded
from mribatch.models.corrupted import CorruptedPredictor
from mribatch.models.engine import takes_gpus
from mribatch.models.format import Model
from mribatch.scans.corruptions import CORRUPTIONS, STRENGTHS

__all__ = ["VARIANTS", "corrupted_predictions"]

VARIANTS = 1 + len(CORRUPTIONS) * len(STRENGTHS)
"""Predictions for each scan."""

_BATCH_SCANS = 32  # four slices of an engine; each variant is a block of its own, so that the bar moves


def corrupted_predictions(table: pa.Table, model: Model, advance: Callable[[int], object] = lambda _: None) -> pa.Table:
    """Return VARIANTS rows for each readable scan of a table, with `corruption`, `strength` and predictions, within a session.

    Files of several frames are left out. advance: called with the number of new rows as they arrive.
    """
    threads, pool = predictors(working_nodes(), use_gpus=takes_gpus("auto", model))
    arguments: dict[str, Any] = {"model": model.uri, "digest": model.digest, "threads": threads}
    rows = decoded(table, model.image_spec, block_rows=_BATCH_SCANS).map_batches(
        CorruptedPredictor,
        fn_constructor_kwargs=arguments,
        batch_format="pyarrow",
        batch_size=_BATCH_SCANS,
        zero_copy_batch=True,
        **pool,
    )
    return collected(rows, advance).sort_by(
        [("corruption", "ascending"), ("strength", "ascending"), ("scan_uri", "ascending")]
    )
