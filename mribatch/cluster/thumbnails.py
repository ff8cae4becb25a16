"""Grey thumbnails of all scans of a listing in one array, decoded on the cluster."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from numpy.typing import NDArray

from mribatch.cluster.nodes import predictors, working_nodes
from mribatch.cluster.streaming import decoded
from mribatch.models.embedding import Embedder, grey_thumbnails, pixels_of
from mribatch.models.format import Model
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Status
from mribatch.statistics.thumbnails import SIDE_PX

__all__ = ["Thumbnails", "thumbnails_of"]

_BLOCK_ROWS = 128  # a block costs Ray as much as decoding 80 scans; 128 thumbnails in colour are 1.6 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class Thumbnails:
    """What was decoded: row k of `scans`, `pictures` and `features` is one readable frame, sorted by URI and frame.

    scans: the listing's columns and those of `schema.decoded_fields` but for the pixels. pictures: (N, 64, 64) grey.
    features: (N, D) of a model, or None. unreadable: the rows without a picture, with their reasons.
    """

    scans: pa.Table
    pictures: NDArray[np.uint8]
    features: NDArray[np.float32] | None
    unreadable: pa.Table


class _Batch(NamedTuple):
    scans: pa.Table
    pictures: NDArray[np.uint8]  # of the readable ones
    features: NDArray[np.float32] | None


def thumbnails_of(
    table: pa.Table,
    model: Model | None = None,
    batch_size: int = 32,
    advance: Callable[[int], object] = lambda _: None,
) -> Thumbnails:
    """Decode the scans of a listing into thumbnails, and features of a model where one is given, within a session.

    A thumbnail takes 4 KB of this process's memory, twice while all are put in order. advance: called with the number of
    rows of each batch as it arrives.
    """
    batches = []
    for batch in _plain(table) if model is None else _embedded(table, model, batch_size):
        batches.append(batch)
        advance(batch.scans.num_rows)
    listed = pa.concat_tables([batch.scans for batch in batches])
    good = pc.equal(listed["status"], Status.OK)
    scans = listed.filter(good)
    order = pc.sort_indices(scans, [("scan_uri", "ascending"), ("frame", "ascending")])
    places = np.asarray(order)
    features = [batch.features for batch in batches if batch.features is not None and len(batch.features)]
    return Thumbnails(
        scans=scans.take(order).combine_chunks(),
        pictures=np.concatenate([batch.pictures for batch in batches])[places],
        features=np.concatenate(features)[places] if features else None,
        unreadable=listed.filter(pc.invert(good)).sort_by("scan_uri"),
    )


def _plain(table: pa.Table) -> Iterator[_Batch]:
    rows = decoded(table, ImageSpec(side_px=SIDE_PX), block_rows=_BLOCK_ROWS)
    for batch in _tables(rows):
        pictures = grey_thumbnails(pixels_of(batch, SIDE_PX), SIDE_PX)
        yield _Batch(batch.drop_columns(["pixels"]), pictures, None)


def _embedded(table: pa.Table, model: Model, batch_size: int) -> Iterator[_Batch]:
    threads, pool = predictors(working_nodes())
    embedder: dict[str, Any] = {
        "model": model.uri,
        "digest": model.digest,
        "thumbnail_px": SIDE_PX,
        "threads": threads,
    }
    rows = decoded(table, model.image_spec).map_batches(
        Embedder,
        fn_constructor_kwargs=embedder,
        batch_format="pyarrow",
        batch_size=batch_size,
        zero_copy_batch=True,
        **pool,
    )
    for batch in _tables(rows):
        pictures = _rows_of(batch["thumbnail"], np.uint8).reshape(-1, SIDE_PX, SIDE_PX)
        scans = batch.drop_columns(["thumbnail", "features"])
        yield _Batch(scans, pictures, _rows_of(batch["features"], np.float32))


def _tables(rows: "ray.data.Dataset") -> Iterator[pa.Table]:
    yield from rows.iter_batches(batch_size=None, batch_format="pyarrow")


def _rows_of(column: pa.ChunkedArray, dtype: Any) -> NDArray[Any]:
    """Return the arrays in a binary column, without nulls, as (N, D)."""
    cells = column.drop_null().to_pylist()
    return np.frombuffer(b"".join(cells), dtype).reshape(len(cells), -1 if cells else 0)
