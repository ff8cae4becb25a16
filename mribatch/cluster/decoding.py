"""Read and decode the scans of a table, one row per frame."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from mribatch import child, schema
from mribatch.causes import cause
from mribatch.errors import (
    ConfigError,
    CredentialsRefused,
    DecoderLost,
    MribatchError,
    ScanChanged,
    ScanVanished,
    StorageDenied,
    StorageError,
)
from mribatch.scans.frames import PIECE_FRAMES, Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import ONE_FRAME, Reading
from mribatch.scans.sandbox import DECODE_S, Decoder, decoder
from mribatch.schema import Reason, Status
from mribatch.sources.listing import keys_of
from mribatch.stores import uris
from mribatch.stores.access import Access, Witness

__all__ = ["decode_blocks", "decode_table"]

_ASK_S = 1.0
_LEFT = Frame(status=Status.LEFT)
_FAULTS = (DecoderLost, MemoryError)
"""The machine's fault, also in the middle of a scan: it fails and is planned again."""

denials = Access()  # of this process, over all blocks


def decode_table(table: pa.Table, **settings: Any) -> pa.Table:
    """Return all rows of `decode_blocks` at once."""
    return pa.concat_tables(decode_blocks(table, **settings))


def decode_blocks(
    table: pa.Table,
    *,
    spec: ImageSpec,
    reading: Reading = ONE_FRAME,
    timeout_s: float = DECODE_S,
    over: Callable[[], bool] | None = None,
    among: Sequence[Witness] = (),
) -> Iterator[pa.Table]:
    """Read and decode each scan of a block, one row per frame, and yield the rows in blocks of about the same size.

    A scan that cannot be read or decoded has one row, with the reason. An unforeseen error, even a bug in this program,
    fails only the scan that raises it. over: asked before a scan, but once a second at most; scans after that are left.
    """
    by, is_over = decoder(spec, timeout_s, reading), _seldom(over or (lambda: False))
    uris.trust(table["scan_uri"].to_pylist())
    most, is_empty = max(table.num_rows, PIECE_FRAMES), True
    rows: list[tuple[int, Frame]] = []
    for number, (uri, version) in enumerate(keys_of(table)):
        for piece in [[_LEFT]] if is_over() else _guarded(partial(_decode_one, uri, version, spec, by, among)):
            rows += [(number, frame) for frame in piece]
            if len(rows) >= most:
                block, rows, is_empty = _block(table, rows, spec, by), [], False  # frees the frames before it waits
                yield block
    if rows or is_empty:
        yield _block(table, rows, spec, by)


def _seldom(is_over: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that asks at most once a second, until the answer is yes."""
    asked_at, answer = -math.inf, False

    def ask() -> bool:
        nonlocal asked_at, answer
        now = time.monotonic()
        if not answer and now >= asked_at + _ASK_S:
            asked_at, answer = now, is_over()
        return answer

    return ask


def _block(table: pa.Table, rows: Sequence[tuple[int, Frame]], spec: ImageSpec, by: Decoder) -> pa.Table:
    """Return the rows of some frames, each with the number of its file in the table."""
    fields = schema.decoded_fields(spec.side_px)
    frames = [frame for _, frame in rows]
    files = table.take(pa.array([number for number, _ in rows], pa.int64()))
    names = files["scan_uri"].to_pylist()
    peak = child.peak_bytes() + by.peak_bytes()
    try:
        columns = _columns(frames, names, fields, peak)
    except Exception:  # a row does not fit its columns: find out which
        frames = [_fitting(frame, fields) for frame in frames]
        columns = _columns(frames, names, fields, peak)
    scans = [_scan_uri(name, frame) for name, frame in zip(names, frames, strict=True)]
    files = files.set_column(
        table.schema.get_field_index("scan_uri"), table.schema.field("scan_uri"), pa.array(scans, pa.string())
    )
    return pa.table([*files.columns, *columns], schema=pa.schema([*table.schema, *fields]))


def _scan_uri(file_uri: str, frame: Frame) -> str:
    return file_uri if frame.name is None else f"{file_uri}!{frame.name}"


def _guarded(decode: Callable[[], Iterator[list[Frame]]]) -> Iterator[list[Frame]]:
    """Decode one scan. An unforeseen error fails that scan; a MribatchError that `_decode_one` raises ends the run."""
    done, count = 0, 1
    try:
        for piece in decode():
            yield piece
            is_archive = piece[-1].members is not None  # fails as a file: one row of that is enough
            done, count = (0, 1) if is_archive else (done + len(piece), piece[-1].frames)
    except _FAULTS as err:
        fault = Frame(status=Status.FAILED, reason=Reason.UNREADABLE, detail=_detail(err))
    except MribatchError:
        raise
    except Exception as err:
        fault = Frame(status=Status.FAILED, reason=Reason.UNFORESEEN, detail=cause(err))
    else:
        return
    yield [replace(fault, frame=number, frames=count) for number in range(done, max(count, done + 1))]


def _fitting(frame: Frame, fields: Sequence[pa.Field]) -> Frame:
    """Return a frame that fits its columns: a failed one in place of one that does not."""
    try:
        _columns([frame], [""], fields, 0)
    except Exception as err:
        failed = Frame(status=Status.FAILED, reason=Reason.UNFORESEEN, detail=cause(err))
        return replace(failed, frame=frame.frame, frames=frame.frames)
    return frame


def _decode_one(
    uri: str, version: str, spec: ImageSpec, by: Decoder, among: Sequence[Witness]
) -> Iterator[list[Frame]]:
    size = uris.size(uri, version)
    if size > spec.max_bytes:  # it might not fit into memory
        detail = f"{size} bytes exceed the cap of {spec.max_bytes}"
        yield [Frame(status=Status.REJECTED, reason=Reason.TOO_LARGE, detail=detail)]
        return
    try:
        data = uris.read_version(uri, version)
        denials.granted()
    except CredentialsRefused:
        raise  # not the scan's fault, and all others would fail too
    except StorageDenied as err:
        denials.denied(err, among)
        yield _without_bytes(Status.FAILED, Reason.UNREADABLE, err)
    except ScanVanished as err:
        is_gone = uris.is_s3(uri) or bool(uris.names(uris.parent(uri)))
        empty = StorageError(detail="its folder is empty: is its disk mounted?")
        yield (
            _without_bytes(Status.REJECTED, Reason.VANISHED, err)
            if is_gone
            else _without_bytes(Status.FAILED, Reason.UNREADABLE, empty)
        )
    except ScanChanged as err:
        yield _without_bytes(Status.REJECTED, Reason.CHANGED, err)
    except (StorageError, ConfigError) as err:
        yield _without_bytes(Status.FAILED, Reason.UNREADABLE, err)
    else:
        yield from by.pieces(data)


def _without_bytes(status: Status, reason: Reason, err: Exception) -> list[Frame]:
    return [Frame(status=status, reason=reason, detail=_detail(err))]


def _detail(err: Exception) -> str:
    """Return the cause in a few words, without paths."""
    if isinstance(err, ScanVanished | ScanChanged):
        return str(err)
    if isinstance(err, MemoryError):
        return "out of memory"
    return getattr(err, "detail", "") or type(err).__name__


def _columns(
    frames: Sequence[Frame], files: Sequence[str], fields: Sequence[pa.Field], peak_bytes: int
) -> list[pa.Array]:
    """Return the columns of `schema.decoded_fields` for some frames of files with these URIs."""
    derived = {
        # bytes: PyArrow 26 keeps the array behind a memoryview for ever
        "pixels": [None if frame.pixels is None else frame.pixels.tobytes() for frame in frames],
        "decoder_peak_bytes": [peak_bytes] * len(frames),
        "container": [None if frame.name is None else file for frame, file in zip(frames, files, strict=True)],
    }
    return [
        pa.array(derived.get(field.name) or [getattr(frame, field.name) for frame in frames], field.type)
        for field in fields
    ]
