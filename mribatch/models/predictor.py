"""Add predictions to tables of decoded scans: the callable that a scoring actor holds.

The engine's library is loaded when a `Predictor` is made, not before.
"""

import os
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mribatch import schema
from mribatch.errors import RunFailed
from mribatch.models import directory
from mribatch.models.engine import Choice, Engine, Name, chosen, sees_a_gpu
from mribatch.models.format import Model
from mribatch.models.referral import stored_detector
from mribatch.schema import Referral, Status
from mribatch.statistics.calibration import calibrated
from mribatch.statistics.referral import Features, Verdicts

__all__ = ["Predictor", "load_engine"]


class Predictor:
    """Score tables of decoded scans with a loaded model.

    digest: of the model that the run planned for; raises ModelError if the directory holds another one.
    threads: number of cores to compute with; None uses all cores of the machine. engine: see `chosen`. A model with a referral
    limits NumPy's products to one thread, for all of this process.
    """

    def __init__(
        self, model: str, digest: str | None = None, threads: int | None = None, engine: Choice | Name = "auto"
    ) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        self._model = directory.open_model(model, digest)
        self._engine = load_engine(self._model, threads, engine)
        self._detector = stored_detector(self._model) if self._model.has_referral else None
        if self._detector is not None:
            # NumPy's threads wait busily for its next product, on cores that the engine needs
            threadpool_limits(1, "blas")

    @property
    def model(self) -> Model:
        return self._model

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add the predictions to decoded rows and drop their pixels. Rows without pixels keep nulls."""
        decoded = np.flatnonzero(np.asarray(table["status"].to_pylist()) == Status.OK)
        pixels = _pixels(table["pixels"], decoded, self._model.image_spec.side_px)
        scores = np.full((table.num_rows, len(self._model.labels)), np.nan, np.float32)
        verdicts = None
        if len(decoded):
            scores[decoded], layers = self._compute(pixels)
            if self._detector is not None and layers is not None:
                verdicts = self._detector.verdicts(layers, scores[decoded].max(axis=1))
        result = _with_predictions(table.drop_columns(["pixels", "pixels_sha256"]), scores, self._model)
        return _with_referral(result, scores, decoded, verdicts)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (N, labels) float32, rows summing to 1, for (N, side, side, 3) uint8 RGB. Raises RunFailed for NaN.

        They are calibrated if the model is.
        """
        return self._compute(pixels)[0]

    def _compute(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Features | None]:
        outputs = self._engine(pixels)
        scores, temperature = outputs.probabilities, self._model.temperature
        if temperature is not None:
            scores = calibrated(outputs.logits, temperature).astype(np.float32)
        if not np.isfinite(scores).all():
            raise RunFailed(f"model {self._model.digest} returns NaN or infinite probabilities: train it again")
        return scores, outputs.layers


def load_engine(model: Model, threads: int | None = None, wanted: Choice | Name = "auto") -> Engine:
    """Return the engine of a model, with the layers that referral looks at if the model has one.

    threads: see `Predictor`. wanted: see `chosen`.
    """
    name = chosen(wanted, model, on_gpu=sees_a_gpu())
    if name == "openvino":
        from mribatch.models.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(model, threads, with_layers=model.has_referral)
    if model.has_network and threads is not None:
        from mribatch.models.tensorflow_engine import set_threads

        set_threads(threads)
    if model.is_classical:
        from mribatch.models.classical_engine import ClassicalEngine

        return ClassicalEngine(model)
    from mribatch.models.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(model, with_layers=model.has_referral)


def _pixels(column: pa.ChunkedArray, rows: NDArray[np.intp], side_px: int) -> NDArray[np.uint8]:
    """Return the pixels of some rows, (N, side, side, 3) uint8, without a copy where all rows are asked for."""
    data = pa.chunked_array(column).combine_chunks() if isinstance(column, pa.Array) else column.combine_chunks()
    size = side_px * side_px * 3
    buffer = data.buffers()[1]
    flat = np.empty(0, np.uint8)
    if buffer:
        flat = np.frombuffer(buffer, np.uint8, count=len(data) * size, offset=data.offset * size)
    images = flat.reshape(-1, side_px, side_px, 3)
    return images if len(rows) == len(images) else images[rows]


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
    for field in schema.REFERRAL:
        columns[field.name] = pa.nulls(len(scores), field.type)
    columns["model_digest"] = pa.array([model.digest] * len(scores))
    columns["scored_at"] = pa.array([datetime.now(UTC)] * len(scores), pa.timestamp("us", tz="UTC"))
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table


def _with_referral(
    table: pa.Table, scores: NDArray[np.float32], rows: NDArray[np.intp], verdicts: Verdicts | None
) -> pa.Table:
    """Return the table with the columns of schema.REFERRAL filled in for the scans of some verdicts."""
    if verdicts is None:
        return table
    referred = np.asarray([Referral.REVIEW if reason else Referral.AUTO for reason in verdicts.reasons], object)
    filled = {
        "uncertainty": 1 - scores[rows].max(axis=1),
        "ood_score": verdicts.ood_score,
        "referral": referred,
        "referral_reason": verdicts.reasons,
    }
    for field in schema.REFERRAL:
        values = np.full(table.num_rows, None, object)
        values[rows] = filled[field.name]
        table = table.set_column(table.schema.get_field_index(field.name), field, pa.array(values, field.type))
    return table
