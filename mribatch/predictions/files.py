"""Judge the rows of files: which are done under a reading, and how a file of many frames ended."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.predictions.parts import codes
from mribatch.scans.formats import UNKNOWN
from mribatch.schema import Status

__all__ = ["is_done", "outcomes"]

_OUTCOMES = (Status.OK, Status.REJECTED, Status.SKIPPED)  # the first that a frame has is the file's


def is_done(rows: pa.Table, readings: Collection[str] | None) -> pa.ChunkedArray:
    """Return for each row whether a run with these readings would give it again. None takes every row as it is.

    Rows without a reading depend on none, except those of a version that had no readings: files whose format it did not
    know may have become readable.
    """
    if readings is None:
        return pa.chunked_array([pa.repeat(True, rows.num_rows)])
    current = pc.is_in(rows["reading"], pa.array(sorted(readings), pa.string()))
    was_unknown = pc.is_in(rows["reason"], pa.array(sorted(UNKNOWN), pa.string()))
    return pc.or_(current, pc.and_(pc.is_null(rows["reading"]), pc.invert(was_unknown)))


def outcomes(rows: pa.Table) -> pa.Table:
    """Return one row for each file: ok if a frame is, else rejected if a frame is, else skipped."""
    rank = pc.index_in(rows["status"], pa.array(_OUTCOMES, pa.string())).to_numpy()
    scan = [codes(rows[name]) for name in schema.PLAN.names]
    order = np.lexsort((codes(rows["frame"]), rank, *scan))
    if not len(order):
        return rows
    ordered = np.stack(scan)[:, order]
    first = np.r_[True, (np.diff(ordered) != 0).any(axis=0)]
    return rows.take(pa.array(np.sort(order[first])))
