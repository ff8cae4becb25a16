"""Score a folder with Daft: files, decoded and resized images, a class that holds TensorFlow's frozen network, Parquet.

By hand:  python benchmarks/peers/daft_recipe.py --model models/brain-mri-v2 --data SCANS --output OUT
"""

import os
from typing import Any

import daft
import numpy as np
from daft import DataType, col
from daft.functions import convert_image, decode_image, download, resize
from peer import Task, columns, report, task

from mribatch import schema
from mribatch.models.format import Model


class Predictor:
    """Holds the network, frozen as mribatch does it for TensorFlow."""

    def __init__(self, wanted: Task) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from mribatch.models.tensorflow_engine import TensorFlowEngine

        self._model = wanted.opened()
        self._engine = TensorFlowEngine(self._model)

    def rows(self, paths: Any, images: Any) -> list[dict[str, Any]]:
        """Return the predictions of a batch, given as two series of Daft."""
        scores = self._engine(np.stack(images.to_pylist())).probabilities
        return _rows(columns(paths.to_pylist(), scores, self._model.labels))


class Pixels:
    """Stands in for the predictor and returns the pixels."""

    def __init__(self, _: Task) -> None:
        pass

    def rows(self, paths: Any, images: Any) -> list[dict[str, Any]]:
        """Return the pixels of a batch, given as two series of Daft."""
        return _rows(columns(paths.to_pylist(), np.stack(images.to_pylist()), None))


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _row_type(model: Model, pixels: bool) -> Any:
    if pixels:
        return DataType.struct({"scan": DataType.string(), "pixels": DataType.binary()})
    scores = {schema.probability_column(label): DataType.float32() for label in model.labels}
    return DataType.struct({"scan": DataType.string(), **scores, "scored_at": DataType.float64()})


def main(wanted: Task) -> None:
    model = wanted.opened()
    side_px, kind = model.image_spec.side_px, Pixels if wanted.pixels else Predictor
    in_batches = daft.method.batch(return_dtype=_row_type(model, wanted.pixels), batch_size=wanted.batch_size)
    predictor = daft.cls(type("Held", (kind,), {"rows": in_batches(kind.rows)}), max_concurrency=1)(wanted)
    image = resize(convert_image(decode_image(download(col("path"))), "RGB"), side_px, side_px)
    scans = daft.from_glob_path(f"{wanted.data}/**").select(col("path"), image.alias("image"))
    rows = scans.select(predictor.rows(col("path"), col("image")).alias("row"))
    rows.select(col("row").unnest()).write_parquet(wanted.output)
    report("daft", "tensorflow")


if __name__ == "__main__":
    main(task(__doc__))
