"""Read and write clusters of near copies: the clusters.parquet of an audit, or one that a command keeps for its next run."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from mribatch.errors import InputError, StorageMissing
from mribatch.stores import uris

__all__ = ["FILE", "check_covered", "keep", "kept", "read"]

FILE = "clusters.parquet"
"""The name of the file, in an audit's output and wherever a command keeps its own."""

_COLUMNS = ["content_sha256", "cluster"]
_DATA = b"mribatch.data"


def read(uri: str) -> dict[str, int]:
    """Return the cluster of each scan, by the SHA-256 of the scan's bytes.

    Raises InputError for a file that no audit wrote, StorageMissing if it does not exist.
    """
    return _clusters(_table(uri))


def kept(uri: str, data: str) -> dict[str, int] | None:
    """Return the clusters that `keep` wrote for the same data; None if there are none."""
    try:
        table = _table(uri)
    except (StorageMissing, InputError):
        return None
    return _clusters(table) if (table.schema.metadata or {}).get(_DATA) == data.encode() else None


def keep(uri: str, clusters: Mapping[str, int], data: str) -> None:
    """Write clusters, by the SHA-256 of scans' bytes. data: a digest of the scans that were compared."""
    table = pa.table([list(clusters), pa.array(clusters.values(), pa.int64())], names=_COLUMNS)
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({_DATA: data}), buffer, compression="zstd")
    uris.put(uri, buffer.getvalue().to_pybytes())


def check_covered(clusters: Mapping[str, int], scans: pa.Table, groups: str, data: str) -> None:
    """Raise InputError unless there is a cluster for each scan (scan_uri, content_sha256). groups, data: their URIs."""
    pairs = zip(scans["scan_uri"].to_pylist(), scans["content_sha256"].to_pylist(), strict=True)
    absent = sorted(uri for uri, content in pairs if content not in clusters)
    if absent:
        raise InputError(
            f"--groups {groups} lacks {len(absent):,} of the {scans.num_rows:,} scans in {data}, the first is {absent[0]}: "
            "audit exactly these scans with `mribatch audit` and pass its clusters.parquet, or leave --groups out"
        )


def _table(uri: str) -> pa.Table:
    try:
        table = pq.ParquetFile(pa.BufferReader(uris.read(uri))).read(_COLUMNS)
    except pa.ArrowException as err:
        raise _foreign(uri) from err
    if table.column_names != _COLUMNS:
        raise _foreign(uri)
    return table


def _clusters(table: pa.Table) -> dict[str, int]:
    contents: Sequence[str] = table["content_sha256"].to_pylist()
    return dict(zip(contents, table["cluster"].to_pylist(), strict=True))


def _foreign(uri: str) -> InputError:
    return InputError(
        f"{uri} is not a clusters.parquet with the columns {' and '.join(_COLUMNS)}: audit the data with this version of "
        "`mribatch audit` and pass the file from its output"
    )
