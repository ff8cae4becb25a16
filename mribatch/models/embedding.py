"""The features of a model for tables of decoded scans, with a thumbnail of each: the callable that an actor holds."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from mribatch.errors import ModelError
from mribatch.models import directory
from mribatch.models.disturbed import DISTURBANCES
from mribatch.models.features import grey

__all__ = ["DISTURB", "Embedder", "LayerReader", "grey_thumbnails", "pixels_of"]

DISTURB = "disturb"
"""The column that says of which scans a LayerReader computes disturbed copies, too."""


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
            raise ModelError(f"{model} is a classical model, which has no features: name a network with --model")
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
            rows = iter(values)
            cells = [next(rows).tobytes() if ok else None for ok in readable]
            table = table.append_column(name, pa.array(cells, pa.binary()))
        return table


class LayerReader:
    """Adds `logits`, `intermediate`, `penultimate` and `disturbed` to tables of decoded scans and drops their pixels.

    model, digest, threads: as for `Embedder`. Raises ModelError for a model without a network.
    """

    def __init__(self, model: str, digest: str, threads: int | None = None) -> None:
        from mribatch.models.tensorflow_engine import TensorFlowEngine, set_threads

        self._model = directory.open_model(model, digest)
        if self._model.is_classical:
            raise ModelError(f"{model} is a classical model, which has no layers to look at: name a network with --model")
        if threads is not None:
            set_threads(threads)
        self._engine = TensorFlowEngine(self._model, with_layers=True)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with float32 arrays as binary columns, null where pixels are.

        disturbed: (kinds, D) of the intermediate layer for each of DISTURBANCES; null where the column DISTURB is false.
        """
        readable = np.asarray(table["pixels"].is_valid())
        chosen = np.asarray(table[DISTURB].to_pylist(), bool) & readable
        pixels = pixels_of(table, self._model.image_spec.side_px)
        columns = {"logits": (readable, ()), "intermediate": (readable, ()), "penultimate": (readable, ()), "disturbed": (chosen, ())}
        if len(pixels):
            outputs = self._engine(pixels)
            layers = outputs.layers
            assert layers is not None  # asked for above
            columns |= {"logits": (readable, outputs.logits)}
            columns |= {name: (readable, values) for name, values in layers._asdict().items()}
        if chosen.any():
            columns["disturbed"] = chosen, self._disturbed(pixels[chosen[readable]])
        table = table.drop_columns(["pixels"])
        for name, (where, values) in columns.items():
            rows = iter(values)
            cells = [next(rows).tobytes() if ok else None for ok in where]
            table = table.append_column(name, pa.array(cells, pa.binary()))
        return table

    def _disturbed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (N, kinds, D)."""
        outputs = (self._engine(disturb(pixels)).layers for disturb in DISTURBANCES.values())
        return np.stack([layers.intermediate for layers in outputs if layers is not None], axis=1)
