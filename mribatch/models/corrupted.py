"""Add predictions to decoded scans as they are and under every corruption: the callable that a scoring actor holds."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch.models.embedding import pixels_of
from mribatch.models.predictor import Predictor
from mribatch.scans.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from mribatch.schema import Status

__all__ = ["PLAIN", "CorruptedPredictor"]

PLAIN = ""
"""The `corruption` of a scan as it is; its `strength` is 0."""

_SEED_DIGITS = 16  # of the digest of a scan's pixels: the same scan is altered in the same way in any batch


class CorruptedPredictor:
    """Score tables of decoded scans with a loaded model, once as they are and once for each corruption and strength.

    Arguments as for `Predictor`.
    """

    def __init__(self, model: str, digest: str | None = None, threads: int | None = None) -> None:
        self._predictor = Predictor(model, digest, threads)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Yield the readable rows with `corruption`, `strength` and their predictions, without their pixels."""
        good = table.filter(pc.equal(table["status"], Status.OK)).combine_chunks()
        pixels = pixels_of(good, self._predictor.model.image_spec.side_px)
        seeds = [int(digest[:_SEED_DIGITS], 16) for digest in good["pixels_sha256"].to_pylist()]
        yield self._predicted(good, PLAIN, 0, pixels)
        for kind in CORRUPTIONS:
            for strength in STRENGTHS:
                altered = [corrupted(one, kind, strength, seed) for one, seed in zip(pixels, seeds, strict=True)]
                yield self._predicted(good, kind, strength, altered)

    def _predicted(
        self, table: pa.Table, kind: str, strength: int, pixels: NDArray[np.uint8] | list[NDArray[np.uint8]]
    ) -> pa.Table:
        place = table.column_names.index("pixels")
        cells = pa.array([np.ascontiguousarray(one).tobytes() for one in pixels], table.schema.field(place).type)
        rows = self._predictor(table.set_column(place, table.schema.field(place), cells))
        rows = rows.append_column("corruption", pa.array([kind] * rows.num_rows, pa.string()))
        return rows.append_column("strength", pa.array([strength] * rows.num_rows, pa.int32()))
