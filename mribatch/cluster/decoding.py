"""Read and decode the scans of a table as a Ray Dataset, one row per scan."""

import logging
import resource
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from mribatch import schema
from mribatch.causes import cause
from mribatch.errors import (
    ConfigError,
    CredentialsRefused,
    DecoderLost,
    InputError,
    MribatchError,
    ScanChanged,
    ScanVanished,
    StorageDenied,
    StorageError,
)
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.sandbox import DECODE_S, Decoder, decoder
from mribatch.schema import Reason, Status
from mribatch.sources.listing import keys_of
from mribatch.stores import uris
from mribatch.stores.access import Access, Witness, witnesses

__all__ = ["decode_table", "decoded", "readable"]

log = logging.getLogger("mribatch.decoding")

DECODER_BYTES = 1 << 31
"""Memory for a scan of the largest size: MAX_MEMORY_BYTES, and the two processes at rest (measured: 260 MB). This limits the
decoders that run at once to as many as fit beside the predictors. A larger scan is rejected by its header."""

DECODER_CORES = 0.5
"""A decoder waits for the storage half of its time, and a machine with one core must still feed its predictor."""


denials = Access()  # of this process, over all blocks


def decoded(
    table: pa.Table,
    spec: ImageSpec,
    *,
    block_rows: int = 32,
    timeout_s: float = DECODE_S,
    over: Callable[[], bool] | None = None,
    among: Sequence[Witness] = (),
) -> "ray.data.Dataset":
    """Stream the scans of a table: its own columns, and those of `schema.decoded_fields`.

    Blocks are small (32 rows of 224 px are 5 MB), so that memory is bounded and work spreads over the nodes.
    timeout_s limits the decoding of one scan. Blocks that start when the time is `over` are not read: their rows say so.
    The run fails with StorageDenied if access is denied to scans and also to all of `among` (by default some from all over
    the table), and with CredentialsRefused.
    """
    slices = [table.slice(at, block_rows) for at in range(0, table.num_rows, block_rows)]
    return ray.data.from_arrow([s.combine_chunks() for s in slices]).map_batches(
        partial(decode_table, spec=spec, timeout_s=timeout_s, over=over, among=among or witnesses(table)),
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
        memory=_decoder_bytes(),
        num_cpus=DECODER_CORES,
    )


def _decoder_bytes() -> int:
    """Return the memory to reserve for a decoder: DECODER_BYTES, or all of the smallest node if that has less."""
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    return int(min([DECODER_BYTES, *(node["memory"] for node in nodes if "memory" in node)]))


def decode_table(
    table: pa.Table,
    *,
    spec: ImageSpec,
    timeout_s: float = DECODE_S,
    over: Callable[[], bool] | None = None,
    among: Sequence[Witness] = (),
) -> pa.Table:
    """Read and decode each scan of a block, one row per frame. A scan that cannot be read or decoded has one row, with the reason.

    An unforeseen error, even a bug in this program, fails only the scan that raises it.
    """
    if over is not None and over():
        scans, peak = [[Frame(status=Status.LEFT)]] * table.num_rows, 0
    else:
        by = decoder(spec, timeout_s)
        uris.trust(table["scan_uri"].to_pylist())
        scans = [_guarded(partial(_decode_one, uri, version, spec, by, among)) for uri, version in keys_of(table)]
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) + by.peak_bytes()
    fields = schema.decoded_fields(spec.side_px)
    try:
        columns = _columns(scans, fields, peak)
    except Exception:  # a row does not fit its columns: find out which
        scans = [_guarded(partial(_fitting, frames, fields)) for frames in scans]
        columns = _columns(scans, fields, peak)
    if any(len(frames) != 1 for frames in scans):
        table = table.take(np.repeat(np.arange(len(scans)), [len(frames) for frames in scans]))
    return pa.table([*table.columns, *columns], schema=pa.schema([*table.schema, *fields]))


def _guarded(decode: Callable[[], list[Frame]]) -> list[Frame]:
    """Decode one scan. An unforeseen error fails that scan; a MribatchError that `_decode_one` raises ends the run."""
    try:
        return decode()
    except MribatchError:
        raise
    except Exception as err:
        return [Frame(status=Status.FAILED, reason=Reason.UNFORESEEN, detail=cause(err))]


def _fitting(frames: list[Frame], fields: Sequence[pa.Field]) -> list[Frame]:
    """Return frames that fit their columns. Raises what Arrow raises for those that do not."""
    _columns([frames], fields, 0)
    return frames


def _decode_one(uri: str, version: str, spec: ImageSpec, by: Decoder, among: Sequence[Witness]) -> list[Frame]:
    size = uris.size(uri, version)
    if size > spec.max_bytes:  # it might not fit into memory
        detail = f"{size} bytes exceed the cap of {spec.max_bytes}"
        return [Frame(status=Status.REJECTED, reason=Reason.TOO_LARGE, detail=detail)]
    try:
        data = uris.read_version(uri, version)
        denials.granted()
        return by.decode(data)
    except CredentialsRefused:
        raise  # not the scan's fault, and all others would fail too
    except StorageDenied as err:
        denials.denied(err, among)
        return _without_bytes(Status.FAILED, Reason.UNREADABLE, err)
    except ScanVanished as err:
        if uris.is_s3(uri) or uris.names(uris.parent(uri)):
            return _without_bytes(Status.REJECTED, Reason.VANISHED, err)
        empty = StorageError(detail="its folder is empty: is its disk mounted?")
        return _without_bytes(Status.FAILED, Reason.UNREADABLE, empty)
    except ScanChanged as err:
        return _without_bytes(Status.REJECTED, Reason.CHANGED, err)
    except (StorageError, ConfigError, DecoderLost, MemoryError) as err:
        return _without_bytes(Status.FAILED, Reason.UNREADABLE, err)


def _without_bytes(status: Status, reason: Reason, err: Exception) -> list[Frame]:
    return [Frame(status=status, reason=reason, detail=_detail(err))]


def _detail(err: Exception) -> str:
    """Return the cause in a few words, without paths."""
    if isinstance(err, ScanVanished | ScanChanged):
        return str(err)
    if isinstance(err, MemoryError):
        return "out of memory"
    return getattr(err, "detail", "") or type(err).__name__


def _columns(scans: Sequence[Sequence[Frame]], fields: Sequence[pa.Field], peak_bytes: int) -> list[pa.Array]:
    """Return the columns of `schema.decoded_fields` for the frames of some scans."""
    frames = [frame for scan in scans for frame in scan]
    derived = {
        "frame": [number for scan in scans for number in range(len(scan))],
        "pixels": [None if frame.pixels is None else frame.pixels.data.cast("B") for frame in frames],
        "decoder_peak_bytes": [peak_bytes] * len(frames),
    }
    return [
        pa.array(derived.get(field.name) or [getattr(frame, field.name) for frame in frames], field.type)
        for field in fields
    ]


def readable(
    rows: "ray.data.Dataset", max_reject_rate: float, advance: Callable[[int], object] = lambda _: None
) -> pa.Table:
    """Return all decoded rows that are ok, sorted by scan_uri. Raises InputError if too large a share is not.

    advance: called with the rows of each block as it arrives.
    """
    blocks: list[pa.Table] = []
    block: pa.Table
    for block in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
        blocks.append(block)
        advance(block.num_rows)
    table = pa.concat_tables(blocks).sort_by("scan_uri")
    good = table.filter(pc.equal(table["status"], Status.OK))
    lost = table.filter(pc.not_equal(table["status"], Status.OK))
    if lost.num_rows:
        failed = pc.equal(lost["status"], Status.FAILED)
        counts = pc.if_else(failed, lost["detail"], lost["reason"]).value_counts().to_pylist()
        reasons = ", ".join(f"{count['counts']} {count['values']}" for count in counts)
        log.warning("%d of %d scans are left out: %s", lost.num_rows, table.num_rows, reasons)
        if lost.num_rows > max_reject_rate * table.num_rows:
            raise InputError(
                f"{lost.num_rows} of {table.num_rows} scans are unreadable ({reasons}), more than "
                f"--max-reject-rate {max_reject_rate}: repair the data or raise the rate"
            )
    return good
