"""Add predictions to tables of decoded scans: the callable that a scoring actor holds.

TensorFlow is loaded when a `Predictor` is made, not before.
"""

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

__all__ = ["Predictor", "decoded_pixels"]


class Predictor:
    """Score tables of decoded scans with a loaded model.

    digest: of the model that the run planned for; raises ModelError if the directory holds another one.
    threads: number of cores to compute with; None uses all cores of the machine.
    """

    def __init__(self, model: str, digest: str | None = None, threads: int | None = None) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        self._model = directory.open_model(model, digest)
        self._engine = _engine(self._model, threads)

    @property
    def model(self) -> Model:
        return self._model

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add the predictions to decoded rows and drop their pixels. Rows without pixels keep nulls."""
        decoded = np.flatnonzero(np.asarray(table["status"].to_pylist()) == Status.OK)
        pixels = decoded_pixels(table["pixels"], decoded, self._model.image_spec.side_px)
        scores = np.full((table.num_rows, len(self._model.labels)), np.nan, np.float32)
        if len(decoded):
            scores[decoded] = self.probabilities(pixels)
        return _with_predictions(table.drop_columns(["pixels", "pixels_sha256"]), scores, self._model)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (N, labels) float32, rows summing to 1, for (N, side, side, 3) uint8 RGB. Raises RunFailed for NaN."""
        scores = self._engine(pixels).probabilities
        if not np.isfinite(scores).all():
            raise RunFailed(f"model {self._model.digest} returns NaN or infinite probabilities: train it again")
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


def decoded_pixels(column: pa.ChunkedArray, rows: NDArray[np.intp], side_px: int) -> NDArray[np.uint8]:
    """Return the pixels of some rows, (N, side, side, 3) uint8, without a copy where no other row has any."""
    data = pa.chunked_array(column).combine_chunks() if isinstance(column, pa.Array) else column.combine_chunks()
    _, places, values = data.buffers()
    flat = np.empty(0, np.uint8)
    if values:
        ends = np.frombuffer(places, np.int64)[data.offset : data.offset + len(data) + 1]
        flat = np.frombuffer(values, np.uint8)[ends[0] : ends[-1]]
    images = flat.reshape(-1, side_px, side_px, 3)
    return images if len(rows) == len(images) else images[np.isin(np.flatnonzero(data.is_valid()), rows)]


def _with_predictions(table: pa.Table, scores: NDArray[np.float32], model: Model) -> pa.Table:
    missing = np.isnan(scores[:, 0])
    best = np.where(missing, 0, np.argmax(np.nan_to_num(scores), axis=1))
    confidence = scores[np.arange(len(scores)), best]
    columns: dict[str, pa.Array] = {
        "predicted_class": pa.array(np.asarray(model.labels, object)[best], pa.string(), mask=missing),
        "confidence": pa.array(confidence, pa.float32(), mask=missing),
    }
    for k, label in enumerate(model.labels):
        columns[schema.probability_column(label)] = pa.array(scores[:, k], pa.float32(), mask=missing)
    columns["model_digest"] = pa.array([model.digest] * len(scores))
    columns["scored_at"] = pa.array([datetime.now(UTC)] * len(scores), pa.timestamp("us", tz="UTC"))
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table
