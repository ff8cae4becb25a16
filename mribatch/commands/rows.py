"""Turn scored rows into what is counted: class numbers, scores, and the reasons of rows without a prediction."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch.schema import Status, probability_column
from mribatch.statistics.metrics import Scores

__all__ = ["class_numbers", "reasons", "scores_of"]


def class_numbers(column: pa.ChunkedArray, labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each class of a column in `labels`, (N,)."""
    return np.asarray(pc.index_in(column, pa.array(labels)).to_numpy(), np.int64)


def scores_of(rows: pa.Table, labels: Sequence[str]) -> Scores:
    """Return the scores of scored rows with their `label`. labels: those of the model, in its order."""
    columns = [rows[probability_column(label)].to_numpy() for label in labels]
    probabilities = np.stack(columns, axis=1).astype(np.float64)
    return Scores(
        labels=tuple(labels),
        truth=class_numbers(rows["label"], labels),
        probabilities=probabilities / probabilities.sum(axis=1, keepdims=True),  # float32 sums to 1 within 1e-7
    )


def reasons(rows: pa.Table, status: Status) -> dict[str, int]:
    """Return how many of the rows of a status have each reason."""
    return dict(Counter(rows.filter(pc.equal(rows["status"], status))["reason"].to_pylist()))
