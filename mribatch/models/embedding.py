"""The features of a model for tables of decoded scans, with a thumbnail of each: the callable that an actor holds."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from mribatch.errors import ModelError
from mribatch.models import directory
from mribatch.models.features import grey

__all__ = ["LAYERS", "Embedder", "LayerReader", "grey_thumbnails", "pixels_of"]

LAYERS = ("logits", "intermediate", "penultimate")


def pixels_of(table: pa.Table, side_px: int) -> NDArray[np.uint8]:
    """Return the pixels of decoded rows that are ok, (N, side, side, 3) uint8."""
    column = table["pixels"].drop_null()
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, side_px, side_px, 3)


def grey_thumbnails(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Return (N, S, S, 3) uint8 RGB as (N, side, side) uint8 grey."""
    if not len(pixels):
        return np.empty((0, side_px, side_px), np.uint8)
    luma = grey(pixels).reshape(len(pixels), *pixels.shape[1:3])
    if luma.shape[1] == side_px:
        return luma
    size = (side_px, side_px)
    small = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in luma]
    return np.array(small, np.uint8).reshape(-1, *size)


class Embedder:
    """Adds `thumbnail` and `features` to tables of decoded scans and drops their pixels.

    threads: cores to compute with; None takes all of the machine. Raises ModelError for a model without a network.
    """

    def __init__(self, model: str, digest: str, thumbnail_px: int, threads: int | None = None) -> None:
        from mribatch.models.tensorflow_engine import TensorFlowEngine, set_threads

        self._model = directory.open_model(model, digest)
        if self._model.is_classical:
            raise ModelError(f"{model} is a classical model, which has no features: name a network")
        if threads is not None:
            set_threads(threads)
        self._engine, self._thumbnail_px = TensorFlowEngine(self._model), thumbnail_px

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with (thumbnail_px²) uint8 and (D,) float32 as binary columns, null where pixels are."""
        readable = np.asarray(table["pixels"].is_valid())
        pixels = pixels_of(table, self._model.image_spec.side_px)
        columns: dict[str, NDArray[Any]] = {
            "thumbnail": grey_thumbnails(pixels, self._thumbnail_px),
            "features": self._engine(pixels).features if len(pixels) else np.empty((0, 1), np.float32),
        }
        table = table.drop_columns(["pixels"])
        for name, values in columns.items():
            table = table.append_column(name, _cells(values, readable))
        return table


class LayerReader:
    """Adds the columns LAYERS to tables of decoded scans and drops their pixels.

    model, digest, threads: as for `Embedder`. Raises ModelError for a model without a network.
    """

    def __init__(self, model: str, digest: str, threads: int | None = None) -> None:
        from mribatch.models.tensorflow_engine import TensorFlowEngine, set_threads

        self._model = directory.open_model(model, digest)
        if self._model.is_classical:
            raise ModelError(f"{model} is a classical model, which has no layers to look at: name a network")
        if threads is not None:
            set_threads(threads)
        self._engine = TensorFlowEngine(self._model, with_layers=True)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with float32 arrays as binary columns, null where pixels are."""
        readable = np.asarray(table["pixels"].is_valid())
        pixels = pixels_of(table, self._model.image_spec.side_px)
        columns: dict[str, NDArray[np.float32]] = dict.fromkeys(LAYERS, np.empty((0, 1), np.float32))
        if len(pixels):
            outputs = self._engine(pixels)
            assert outputs.layers is not None  # asked for above
            columns = {"logits": outputs.logits, **outputs.layers._asdict()}
        table = table.drop_columns(["pixels"])
        for name, values in columns.items():
            table = table.append_column(name, _cells(values, readable))
        return table


def _cells(values: NDArray[Any], where: NDArray[np.bool_]) -> pa.Array:
    """Return a binary column with a row of values wherever one belongs, and null elsewhere."""
    rows = iter(values)
    return pa.array([next(rows).tobytes() if ok else None for ok in where], pa.binary())
