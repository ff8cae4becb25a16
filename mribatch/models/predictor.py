"""From pixels to probabilities: the callable that a scoring actor holds. No Ray; TensorFlow only once constructed."""

import os
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch import schema
from mribatch.errors import RunFailed
from mribatch.models import directory
from mribatch.models.engine import Engine
from mribatch.models.format import Model
from mribatch.schema import Status

__all__ = [
    "Predictor",
]


class Predictor:
    """A loaded model, a network frozen to constants or a classical one, that scores tables of decoded scans.

    digest: the model that the run planned for; any other one in the directory is refused with ModelError.
    threads: cores to compute with; None takes all of the machine.
    """

    def __init__(self, model: str, digest: str | None = None, threads: int | None = None) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        self._model = directory.named(model, digest)
        self._engine = _engine(self._model, threads)

    @property
    def model(self) -> Model:
        return self._model

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add the predictions to decoded rows and drop their pixels. Rows without pixels keep nulls."""
        good = np.flatnonzero(np.asarray(table["status"].to_pylist()) == Status.OK)
        pixels = _pixels(table["pixels"], good, self._model.image_spec.side_px)
        scores = np.full((table.num_rows, len(self._model.labels)), np.nan, np.float32)
        if len(good):
            scores[good] = self.probabilities(pixels)
        return _with_predictions(table.drop_columns(["pixels", "pixels_sha256"]), scores, self._model)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, side, side, 3) uint8 RGB → (N, labels) float32, rows summing to 1. Raises RunFailed for NaN."""
        scores = self._engine(pixels).probabilities
        if not np.isfinite(scores).all():
            raise RunFailed(f"model {self._model.digest} gives no finite probabilities: train it again")
        return scores


def _engine(model: Model, threads: int | None) -> Engine:
    if model.has_network and threads is not None:
        from mribatch.models.tensorflow_engine import set_threads

        set_threads(threads)
    if model.is_classical:
        from mribatch.models.classical_engine import ClassicalEngine

        return ClassicalEngine(model)
    from mribatch.models.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(model)


def _pixels(column: pa.ChunkedArray, rows: NDArray[np.intp], side_px: int) -> NDArray[np.uint8]:
    """The pixels of some rows, (N, side, side, 3) uint8."""
    data = pa.chunked_array(column).combine_chunks() if isinstance(column, pa.Array) else column.combine_chunks()
    size = side_px * side_px * 3
    buffer = data.buffers()[1]
    whole = (
        np.frombuffer(buffer, np.uint8, count=len(data) * size, offset=data.offset * size)
        if buffer
        else np.empty(0, np.uint8)
    )
    images = whole.reshape(-1, side_px, side_px, 3)
    return images if len(rows) == len(images) else images[rows]


def _with_predictions(table: pa.Table, scores: NDArray[np.float32], model: Model) -> pa.Table:
    nothing = np.isnan(scores[:, 0])
    best = np.where(nothing, 0, np.argmax(np.nan_to_num(scores), axis=1))
    confidence = scores[np.arange(len(scores)), best]
    columns: dict[str, pa.Array] = {
        "predicted_class": pa.array(np.asarray(model.labels, object)[best], pa.string(), mask=nothing),
        "confidence": pa.array(confidence, pa.float32(), mask=nothing),
        **{schema.probability_column(label): pa.array(scores[:, k], pa.float32(), mask=nothing)
           for k, label in enumerate(model.labels)},
        "model_digest": pa.array([model.digest] * len(scores)),
        "scored_at": pa.array([datetime.now(UTC)] * len(scores), pa.timestamp("us", tz="UTC")),
    }  # fmt: skip
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table
