"""What an output knows of its scans over all models and nights: what is due and why, each scan's newest row, who was seen.

Reads the parts. Writes OUTPUT/_runs/seen, a Parquet file of the schema SEEN, and OUTPUT/_runs/<run_id>.night, what later
nights are compared with.
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
from mribatch.predictions.lock import RUNS
from mribatch.predictions.parts import codes, was_gone
from mribatch.stores import uris

__all__ = [
    "BACKFILL",
    "DUE",
    "INTERRUPTED",
    "backlog",
    "last_model",
    "mark_reported",
    "mark_seen",
    "newest",
    "nights",
    "predictions",
    "remember_night",
    "runs",
    "seen",
    "unreported",
]

NEW, CHANGED, BACKFILL = "new", "changed", "backfill"

DUE = (NEW, CHANGED, BACKFILL)
"""Why a scan is to be scored, in the order of the night: no model has a row of it; of other versions only; of this version."""

INTERRUPTED = "interrupted"
"""Why a scan stands in a report though it was not due: a run scored it and came to no end, and no night has told of it."""

_GONE_AT = "gone_at"
_MARKS = pa.schema([*schema.SEEN, pa.field(_GONE_AT, schema.SEEN.field("seen_at").type)])
_NIGHT = ".night"
_RECORD = ".json"
_MODEL = b"mribatch.model"
_TOLD = ".told"
_RUN_OF_PART = re.compile(r"part-([0-9]{8}T[0-9]{6}Z-[0-9a-f]{6})-")
_WHEN = (*schema.PLAN.names, "scored_at")


def predictions(output: str, digest: str | None = None) -> pa.Table:
    """All rows of one model, or of all; p_<label> columns that a model does not know are null."""
    models = ledger.digests(output) if digest is None else [digest]
    tables = [ledger.predictions(output, name) for name in models]
    return pa.concat_tables([schema.prediction_schema(()).empty_table(), *tables], promote_options="default")


def backlog(todo: pa.Table, output: str) -> pa.Table:
    """What is to do (schema PLAN) in the order of the night, and in the column `due` why, one of DUE.

    New scans come first, then changed ones, then those that another model has scored in this version, the oldest
    prediction first.
    """
    known = _known(output)
    versions = known.group_by(schema.PLAN.names).aggregate([("scored_at", "max")])
    scans = known.group_by("scan_uri").aggregate([([], "count_all")])
    table = todo.join(versions, keys=schema.PLAN.names).join(scans, keys="scan_uri")
    of_version, of_scan = pc.is_valid(table["scored_at_max"]), pc.is_valid(table["count_all"])
    rank = pc.if_else(of_version, 2, pc.if_else(of_scan, 1, 0))
    table = table.append_column("rank", rank).sort_by(
        [("rank", "ascending"), ("scored_at_max", "ascending"), ("scan_uri", "ascending")]
    )
    due = pa.array(DUE).take(table["rank"].combine_chunks())
    return table.select(schema.PLAN.names).cast(schema.PLAN).append_column("due", due)


def newest(rows: pa.Table, listed: pa.Table | None = None) -> pa.Table:
    """Of each scan the rows of one version under one model: of the version listed last, the one scored last.

    listed: as `seen` gives it. A scan that was never listed, or has no row in the version listed last, keeps what was
    scored last; one that was gone when its turn came keeps what another row tells of it. Of rows that stand twice, for the
    moment of a compaction, one stays.
    """
    if not rows.num_rows:
        return rows
    scan, version, model, frame = (codes(rows[name]) for name in (*schema.PLAN.names, "model_digest", "frame"))
    at = rows["scored_at"].cast(pa.int64()).to_numpy()
    gone = was_gone(rows).to_numpy()
    order = np.lexsort((frame, model, -at, ~_is_listed(rows, listed), gone, scan))
    first = np.r_[True, np.diff(scan[order]) != 0]
    winner = order[first][np.cumsum(first) - 1]  # for each row in order, the best one of its scan
    kept = order[(version[order] == version[winner]) & (model[order] == model[winner])]
    kept = kept[np.lexsort((frame[kept], scan[kept]))]
    double = np.r_[False, (np.diff(scan[kept]) == 0) & (np.diff(frame[kept]) == 0)]
    return rows.take(np.sort(kept[~double]))


def seen(output: str) -> pa.Table:
    """The version in which each scan was listed last, and when; schema SEEN, and in its metadata the night's model. Empty
    before the first night."""
    return _marks(output).select(schema.SEEN.names)


def _marks(output: str) -> pa.Table:
    """As `seen`, and when a night first missed the scan: null while it is listed, and where no night has covered it."""
    try:
        data = uris.read(_place(output))
    except StorageMissing:
        return _MARKS.empty_table()
    try:
        table = pyarrow.parquet.ParquetFile(pa.BufferReader(data)).read()
        return table if _GONE_AT in table.column_names else _with_gone(table)
    except (pa.ArrowException, OSError) as err:
        raise RunFailed(f"{_place(output)} could not be read ({' '.join(str(err).split())}): remove it; the next night "
                        "writes it again") from err  # fmt: skip


def mark_seen(
    output: str, listing: pa.Table, now: datetime, digest: str, covers: Callable[[str], bool] = lambda _: True
) -> int:
    """Remember a listing, its moment and the night's model. Return how many scans are gone since an earlier night.

    covers: whether this night's listing would hold a scan of some URI. What it does not cover (another input, excluded)
    keeps its row and is not counted. A scan that is gone is counted by one night.
    """
    for name in uris.names(uris.join(output, RUNS), ".seen."):
        uris.delete(uris.join(output, RUNS, name))  # a killed night's, half-written
    stamp = pa.scalar(now, schema.SEEN.field("seen_at").type)
    before = _marks(output)
    others = before.join(listing.select(["scan_uri"]), keys="scan_uri", join_type="left anti").cast(_MARKS)
    missed = zip(others["scan_uri"].to_pylist(), others[_GONE_AT].is_valid().to_pylist(), strict=True)
    is_gone = [not counted and covers(uri) for uri, counted in missed]
    gone_at = pc.if_else(pa.array(is_gone, pa.bool_()), stamp, others[_GONE_AT])
    others = others.set_column(others.schema.get_field_index(_GONE_AT), _MARKS.field(_GONE_AT), gone_at)
    stamps, never = pa.repeat(stamp, listing.num_rows), pa.nulls(listing.num_rows, stamp.type)
    marked = pa.table([*listing.select(schema.PLAN.names).columns, stamps, never], schema=_MARKS)
    table = pa.concat_tables([marked, others]).sort_by("scan_uri").replace_schema_metadata({_MODEL: digest})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    uris.put(_place(output), buffer.getvalue())
    return sum(is_gone)


def _with_gone(table: pa.Table) -> pa.Table:
    """The marks of an earlier version: what the last night did not list was counted when it went."""
    last = pc.max(table["seen_at"])
    gone_at = pc.if_else(pc.less(table["seen_at"], last), last, pa.scalar(None, table["seen_at"].type))
    return table.append_column(_MARKS.field(_GONE_AT), gone_at)


def last_model(listed: pa.Table) -> str | None:
    """The digest of the model of the last night, as `seen` tells it."""
    told = (listed.schema.metadata or {}).get(_MODEL)
    return None if told is None else bytes(told).decode()


def nights(output: str, last: int) -> list[dict[str, Any]]:
    """What the last nights left behind, the latest one last."""
    folder = uris.join(output, RUNS)
    names = [name for name in uris.names(folder) if name.endswith(_NIGHT)]
    return [json.loads(uris.read(uris.join(folder, name))) for name in names[-last:]]


def runs(output: str, last: int) -> list[dict[str, Any]]:
    """Return the records of the last runs that ended, nights among them, the latest one last."""
    folder = uris.join(output, RUNS)
    names = [name for name in uris.names(folder) if name.endswith(_RECORD)]
    return [json.loads(uris.read(uris.join(folder, name))) for name in names[-last:]]


def remember_night(output: str, run_id: str, facts: dict[str, Any]) -> None:
    uris.put(uris.join(output, RUNS, run_id + _NIGHT), json.dumps(facts).encode())


def unreported(output: str, parts: Iterable[str]) -> dict[str, list[str]]:
    """Of some parts those that were written by runs that came to no end and that no night has told of, by run."""
    names = uris.names(uris.join(output, RUNS))
    ended = {name.rpartition(".")[0] for name in names if name.endswith((".json", _TOLD))}
    found: dict[str, list[str]] = {}
    for part in sorted(parts):
        run = _RUN_OF_PART.match(part)
        if run and run[1] not in ended:
            found.setdefault(run[1], []).append(part)
    return found


def mark_reported(output: str, runs: Iterable[str]) -> None:
    for run in runs:
        uris.put(uris.join(output, RUNS, run + _TOLD), b"")


def _place(output: str) -> str:
    return uris.join(output, RUNS, "seen")


def _known(output: str) -> pa.Table:
    fields = pa.schema([schema.prediction_schema(()).field(name) for name in _WHEN])
    tables = [ledger.predictions(output, digest, _WHEN).cast(fields) for digest in ledger.digests(output)]
    return pa.concat_tables([fields.empty_table(), *tables])


def _is_listed(rows: pa.Table, listed: pa.Table | None) -> NDArray[np.bool_]:
    """Is a row's version the one that was listed last?"""
    if listed is None or not listed.num_rows:
        return np.zeros(rows.num_rows, bool)
    at = pc.index_in(rows["scan_uri"], listed["scan_uri"].combine_chunks())
    same = pc.equal(
        listed["scan_version"].combine_chunks().take(at.combine_chunks()), rows["scan_version"].combine_chunks()
    )
    return np.asarray(pc.fill_null(same, False).to_numpy(zero_copy_only=False), bool)
