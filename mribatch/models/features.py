"""What classical models see of scans: grey pixels, and the features of a backbone that was not trained further. No model.

TensorFlow is imported inside functions, for the backbone.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.models import directory

__all__ = ["BACKBONE", "FEATURES", "Backbone", "Extractor", "Floats", "array", "backbone_weights", "centred", "grey", "products",
           "scaled"]  # fmt: skip

Floats = NDArray[np.float32]

BACKBONE = "xception"
_PART = 4096  # pixels, whose products float32 still sums well
FEATURES: Mapping[str, Any] = {"pixels": np.uint8, "backbone": np.float32}
"""The kinds of features and their dtypes."""


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, side, side, 3) uint8 RGB → (N, side × side) uint8 luma, as in ITU-R BT.601 and Pillow's mode L."""
    weights = np.array([299, 587, 114], np.uint32)
    luma = (pixels.astype(np.uint32) @ weights + 500) // 1000
    return luma.reshape(len(pixels), -1).astype(np.uint8)


def scaled(pixels: NDArray[np.uint8]) -> Floats:
    """What the pipelines on pixels see: 0…1."""
    return pixels.astype(np.float32) / np.float32(255)


def centred(pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """(N, pixels) uint8 → the mean of the scans as `scaled`, (pixels,), and what each differs from it by, (N, pixels)."""
    flat = scaled(pixels)
    mean: Floats = flat.mean(axis=0)
    flat -= mean
    return mean, flat


def products(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, pixels) uint8 → (N, N), the inner product of each two scans as `scaled`. A part of the pixels at a time."""
    found = np.zeros((len(pixels), len(pixels)))
    for at in range(0, pixels.shape[1], _PART):
        part = scaled(pixels[:, at : at + _PART])
        found += part @ part.T
    return found


class Backbone:
    """The features of a frozen backbone, pooled, from weights as `backbone_weights` gives them."""

    def __init__(self, weights: bytes, side_px: int) -> None:
        from mribatch.models import networks
        from mribatch.models.tensorflow_engine import frozen

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "backbone.weights.h5"
            path.write_bytes(weights)
            backbone = networks.backbone(BACKBONE, str(path))
        self._compute = frozen(lambda images: [backbone(images, training=False)], side_px)

    def __call__(self, pixels: NDArray[np.uint8]) -> Floats:
        """(N, side, side, 3) uint8 RGB → (N, 2048) float32."""
        return self._compute(pixels)[0]


class Extractor:
    """What classical models see, as columns in place of the pixels: held by an actor that tables of decoded scans pass.

    weights: of the backbone, as `backbone_weights` gives them; None where no model wants its features. threads: as for
    `Predictor`.
    """

    def __init__(self, weights: bytes | None, side_px: int, threads: int | None) -> None:
        from mribatch.models.tensorflow_engine import set_threads

        if weights is not None and threads is not None:
            set_threads(threads)
        self._backbone, self._side_px = None if weights is None else Backbone(weights, side_px), side_px

    def __call__(self, table: pa.Table) -> pa.Table:
        """`pixels` becomes (side × side) uint8 luma; `backbone`, (2048,) float32, is added. Null where pixels are."""
        there = np.asarray(table["pixels"].is_valid())
        shape = (-1, self._side_px, self._side_px, 3)
        pixels = np.frombuffer(b"".join(table["pixels"].drop_null().to_pylist()), np.uint8).reshape(shape)
        columns: dict[str, NDArray[Any]] = {"pixels": grey(pixels)}
        table = table.drop_columns(["pixels", "decoder_peak_bytes"])
        if self._backbone is not None:
            columns["backbone"] = self._backbone(pixels) if len(pixels) else np.empty((0, 2048), np.float32)
        for name, values in columns.items():
            table = table.append_column(name, _column(values, there))
        return table


def _column(values: NDArray[Any], there: NDArray[np.bool_]) -> pa.Array:
    """A binary column of rows of an array, null where there is none."""
    rows = iter(values)
    return pa.array(
        [next(rows).tobytes() if one else None for one in there], pa.binary(values.shape[1] * values.itemsize)
    )


def array(column: pa.ChunkedArray, dtype: Any) -> NDArray[Any]:
    """The rows of such a column, without nulls, as (N, D)."""
    rows = column.to_pylist()
    return np.frombuffer(b"".join(rows), dtype).reshape(len(rows), -1)


def backbone_weights(weights: str, flag: str) -> bytes:
    """The backbone's weights in float16, as a Keras weights file; weights: imagenet, none or a file, as `flag` takes them.

    Raises ModelError.
    """
    from mribatch.models import networks

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.weights.h5"
        networks.backbone(BACKBONE, weights, flag).save_weights(path)
        return directory.rounded(path)
