"""The history: why and in which order scans are due, which row is the newest, what was listed last."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mribatch import schema
from mribatch.errors import RunFailed
from mribatch.predictions import history, ledger
from mribatch.stores import uris

OLD, NEW = "0123456789ab", "ba9876543210"
DAY = datetime(2025, 1, 1, tzinfo=UTC)


def listing(*scans: str) -> pa.Table:
    """Return a listing of scans given as name or name@version."""
    pairs = [(name, version or "1-1") for name, _, version in (scan.partition("@") for scan in scans)]
    return pa.table([[name for name, _ in pairs], [version for _, version in pairs]], schema=schema.PLAN)


def part(
    output: Path,
    digest: str,
    scans: Sequence[str],
    day: int = 0,
    frames: int = 1,
    label: str = "glioma",
    name: str = "",
) -> None:
    """Write the rows of some scans as a run on that day does."""
    facts = {
        "status": "ok",
        "predicted_class": label,
        "confidence": 0.9,
        "model_digest": digest,
        "run_id": f"run{day}",
        "scored_at": DAY + timedelta(days=day),
    }
    rows = [{**scan, "frame": frame, **facts} for scan in listing(*scans).to_pylist() for frame in range(frames)]
    table = pa.Table.from_pylist(rows, schema=schema.prediction_schema(("glioma", "notumor")))
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    place = uris.join(ledger.model_folder(str(output), digest), f"part-{name or day}-{len(rows)}.parquet")
    uris.put(place, buffer.getvalue().to_pybytes())


def due(output: Path, *scans: str) -> list[tuple[str, str]]:
    table = history.backlog(listing(*scans), str(output))
    return list(zip(table["scan_uri"].to_pylist(), table["due"].to_pylist(), strict=True))


def newest(output: Path, listed: pa.Table | None = None) -> list[tuple[str, str, str, int]]:
    rows = history.newest(history.predictions(str(output)), listed)
    columns = ("scan_uri", "scan_version", "model_digest", "frame")
    return sorted(zip(*(rows[name].to_pylist() for name in columns), strict=True))


# What is due


def test_in_an_empty_output_every_scan_is_new(tmp_path: Path) -> None:
    assert due(tmp_path / "out", "b", "a") == [("a", "new"), ("b", "new")]
    assert list(tmp_path.iterdir()) == []


def test_new_scans_come_first_then_changed_ones_then_the_backfill_oldest_prediction_first(tmp_path: Path) -> None:
    part(tmp_path, OLD, ["a", "d"], day=2)
    part(tmp_path, OLD, ["b", "c@1-1"], day=1)
    assert due(tmp_path, "a", "b", "c@2-2", "d", "e") == [
        ("e", "new"),
        ("c", "changed"),
        ("b", "backfill"),
        ("a", "backfill"),
        ("d", "backfill"),
    ]


def test_a_version_that_only_an_older_model_knows_is_no_change_and_the_latest_prediction_counts(tmp_path: Path) -> None:
    part(tmp_path, OLD, ["a@1-1"], day=0)
    part(tmp_path, NEW, ["a@2-2", "b"], day=1)
    part(tmp_path, OLD, ["b"], day=5, name="late")
    assert due(tmp_path, "a@1-1", "b") == [("a", "backfill"), ("b", "backfill")]


def test_the_backlog_holds_what_is_to_do_and_nothing_else(tmp_path: Path) -> None:
    part(tmp_path, OLD, ["a", "elsewhere"], frames=3)
    table = history.backlog(listing("a"), str(tmp_path))
    assert table.select(schema.PLAN.names).equals(listing("a"))


# The newest row


def test_the_newest_row_is_the_one_scored_last_whichever_model_and_version(tmp_path: Path) -> None:
    part(tmp_path, OLD, ["a", "b@1-1", "c"], day=0)
    part(tmp_path, OLD, ["b@2-2"], day=1)
    part(tmp_path, NEW, ["a"], day=2)
    assert newest(tmp_path) == [("a", "1-1", NEW, 0), ("b", "2-2", OLD, 0), ("c", "1-1", OLD, 0)]


def test_the_version_listed_last_wins_over_the_clock(tmp_path: Path) -> None:
    part(tmp_path, OLD, ["a@1-1"], day=0)
    part(tmp_path, OLD, ["a@2-2"], day=1)
    history.record_listing(str(tmp_path), listing("a@1-1"), DAY, OLD)
    assert newest(tmp_path, history.last_listing(str(tmp_path))) == [("a", "1-1", OLD, 0)]


def test_a_version_without_a_row_yet_leaves_the_scan_its_last_one(tmp_path: Path) -> None:
    part(tmp_path, OLD, ["a@1-1"], day=0)
    history.record_listing(str(tmp_path), listing("a@2-2"), DAY, OLD)
    assert newest(tmp_path, history.last_listing(str(tmp_path))) == [("a", "1-1", OLD, 0)]


def test_frames_are_of_one_version_and_one_model(tmp_path: Path) -> None:
    part(tmp_path, OLD, ["a@1-1"], day=0, frames=3)
    part(tmp_path, OLD, ["a@2-2"], day=1, frames=2)
    assert newest(tmp_path) == [("a", "2-2", OLD, 0), ("a", "2-2", OLD, 1)]


def test_a_row_that_stands_twice_while_parts_are_compacted_is_given_once(tmp_path: Path) -> None:
    part(tmp_path, OLD, ["a", "b"], day=0)
    part(tmp_path, OLD, ["a", "b"], day=0, name="compacted")
    assert newest(tmp_path) == [("a", "1-1", OLD, 0), ("b", "1-1", OLD, 0)]


# The last listing


def test_vanished_scans_stay_marked_by_the_last_night_that_saw_them(tmp_path: Path) -> None:
    output = str(tmp_path)
    assert history.last_model(history.last_listing(output)) is None
    assert history.record_listing(output, listing("a", "b", "c"), DAY, OLD) == 0
    assert history.record_listing(output, listing("a", "c@2-2"), DAY + timedelta(days=1), OLD) == 1
    assert history.record_listing(output, listing("a", "c@2-2"), DAY + timedelta(days=2), OLD) == 0, "counted once"
    assert history.last_model(history.last_listing(output)) == OLD
    assert history.last_listing(output).to_pylist() == [
        {"scan_uri": "a", "scan_version": "1-1", "seen_at": DAY + timedelta(days=2)},
        {"scan_uri": "b", "scan_version": "1-1", "seen_at": DAY},
        {"scan_uri": "c", "scan_version": "2-2", "seen_at": DAY + timedelta(days=2)},
    ]


def below(*folders: str) -> Callable[[str], bool]:
    return lambda uri: uri.startswith(folders)


def test_a_night_counts_what_is_gone_from_its_own_inputs_only(tmp_path: Path) -> None:
    output, days = str(tmp_path), [DAY + timedelta(days=day) for day in range(8)]
    assert history.record_listing(output, listing("a/1", "a/2"), days[0], OLD, below("a/")) == 0
    assert history.record_listing(output, listing("b/1", "b/2"), days[1], OLD, below("b/")) == 0
    assert history.record_listing(output, listing("a/1"), days[2], OLD, below("a/")) == 1, "a/2, and nothing of b"
    assert history.record_listing(output, listing("b/2"), days[3], OLD, below("b/")) == 1, (
        "b/1, which two nights had missed"
    )
    assert history.record_listing(output, listing("a/1", "b/2"), days[4], OLD, below("a/", "b/")) == 0, "counted once"
    assert history.record_listing(output, listing("b/2"), days[5], OLD, below("b/")) == 0
    assert history.record_listing(output, listing("a/3"), days[6], OLD, below("a/", "b/")) == 2, "a/1 and b/2"
    assert history.record_listing(output, listing("a/1", "a/3"), days[7], OLD, below("a/")) == 0, "it has come back"
    listed = {row["scan_uri"]: days.index(row["seen_at"]) for row in history.last_listing(output).to_pylist()}
    assert listed == {"a/1": 7, "a/2": 0, "a/3": 7, "b/1": 1, "b/2": 5}
    assert history.record_listing(output, listing("a/3"), days[7], OLD, below("a/")) == 1, "and gone again"


def test_the_list_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    rows = [
        {"scan_uri": uri, "scan_version": "1-1", "seen_at": DAY + timedelta(days=day)}
        for uri, day in (("counted", 0), ("here", 1), ("vanished", 1))
    ]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.LAST_LISTED), buffer)
    uris.put(f"{tmp_path}/_runs/seen", buffer.getvalue().to_pybytes())
    assert history.last_listing(str(tmp_path)).num_rows == 3
    assert history.record_listing(str(tmp_path), listing("here"), DAY + timedelta(days=2), OLD) == 1
    assert history.last_listing(str(tmp_path)).schema.equals(schema.LAST_LISTED)


def test_a_broken_list_of_who_was_seen_is_named(tmp_path: Path) -> None:
    history.record_listing(str(tmp_path), listing("a"), DAY, OLD)
    (tmp_path / "_runs" / "seen").write_bytes(b"PAR1")
    with pytest.raises(RunFailed, match=r"_runs/seen .* remove it"):
        history.last_listing(str(tmp_path))


def test_nights_come_in_order_and_only_the_last_ones(tmp_path: Path) -> None:
    assert history.nights(str(tmp_path), 2) == []
    for run in ("20250103", "20250101", "20250102"):
        history.remember_night(str(tmp_path), run, {"run": run})
    assert [night["run"] for night in history.nights(str(tmp_path), 2)] == ["20250102", "20250103"]


def test_the_parts_of_a_run_that_came_to_no_end_are_told_of_once(tmp_path: Path) -> None:
    output, dead, ended = str(tmp_path), "20250101T000000Z-abc123", "20250102T000000Z-abc123"
    parts = [f"part-{run}-0f0f-1.parquet" for run in (dead, ended)] + ["part-0-0f0f-1.parquet"]
    ledger.write_record(output, ended, {})
    assert history.unreported(output, parts) == {dead: [parts[0]]}
    history.mark_reported(output, [dead])
    assert history.unreported(output, parts) == {}


def test_an_archive_has_the_members_of_its_newest_version_and_is_due_as_a_file(tmp_path: Path) -> None:
    def put(version: str, names: str, day: int) -> None:
        facts = {"status": "ok", "model_digest": OLD, "run_id": f"run{day}", "scored_at": DAY + timedelta(days=day)}
        place = {"scan_version": version, "frame": 0, "container": "z", "members": len(names)}
        rows = [{"scan_uri": f"z!{name}", "member": n} | place | facts for n, name in enumerate(names)]
        table = pa.Table.from_pylist(rows, schema=schema.prediction_schema(("glioma", "notumor")))
        (tmp_path / f"model={OLD}").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / f"model={OLD}" / f"part-{day}-{len(rows)}.parquet")

    put("1-1", "abc", 0)
    assert due(tmp_path, "z@2-2", "z2") == [("z2", "new"), ("z", "changed")]
    put("2-2", "ad", 1)
    assert [row[0] for row in newest(tmp_path)] == ["z!a", "z!d"]
    listed = listing("z@1-1").append_column(
        schema.LAST_LISTED.field("seen_at"), pa.array([DAY], pa.timestamp("us", "UTC"))
    )
    assert [row[0] for row in newest(tmp_path, listed)] == ["z!a", "z!b", "z!c"]
