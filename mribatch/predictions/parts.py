"""Name, read and replace the Parquet parts of a model in an output."""

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from mribatch import schema
from mribatch.errors import RunFailed, StorageMissing
from mribatch.schema import Reason
from mribatch.stores import uris

__all__ = [
    "codes",
    "digests",
    "labels",
    "model_folder",
    "part_names",
    "part_rows",
    "predictions",
    "read_each",
    "read_parts",
    "replace",
    "was_gone",
]

_READERS = 16  # parts read at once: S3 answers slowly, and to many at a time
_TRIES = 5  # at reading an output whose parts are being rewritten
_REWRITTEN = "part-0-"


def model_folder(output: str, digest: str) -> str:
    """Return the folder of a model's parts."""
    return uris.join(output, f"model={digest}")


def digests(output: str) -> list[str]:
    """Return the digests of the models that an output has rows of."""
    return [name.removeprefix("model=") for name in uris.folders(output) if name.startswith("model=")]


def part_names(output: str, digest: str) -> list[str]:
    """Return the sorted names of all visible parts."""
    return [name for name in uris.names(model_folder(output, digest), "part-") if name.endswith(".parquet")]


def labels(output: str, digest: str) -> list[str]:
    """Return the labels of a model, in its order, from its first part; none without parts."""
    prefix = schema.probability_column("")
    columns = read_parts(output, digest, part_names(output, digest)[:1]).column_names
    return [name.removeprefix(prefix) for name in columns if name.startswith(prefix)]


def part_rows(name: str) -> int:
    """Return the number of rows of a part from its name, part-<run>-<hash>-<rows>.parquet."""
    rows = name.removesuffix(".parquet").rpartition("-")[2]
    return int(rows) if rows.isdecimal() else 0


def predictions(output: str, digest: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return all rows of one model, or some columns of them. Without parts there are no rows and no p_<label> columns.

    Reads again if parts were rewritten meanwhile.
    """
    for _ in range(_TRIES):
        names = part_names(output, digest)
        try:
            rows = read_parts(output, digest, names, columns)
        except StorageMissing:
            continue  # a listed part has been merged into another one
        if not any(name.startswith(_REWRITTEN) for name in set(part_names(output, digest)) - set(names)):
            return rows
    return read_parts(output, digest, part_names(output, digest), columns)


def read_parts(output: str, digest: str, names: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Return all rows of some parts, or some columns of them; see `predictions`."""
    if not names:
        empty = schema.prediction_schema(()).empty_table()
        return empty if columns is None else empty.select([name for name in columns if name in empty.column_names])
    return pa.concat_tables(read_each(output, digest, names, columns), promote_options="default")


def read_each(output: str, digest: str, names: Sequence[str], columns: Sequence[str] | None) -> list[pa.Table]:
    """Return the rows of some parts, part by part. Columns that parts of an older version lack are null.

    Raises StorageMissing, and RunFailed for a part that is not Parquet.
    """
    folder = model_folder(output, digest)

    def read(name: str) -> pa.Table:
        data = uris.read(uris.join(folder, name))
        try:
            file = pyarrow.parquet.ParquetFile(pa.BufferReader(data))
            stored = columns and [column for column in columns if column in file.schema_arrow.names]
            return schema.upgraded(file.read(stored, use_threads=False), columns)
        except (pa.ArrowException, OSError, KeyError) as err:
            cause = " ".join(str(err).split())
            remedy = "remove it, and its scans are scored again"
            raise RunFailed(f"the part {name} in {folder} could not be read ({cause}): {remedy}") from err

    with ThreadPoolExecutor(_READERS) as threads:
        return list(threads.map(read, names))


def codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a number for each row, equal for equal values."""
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64)


def was_gone(rows: pa.Table) -> pa.ChunkedArray:
    """Return for each row whether it says only that its scan had vanished or changed before it could be read."""
    return pc.is_in(rows["reason"], pa.array([Reason.VANISHED, Reason.CHANGED], pa.string()))


def replace(output: str, digest: str, old: Sequence[str], rows: pa.Table, check: Callable[[], None]) -> None:
    """Replace some parts by one with these rows, which is written before the old ones are deleted.

    `check` is called before anything is made visible or deleted.
    """
    new = _put(output, digest, rows, check) if rows.num_rows else None
    for name in old:
        check()
        if name != new:
            uris.delete(uris.join(model_folder(output, digest), name))


def _put(output: str, digest: str, rows: pa.Table, check: Callable[[], None]) -> str:
    rows = rows.sort_by([(name, "ascending") for name in schema.KEY])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(rows, buffer, compression="zstd")
    names = (rows[name].to_pylist() for name in (*schema.KEY, "run_id"))
    key = hashlib.sha256(repr(list(zip(*names, strict=True))).encode()).hexdigest()[:12]
    part = f"{_REWRITTEN}{key}-{rows.num_rows}.parquet"
    check()
    uri = uris.join(model_folder(output, digest), part)
    uris.put(uri, buffer.getvalue())
    if not read_parts(output, digest, [part]).equals(rows):
        raise RunFailed(f"{uri} does not contain the rows written to it: check the storage; nothing was deleted")
    return part
