"""What a network computes for all scans of a listing, on its way to their classes, in arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.cluster.nodes import predictors, working_nodes
from mribatch.cluster.streaming import decoded, readable
from mribatch.models.embedding import LAYERS, LayerReader
from mribatch.models.format import Model
from mribatch.statistics.referral import Features

__all__ = ["Layers", "layers_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """Row k of `scans`, `logits` and `features` is one readable scan, sorted by URI.

    scans: the listing's columns. logits: (N, labels) float32.
    """

    scans: pa.Table
    logits: NDArray[np.float32]
    features: Features


def layers_of(table: pa.Table, model: Model, batch_size: int, max_reject_rate: float) -> Layers:
    """Compute the scans of a listing, within a session.

    Raises InputError if more than max_reject_rate of them cannot be read.
    """
    threads, pool = predictors(working_nodes())
    rows = decoded(table, model.image_spec).map_batches(
        LayerReader,
        fn_constructor_kwargs={"model": model.uri, "digest": model.digest, "threads": threads},
        batch_format="pyarrow",
        batch_size=batch_size,
        zero_copy_batch=True,
        **pool,
    )
    kept = readable(rows, max_reject_rate)
    columns = {name: _rows_of(kept[name]) for name in LAYERS}
    return Layers(
        scans=kept.select(table.column_names),
        logits=columns["logits"],
        features=Features(columns["intermediate"], columns["penultimate"]),
    )


def _rows_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return the float32 arrays in a binary column, without nulls, as (N, D)."""
    cells = column.drop_null().to_pylist()
    return np.frombuffer(b"".join(cells), np.float32).reshape(len(cells), -1 if cells else 0)
