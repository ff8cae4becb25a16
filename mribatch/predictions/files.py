"""Judge the rows of files: which are done under a reading, and how a file of many frames or members ended."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mribatch.predictions.parts import codes
from mribatch.scans.formats import UNKNOWN
from mribatch.schema import Status

__all__ = ["file_uris", "first_rows", "is_done", "of_files", "of_listing", "outcomes"]

_OUTCOMES = (Status.OK, Status.REJECTED, Status.SKIPPED)  # the first that a frame has is the file's


def file_uris(rows: pa.Table) -> pa.ChunkedArray:
    """Return the file of each row, which is what a plan has: the scan, or the archive of which it is a member."""
    return pc.coalesce(rows["container"], rows["scan_uri"]) if "container" in rows.column_names else rows["scan_uri"]


def of_files(rows: pa.Table) -> pa.Table:
    """Return rows with the URI of their file in place of that of their scan."""
    index = rows.schema.get_field_index("scan_uri")
    return rows.set_column(index, rows.schema.field(index), file_uris(rows))


def of_listing(rows: pa.Table, listing: pa.Table) -> pa.Table:
    """Return the rows of the files of a listing, each with the listing's columns that it lacks.

    listing: URI and version, as in a plan, and further columns. Rows of other versions are left out.
    """
    named = listing.rename_columns(["file" if name == "scan_uri" else name for name in listing.column_names])
    rows = rows.append_column("file", file_uris(rows))
    return rows.join(named, keys=["file", "scan_version"], join_type="inner").drop_columns(["file"])


def first_rows(rows: pa.Table) -> pa.Table:
    """Return those rows that are the first of their file."""
    is_first = pc.equal(rows["frame"], 0)
    if "member" in rows.column_names:
        is_first = pc.and_(is_first, pc.equal(pc.fill_null(rows["member"], 0), 0))
    return rows.filter(is_first)


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
    scan = [codes(file_uris(rows)), codes(rows["scan_version"])]
    order = np.lexsort((codes(rows["frame"]), rank, *scan))
    if not len(order):
        return rows
    ordered = np.stack(scan)[:, order]
    first = np.r_[True, (np.diff(ordered) != 0).any(axis=0)]
    return rows.take(pa.array(np.sort(order[first])))
