"""Compute the input of classical models: grey pixels, or the features of a backbone with frozen weights.

TensorFlow is imported inside functions, for the backbone only.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mribatch.models import directory

__all__ = [
    "BACKBONE",
    "FEATURES",
    "Extractor",
    "Floats",
    "FrozenBackbone",
    "backbone_weights",
    "centred",
    "grey",
    "products",
    "rows_of",
    "unit_scaled",
]

Floats = NDArray[np.float32]

BACKBONE = "xception"
_CHUNK_PIXELS = 4096  # their products can be summed in float32 without losing digits that matter
FEATURES: Mapping[str, Any] = {"pixels": np.uint8, "backbone": np.float32}
"""The kinds of features and their dtypes."""


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (N, side × side) uint8 luma for (N, side, side, 3) uint8 RGB, as in ITU-R BT.601 and Pillow's mode L."""
    weights = np.array([299, 587, 114], np.uint32)
    luma = (pixels.astype(np.uint32) @ weights + 500) // 1000
    return luma.reshape(len(pixels), -1).astype(np.uint8)


def unit_scaled(pixels: NDArray[np.uint8]) -> Floats:
    """Return uint8 pixels as float32 in 0…1, the input of the pipelines on pixels."""
    return pixels.astype(np.float32) / np.float32(255)


def centred(pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return the mean of (N, pixels) uint8 scans, as `unit_scaled`, and each scan's difference from it.

    Shapes: (pixels,) and (N, pixels).
    """
    flat = unit_scaled(pixels)
    mean: Floats = flat.mean(axis=0)
    flat -= mean
    return mean, flat


def products(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the inner products of (N, pixels) uint8 scans, as `unit_scaled`, with each other: (N, N) float64."""
    total = np.zeros((len(pixels), len(pixels)))
    for start in range(0, pixels.shape[1], _CHUNK_PIXELS):
        chunk = unit_scaled(pixels[:, start : start + _CHUNK_PIXELS])
        total += chunk @ chunk.T
    return total


class FrozenBackbone:
    """The pooled output of a backbone. weights: as `backbone_weights` returns them."""

    def __init__(self, weights: bytes, side_px: int) -> None:
        from mribatch.models import networks
        from mribatch.models.tensorflow_engine import frozen

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "backbone.weights.h5"
            path.write_bytes(weights)
            backbone = networks.build_backbone(BACKBONE, str(path))
        self._compute = frozen(lambda images: [backbone(images, training=False)], side_px)

    def __call__(self, pixels: NDArray[np.uint8]) -> Floats:
        """Return (N, 2048) float32 for (N, side, side, 3) uint8 RGB."""
        return self._compute(pixels)[0]


class Extractor:
    """Replace the `pixels` column of decoded scans by the features that classical models are fitted on.

    A callable for Ray Data actors. weights: of the backbone, as `backbone_weights` returns them; None where no model
    needs its features. threads: as for `Predictor`.
    """

    def __init__(self, weights: bytes | None, side_px: int, threads: int | None) -> None:
        from mribatch.models.tensorflow_engine import set_threads

        if weights is not None and threads is not None:
            set_threads(threads)
        self._backbone, self._side_px = None if weights is None else FrozenBackbone(weights, side_px), side_px

    def __call__(self, table: pa.Table) -> pa.Table:
        """Make `pixels` (side × side,) uint8 luma and add `backbone`, (2048,) float32; null where pixels are null."""
        decoded = table["pixels"].is_valid().to_pylist()
        shape = (-1, self._side_px, self._side_px, 3)
        pixels = np.frombuffer(b"".join(table["pixels"].drop_null().to_pylist()), np.uint8).reshape(shape)
        columns: dict[str, NDArray[Any]] = {"pixels": grey(pixels)}
        table = table.drop_columns(["pixels", "decoder_peak_bytes"])
        if self._backbone is not None:
            columns["backbone"] = self._backbone(pixels) if len(pixels) else np.empty((0, 2048), np.float32)
        for name, values in columns.items():
            rows = iter(values)
            data = [next(rows).tobytes() if is_valid else None for is_valid in decoded]
            table = table.append_column(name, pa.array(data, pa.binary(values.shape[1] * values.itemsize)))
        return table


def rows_of(column: pa.ChunkedArray, dtype: Any) -> NDArray[Any]:
    """Return a column of `Extractor`, which must not have nulls, as an array of shape (N, D)."""
    rows = column.to_pylist()
    return np.frombuffer(b"".join(rows), dtype).reshape(len(rows), -1)


def backbone_weights(weights: str, flag: str) -> bytes:
    """Return the backbone's weights in float16, as a Keras weights file.

    weights: imagenet, none or a file, the value of the flag. Raises ModelError.
    """
    from mribatch.models import networks

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.weights.h5"
        networks.build_backbone(BACKBONE, weights, flag).save_weights(path)
        return directory.rounded(path)
