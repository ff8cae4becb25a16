"""Query an output over all its models and runs: which scans are due and why, each scan's newest row, the last listing.

Reads the parts. Writes OUTPUT/_runs/seen, a Parquet file with the columns of LAST_LISTED, and
OUTPUT/_runs/<run_id>.night, which later nights are compared with.
"""

import io
import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from mribatch import schema
from mribatch.errors import RunFailed, StorageMissing
from mribatch.predictions import ledger
from mribatch.predictions.files import file_uris, of_files
from mribatch.predictions.lock import RUNS
from mribatch.predictions.parts import codes, was_gone
from mribatch.stores import uris

__all__ = [
    "BACKFILL",
    "DUE",
    "INTERRUPTED",
    "backlog",
    "last_listing",
    "last_model",
    "mark_reported",
    "newest",
    "nights",
    "predictions",
    "record_listing",
    "remember_night",
    "runs",
    "unreported",
]

NEW, CHANGED, BACKFILL = "new", "changed", "backfill"

DUE = (NEW, CHANGED, BACKFILL)
"""Why a scan is due, in the order of scoring: it has no row; rows of other versions only; rows of other models only."""

INTERRUPTED = "interrupted"
"""Why a scan is reported though it was not due: a run scored it, was interrupted, and no report has included it."""

_GONE_AT = "gone_at"
_LISTED = pa.schema([*schema.LAST_LISTED, pa.field(_GONE_AT, schema.LAST_LISTED.field("seen_at").type)])
_NIGHT = ".night"
_RECORD = ".json"
_MODEL = b"mribatch.model"
_REPORTED = ".told"
_RUN_OF_PART = re.compile(r"part-([0-9]{8}T[0-9]{6}Z-[0-9a-f]{6})-")
_TIMES = (*schema.PLAN.names, "container", "scored_at")


def predictions(output: str, digest: str | None = None) -> pa.Table:
    """Return all rows of one model or of all models. Columns p_<label> that a model does not have are null."""
    models = ledger.digests(output) if digest is None else [digest]
    tables = [ledger.predictions(output, name) for name in models]
    return pa.concat_tables([schema.prediction_schema(()).empty_table(), *tables], promote_options="default")


def backlog(todo: pa.Table, output: str) -> pa.Table:
    """Return the scans to score (schema PLAN) in the order of scoring, with the column `due`: one of DUE.

    New scans come first, then changed ones, then those that another model has scored in this version, the oldest
    prediction first.
    """
    fields = pa.schema([schema.prediction_schema(()).field(name) for name in _TIMES])
    tables = [ledger.predictions(output, digest, _TIMES).cast(fields) for digest in ledger.digests(output)]
    known = of_files(pa.concat_tables([fields.empty_table(), *tables]))
    versions = known.group_by(schema.PLAN.names).aggregate([("scored_at", "max")])
    scans = known.group_by("scan_uri").aggregate([([], "count_all")])
    table = todo.join(versions, keys=schema.PLAN.names).join(scans, keys="scan_uri")
    of_version, of_scan = pc.is_valid(table["scored_at_max"]), pc.is_valid(table["count_all"])
    rank = pc.if_else(of_version, 2, pc.if_else(of_scan, 1, 0))
    order = [(name, "ascending") for name in ("rank", "scored_at_max", "scan_uri")]
    table = table.append_column("rank", rank).sort_by(order)
    due = pa.array(DUE).take(table["rank"].combine_chunks())
    return table.select(schema.PLAN.names).cast(schema.PLAN).append_column("due", due)


def newest(rows: pa.Table, listed: pa.Table | None = None) -> pa.Table:
    """Return the newest rows of each file: those scored last among rows of the version listed last.

    listed: from `last_listing`. A scan that was never listed, or has no row of the version listed last, keeps the rows
    scored last. A row that says only that the scan had vanished or changed gives way to any other. Duplicates, which
    exist for a moment during a compaction, are dropped.
    """
    if not rows.num_rows:
        return rows
    names = ("scan_uri", "scan_version", "model_digest", "frame")
    scan, version, model, frame = (codes(rows[name]) for name in names)
    file = codes(file_uris(rows))
    at = rows["scored_at"].cast(pa.int64()).to_numpy()
    vanished = was_gone(rows).to_numpy()
    order = np.lexsort((frame, model, -at, ~_is_listed(rows, listed), vanished, file))
    first = np.r_[True, np.diff(file[order]) != 0]
    winner = order[first][np.cumsum(first) - 1]  # for each row in order, the best row of its file
    reading = codes(rows["reading"].fill_null("")) if "reading" in rows.column_names else np.zeros(len(order), int)
    if "container" in rows.column_names:  # the members of an archive have several
        reading = np.where(rows["container"].is_valid().to_numpy(), -1, reading)
    kept = order[np.logical_and.reduce([part[order] == part[winner] for part in (version, model, reading)])]
    kept = kept[np.lexsort((frame[kept], scan[kept]))]
    double = np.r_[False, (np.diff(scan[kept]) == 0) & (np.diff(frame[kept]) == 0)]
    return rows.take(np.sort(kept[~double]))


def last_listing(output: str) -> pa.Table:
    """Return the version and time of each scan's last listing (schema LAST_LISTED); empty before the first night.

    The metadata names that night's model, see `last_model`.
    """
    return _listed_with_gone(output).select(schema.LAST_LISTED.names)


def _listed_with_gone(output: str) -> pa.Table:
    """Return `last_listing` and when a night first missed each scan: null if listed, or covered by no night since."""
    uri = _listing_uri(output)
    try:
        data = uris.read(uri)
    except StorageMissing:
        return _LISTED.empty_table()
    try:
        table = pyarrow.parquet.ParquetFile(pa.BufferReader(data)).read()
        if _GONE_AT in table.column_names:
            return table
        # A file of an earlier version: scans that the last night did not list have been counted.
        last = pc.max(table["seen_at"])
        gone_at = pc.if_else(pc.less(table["seen_at"], last), last, pa.scalar(None, table["seen_at"].type))
        return table.append_column(_LISTED.field(_GONE_AT), gone_at)
    except (pa.ArrowException, OSError) as err:
        cause = " ".join(str(err).split())
        raise RunFailed(f"{uri} could not be read ({cause}): remove it; the next night writes a new one") from err


def record_listing(
    output: str, listing: pa.Table, now: datetime, digest: str, covers: Callable[[str], bool] = lambda _: True
) -> int:
    """Store a listing, its time and the night's model. Return how many scans have vanished since an earlier night.

    covers: tells whether this night's listing would contain a scan of some URI. Scans that it does not cover (of
    another input, or excluded) keep their rows and are not counted. Each vanished scan is counted by one night only.
    """
    for name in uris.names(uris.join(output, RUNS), ".seen."):
        uris.delete(uris.join(output, RUNS, name))  # incomplete, of a night that was killed
    stamp = pa.scalar(now, schema.LAST_LISTED.field("seen_at").type)
    before = _listed_with_gone(output)
    others = before.join(listing.select(["scan_uri"]), keys="scan_uri", join_type="left anti").cast(_LISTED)
    missed = zip(others["scan_uri"].to_pylist(), others[_GONE_AT].is_valid().to_pylist(), strict=True)
    is_gone = [not counted and covers(uri) for uri, counted in missed]
    gone_at = pc.if_else(pa.array(is_gone, pa.bool_()), stamp, others[_GONE_AT])
    others = others.set_column(others.schema.get_field_index(_GONE_AT), _LISTED.field(_GONE_AT), gone_at)
    stamps, never = pa.repeat(stamp, listing.num_rows), pa.nulls(listing.num_rows, stamp.type)
    current = pa.table([*listing.select(schema.PLAN.names).columns, stamps, never], schema=_LISTED)
    table = pa.concat_tables([current, others]).sort_by("scan_uri").replace_schema_metadata({_MODEL: digest})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    uris.put(_listing_uri(output), buffer.getvalue())
    return sum(is_gone)


def last_model(listed: pa.Table) -> str | None:
    """Return the digest of the last night's model, from the metadata of `last_listing`."""
    digest = (listed.schema.metadata or {}).get(_MODEL)
    return None if digest is None else bytes(digest).decode()


def nights(output: str, last: int) -> list[dict[str, Any]]:
    """Return what the last nights stored, the latest last."""
    return _last_files(output, _NIGHT, last)


def runs(output: str, last: int) -> list[dict[str, Any]]:
    """Return the records of the last completed runs, including nights, the latest last."""
    return _last_files(output, _RECORD, last)


def _last_files(output: str, ending: str, count: int) -> list[dict[str, Any]]:
    folder = uris.join(output, RUNS)
    names = [name for name in uris.names(folder) if name.endswith(ending)]
    return [json.loads(uris.read(uris.join(folder, name))) for name in names[-count:]]


def remember_night(output: str, run_id: str, facts: dict[str, Any]) -> None:
    """Store what later nights are compared with."""
    uris.put(uris.join(output, RUNS, run_id + _NIGHT), json.dumps(facts).encode())


def unreported(output: str, parts: Iterable[str]) -> dict[str, list[str]]:
    """Return those of some parts that interrupted runs wrote and no report has included yet, by run."""
    names = uris.names(uris.join(output, RUNS))
    ended = {name.rpartition(".")[0] for name in names if name.endswith((".json", _REPORTED))}
    by_run: dict[str, list[str]] = {}
    for part in sorted(parts):
        run = _RUN_OF_PART.match(part)
        if run and run[1] not in ended:
            by_run.setdefault(run[1], []).append(part)
    return by_run


def mark_reported(output: str, runs: Iterable[str]) -> None:
    """Mark the parts of interrupted runs as reported."""
    for run in runs:
        uris.put(uris.join(output, RUNS, run + _REPORTED), b"")


def _listing_uri(output: str) -> str:
    return uris.join(output, RUNS, "seen")


def _is_listed(rows: pa.Table, listed: pa.Table | None) -> NDArray[np.bool_]:
    """Return for each row whether its version is the one listed last."""
    if listed is None or not listed.num_rows:
        return np.zeros(rows.num_rows, bool)
    index = pc.index_in(file_uris(rows), listed["scan_uri"].combine_chunks()).combine_chunks()
    versions = listed["scan_version"].combine_chunks().take(index)
    same = pc.equal(versions, rows["scan_version"].combine_chunks())
    return np.asarray(pc.fill_null(same, False).to_numpy(zero_copy_only=False), bool)
