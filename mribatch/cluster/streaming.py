"""Stream the scans of a table through Ray Data, decoded, one row per frame."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from mribatch.cluster.blocks import PIXEL_BYTES, even, rows_of
from mribatch.cluster.decoding import decode_blocks
from mribatch.errors import InputError
from mribatch.scans.frames import PIECE_FRAMES
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import ONE_FRAME, Reading
from mribatch.scans.sandbox import DECODE_S
from mribatch.schema import Status
from mribatch.stores.access import Witness, witnesses

__all__ = ["DECODER_BYTES", "DECODER_CORES", "accepted", "collected", "decoded", "readable"]

log = logging.getLogger("mribatch.decoding")

DECODER_BYTES = (1 << 31) + 2 * PIXEL_BYTES
"""Memory for a scan of the largest size: MAX_MEMORY_BYTES, the two processes at rest (measured: 260 MB), and the largest
block twice: its frames and its columns. This limits the decoders that run at once to as many as fit beside the predictors.
A larger scan is rejected by its header."""

DECODER_CORES = 0.5
"""A decoder waits for the storage half of its time, and a machine with one core must still feed its predictor."""


_BLOCK_BYTES = 16 << 20
_AHEAD = 1.0  # decoded blocks that wait for a predictor, for each that it has got


def decoded(
    table: pa.Table,
    spec: ImageSpec,
    *,
    reading: Reading = ONE_FRAME,
    block_rows: int | Sequence[int] = 32,
    timeout_s: float = DECODE_S,
    over: Callable[[], bool] | None = None,
    among: Sequence[Witness] = (),
) -> "ray.data.Dataset":
    """Stream the scans of a table: its own columns, and those of `schema.decoded_fields`.

    block_rows: how many scans each block holds, in order, or one number for all. Blocks are small (32 rows of 224 px are
    5 MB), so that memory is bounded and work spreads over the nodes. A scan of many frames takes several. timeout_s
    limits the decoding of one scan, or of each PIECE_FRAMES of its frames. Blocks that start when the time is `over` are
    not read: their rows say so. The run fails with StorageDenied if access is denied to scans and also to all of `among`
    (by default some from all over the table), and with CredentialsRefused.
    """
    blocks = even(table.num_rows, block_rows) if isinstance(block_rows, int) else block_rows
    resources: dict[str, Any] = {"memory": _decoder_bytes(), "num_cpus": DECODER_CORES}
    rows = rows_of(table, blocks, **resources)
    rows.context.target_max_block_size = _block_bytes(spec, max(blocks))
    rows.context.downstream_capacity_backpressure_ratio = _AHEAD
    return rows.map_batches(
        partial(
            decode_blocks, spec=spec, reading=reading, timeout_s=timeout_s, over=over, among=among or witnesses(table)
        ),
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
        **resources,
    )


def _block_bytes(spec: ImageSpec, block_rows: int) -> int:
    """Return how large Ray may let a block grow: else it collects the frames of a scan up to 128 MB."""
    return max(_BLOCK_BYTES, 2 * max(block_rows, PIECE_FRAMES) * spec.side_px * spec.side_px * 3)


def _decoder_bytes() -> int:
    """Return the memory to reserve for a decoder: DECODER_BYTES, or all of the smallest node if that has less."""
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    return int(min([DECODER_BYTES, *(node["memory"] for node in nodes if "memory" in node)]))


def readable(
    rows: "ray.data.Dataset", max_reject_rate: float, advance: Callable[[int], object] = lambda _: None
) -> pa.Table:
    """Return all decoded rows that are ok, sorted by scan_uri. Raises InputError if too large a share is unreadable.

    Skipped scans are left out and count as neither. advance: called with the rows of each block as it arrives.
    """
    return accepted(collected(rows, advance).sort_by("scan_uri"), max_reject_rate)


def collected(rows: "ray.data.Dataset", advance: Callable[[int], object] = lambda _: None) -> pa.Table:
    """Return all rows. advance: called with the rows of each block as it arrives."""
    blocks: list[pa.Table] = []
    block: pa.Table
    for block in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
        blocks.append(block)
        advance(block.num_rows)
    return pa.concat_tables(blocks)


def accepted(table: pa.Table, max_reject_rate: float) -> pa.Table:
    """Return the decoded rows that are ok, and warn of the others. Raises as `readable`."""
    good, skipped = (table.filter(pc.equal(table["status"], status)) for status in (Status.OK, Status.SKIPPED))
    if skipped.num_rows:
        log.warning("%d of %d scans are skipped: %s", skipped.num_rows, table.num_rows, _counted(skipped["reason"]))
    lost = table.filter(pc.invert(pc.is_in(table["status"], pa.array([Status.OK, Status.SKIPPED], pa.string()))))
    if lost.num_rows:
        reasons = _counted(pc.if_else(pc.equal(lost["status"], Status.FAILED), lost["detail"], lost["reason"]))
        log.warning("%d of %d scans are left out: %s", lost.num_rows, table.num_rows, reasons)
        if lost.num_rows > max_reject_rate * (table.num_rows - skipped.num_rows):
            raise InputError(
                f"{lost.num_rows} of {table.num_rows} scans are unreadable ({reasons}), more than "
                f"--max-reject-rate {max_reject_rate}: repair the data or raise the rate"
            )
    return good


def _counted(column: pa.ChunkedArray) -> str:
    return ", ".join(f"{count['counts']} {count['values']}" for count in column.value_counts().to_pylist())
