"""Scans, labelled or not, into tables of names and from there into Ray Datasets of decoded rows.

What a row holds is `schema`'s; how bytes become pixels is `scans`'; what is left to do is `ledger`'s; where labels
come from is `_labels`'.
"""

import hashlib
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import ray
import ray.data

from mribatch import schema
from mribatch.errors import DecoderLost, InputError, ScanChanged, ScanVanished, StorageError
from mribatch.scans.images import Decoded, ImageSpec
from mribatch.schema import Reason, Status
from mribatch.storage import uris
from mribatch.storage._decoder import DECODE_S, Decoder, decoder
from mribatch.storage._labels import LABELLED, labelled

__all__ = ["LABELLED", "contents", "decode_table", "decoded", "labelled", "listing"]

DECODER_BYTES = 1 << 31
"""What a scan of the largest size takes: MAX_MEMORY_BYTES, and the two processes at rest (measured: 260 MB). So few
decoders run at once that all fit, apart from the predictors. A scan that would take more is rejected by its header."""

DECODER_CORES = 0.5
"""Half of its time a decoder waits for the storage; a machine of one core can still feed its predictor."""

_READERS = 16  # scans read at once where only their bytes count


def listing(inputs: Sequence[str], without: str | None = None) -> pa.Table:
    """The scans at some folders, files, globs or prefixes, as the schema `PLAN`, sorted, each once.

    `without` is a folder whose files are no scans, such as an output that stands inside an input. Raises
    StorageMissing, StorageDenied, StorageUnavailable; InputError where there is no scan at all.
    """
    apart = None if without is None else uris.absolute(without)
    entries = (entry for uri in inputs for entry in uris.walk(uri))
    found = {entry.uri: entry.version for entry in entries if apart is None or not uris.is_below(entry.uri, apart)}
    if not found:
        raise InputError(f"no scans in {', '.join(inputs)}: expected a folder or prefix with at least one file")
    names = sorted(found)
    return pa.table([names, [found[name] for name in names]], schema=schema.PLAN)


def contents(listed: pa.Table) -> set[str]:
    """The SHA-256 of the bytes of each scan of a listing, as `content_sha256` has it."""
    with ThreadPoolExecutor(_READERS) as threads:
        return set(threads.map(lambda uri: hashlib.sha256(uris.read(uri)).hexdigest(), listed["scan_uri"].to_pylist()))


def decoded(
    table: pa.Table,
    spec: ImageSpec,
    *,
    block_rows: int = 32,
    timeout_s: float = DECODE_S,
    over: Callable[[], bool] | None = None,
) -> "ray.data.Dataset":
    """Stream the scans of a table: its own columns, and those of `schema.decoded_fields`. One row per row.

    Blocks are small (32 rows of 224 px are 5 MB), so that memory is bounded and work spreads over the nodes.
    timeout_s is what a scan may take to decode. Blocks that begin when the time is `over` are not read: their rows say so.
    """
    slices = [table.slice(at, block_rows) for at in range(0, table.num_rows, block_rows)]
    return ray.data.from_arrow([s.combine_chunks() for s in slices]).map_batches(
        partial(decode_table, spec=spec, timeout_s=timeout_s, over=over),
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
        memory=_decoder_bytes(),
        num_cpus=DECODER_CORES,
    )


def _decoder_bytes() -> int:
    """What is reserved for a decoder: on a node with less memory than the largest scan takes, all of it."""
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    return int(min([DECODER_BYTES, *(node["memory"] for node in nodes if "memory" in node)]))


def decode_table(
    table: pa.Table, *, spec: ImageSpec, timeout_s: float = DECODE_S, over: Callable[[], bool] | None = None
) -> pa.Table:
    """Read and decode each scan of a block. A scan that cannot be read or decoded keeps its row, with the reason."""
    if over is not None and over():
        rows, peak = [Decoded(status=Status.LEFT)] * table.num_rows, 0
    else:
        keys = zip(table["scan_uri"].to_pylist(), table["scan_version"].to_pylist(), strict=True)
        by = decoder(spec, timeout_s)
        uris.trust(table["scan_uri"].to_pylist())
        rows = [_decode_one(uri, version, spec, by) for uri, version in keys]
        peak = _peak_bytes(by)
    fields = schema.decoded_fields(spec.side_px)
    columns = [_column(rows, field, peak) for field in fields]
    return pa.table([*table.columns, *columns], schema=pa.schema([*table.schema, *fields]))


def _decode_one(uri: str, version: str, spec: ImageSpec, by: Decoder) -> Decoded:
    size = uris.size(uri, version)
    if size > spec.max_bytes:  # it may not even fit into memory
        detail = f"{size} bytes exceed the cap of {spec.max_bytes}"
        return Decoded(status=Status.REJECTED, reason=Reason.TOO_LARGE, detail=detail)
    try:
        return by.decode(uris.read_version(uri, version))
    except ScanVanished as err:
        if uris.is_s3(uri) or uris.names(uris.parent(uri)):
            return _without_bytes(Status.REJECTED, Reason.VANISHED, err)
        return _without_bytes(Status.FAILED, Reason.UNREADABLE, err)  # an empty folder: is its disk mounted here?
    except ScanChanged as err:
        return _without_bytes(Status.REJECTED, Reason.CHANGED, err)
    except (StorageError, DecoderLost, MemoryError) as err:
        return _without_bytes(Status.FAILED, Reason.UNREADABLE, err)


def _without_bytes(status: Status, reason: Reason, err: Exception) -> Decoded:
    return Decoded(status=status, reason=reason, detail=type(err).__name__)


def _peak_bytes(by: Decoder) -> int:
    """The most memory that this process and its decoder have had."""
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) + by.peak_bytes()


def _column(rows: Sequence[Decoded], field: pa.Field, peak_bytes: int) -> pa.Array:
    if field.name in ("frame", "decoder_peak_bytes"):
        return pa.array([0 if field.name == "frame" else peak_bytes] * len(rows), field.type)
    if field.name == "pixels":
        return pa.array([None if r.pixels is None else r.pixels.data.cast("B") for r in rows], field.type)
    return pa.array([getattr(r, field.name) for r in rows], field.type)
