"""Change, mark and count the rows of a batch that a predictor scores."""

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import child, schema
from mribatch.predictions.files import first_rows
from mribatch.schema import Status

__all__ = ["progress_of", "with_values", "with_work"]


def progress_of(result: pa.Table) -> tuple[int, int]:
    """Return how many scans of a batch were scored or failed, and rejected; those left for another run are neither."""
    scans = first_rows(result)  # a file of many frames or members counts once
    rejected, left = (
        pc.sum(pc.equal(scans["status"], status)).as_py() or 0 for status in (Status.REJECTED, Status.LEFT)
    )
    return scans.num_rows - rejected - left, rejected


def with_values(table: pa.Table, **values: str | bytes | None) -> pa.Table:
    """Return a table with other values in some columns."""
    for name, value in values.items():
        field = table.schema.field(name)
        column = pa.array([value] * table.num_rows, field.type)
        table = table.set_column(table.schema.get_field_index(name), field, column)
    return table


def with_work(table: pa.Table, node: str) -> pa.Table:
    """Return a batch with what is known of the process that scored it, this one: the columns of `schema.WORK`."""
    for name, value in {"predictor_peak_bytes": child.peak_bytes(), "node": node}.items():
        table = table.append_column(schema.WORK.field(name), pa.repeat(value, table.num_rows))
    return table
