"""The ledger: scans with a row are not scored again, all others are, and wrong receipts are noticed."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mribatch import schema
from mribatch.errors import OutputHeld, RunFailed
from mribatch.predictions import ledger, rewrite
from mribatch.predictions.ledger import Plan, Receipt
from mribatch.predictions.lock import Fence
from mribatch.stores import uris

DIGEST = "0123456789ab"
LABELS = ("glioma", "notumor")


def listing(*names: str, version: str = "1-1") -> pa.Table:
    return pa.table([list(names), [version] * len(names)], schema=schema.PLAN)


def part(
    output: str | Path,
    name: str,
    scans: Sequence[str],
    version: str = "1-1",
    frames: int = 1,
    day: int = 1,
    reason: str | None = None,
) -> Receipt:
    """Write a part as the sink does, and return the receipt for it."""
    facts = {
        "scan_version": version,
        "status": "ok",
        "predicted_class": "glioma",
        "reason": reason,
        "model_digest": DIGEST,
        "run_id": "run",
        "scored_at": datetime(2025, 1, day, tzinfo=UTC),
    }
    rows = [{"scan_uri": scan, "frame": frame, **facts} for scan in scans for frame in range(frames)]
    table = pa.Table.from_pylist(rows, schema=schema.prediction_schema(LABELS))
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    uris.put(uris.join(ledger.model_folder(str(output), DIGEST), name), buffer.getvalue().to_pybytes())
    return receipt(name, len(rows))


def receipt(name: str | None, rows: int = 0, failed: Sequence[str] = ()) -> Receipt:
    failures = [(scan, "StorageUnavailable") for scan in failed]
    return Receipt(part=name, rows=rows, rejected={}, failed=failures, left=[], by_class={}, by_node={}, peak_bytes={})


def plan(output: str | Path, table: pa.Table, limit: int | None = None) -> Plan:
    return ledger.plan(table, str(output), DIGEST, limit)


def verify(planned: Plan, output: str | Path, *receipts: Receipt, fence: Fence | None = None) -> None:
    ledger.verify(planned, str(output), DIGEST, receipts, fence)


def todo(planned: Plan) -> list[str]:
    names: list[str] = planned.todo["scan_uri"].to_pylist()
    return names


def parts(output: Path) -> list[str]:
    return sorted(os.listdir(output / f"model={DIGEST}"))


# The plan


def test_of_an_output_that_is_not_there_all_is_to_do_and_nothing_is_written(tmp_path: Path) -> None:
    planned = plan(tmp_path / "out", listing("b", "a"))
    assert (planned.listed, planned.done, todo(planned), planned.parts) == (2, 0, ["a", "b"], frozenset())
    assert planned.todo.schema == schema.PLAN
    assert os.listdir(tmp_path) == []


def test_what_has_a_row_is_done_and_the_rest_is_not(tmp_path: Path) -> None:
    part(tmp_path, "part-1-2.parquet", ["a", "b"])
    part(tmp_path, "part-2-1.parquet", ["elsewhere"])
    planned = plan(tmp_path, listing("a", "b", "c"))
    assert (planned.listed, planned.done, todo(planned)) == (3, 2, ["c"])
    assert planned.parts == {"part-1-2.parquet", "part-2-1.parquet"}


def test_a_scan_that_changed_is_to_do_again(tmp_path: Path) -> None:
    part(tmp_path, "part-1-1.parquet", ["a"], version="1-1")
    assert todo(plan(tmp_path, listing("a", version="1-2"))) == ["a"]


def test_the_frames_of_one_scan_are_one_scan_done(tmp_path: Path) -> None:
    part(tmp_path, "part-1-3.parquet", ["a"], frames=3)
    planned = plan(tmp_path, listing("a", "b"))
    assert (planned.done, todo(planned)) == (1, ["b"])


def test_a_limit_cuts_what_is_to_do_and_not_what_is_done(tmp_path: Path) -> None:
    part(tmp_path, "part-1-1.parquet", ["a"])
    planned = plan(tmp_path, listing("a", "b", "c", "d"), limit=2)
    assert (planned.listed, planned.done, todo(planned)) == (4, 1, ["b", "c"])


def test_another_models_rows_do_not_count(tmp_path: Path) -> None:
    part(tmp_path, "part-1-1.parquet", ["a"])
    other = ledger.plan(listing("a"), str(tmp_path), "ba9876543210")
    assert todo(other) == ["a"]


def test_what_a_crash_left_half_written_is_cleared_away_and_nothing_else(tmp_path: Path) -> None:
    part(tmp_path, "part-1-1.parquet", ["a"])
    folder = tmp_path / f"model={DIGEST}"
    for name in (".part-2-1.parquet.0123.tmp", ".keep", "notes.txt", "part-readme"):
        (folder / name).write_bytes(b"PAR1")
    assert todo(plan(tmp_path, listing("a"))) == []
    assert parts(tmp_path) == [".keep", "notes.txt", "part-1-1.parquet", "part-readme"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(1000) + b"PAR1", b"<html>"])
def test_a_part_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    part(tmp_path, "part-1-1.parquet", ["a"])
    uris.put(f"{ledger.model_folder(str(tmp_path), DIGEST)}/part-2-1.parquet", content)
    with pytest.raises(RunFailed, match=r"part-2-1\.parquet .* remove it"):
        plan(tmp_path, listing("a"))


def test_a_part_cut_anywhere_is_named(tmp_path: Path) -> None:
    part(tmp_path, "part-1-1.parquet", ["a"])
    path = tmp_path / f"model={DIGEST}" / "part-1-1.parquet"
    data = path.read_bytes()
    for kept in range(0, len(data), len(data) // 20):
        path.write_bytes(data[:kept])
        with pytest.raises(RunFailed, match=r"part-1-1\.parquet"):
            plan(tmp_path, listing("a"))


def test_a_parquet_file_without_the_keys_is_named(tmp_path: Path) -> None:
    (tmp_path / f"model={DIGEST}").mkdir()
    pq.write_table(pa.table({"scan_uri": ["a"]}), tmp_path / f"model={DIGEST}" / "part-1-1.parquet")
    with pytest.raises(RunFailed, match=r"part-1-1\.parquet"):
        plan(tmp_path, listing("a"))


@pytest.mark.parametrize("name", ["a b", "50%41", "ü+#?", "x=y", "[1]", "file:///{}/%ff"])
def test_an_output_may_have_any_name(tmp_path: Path, name: str) -> None:
    output = name.format(str(tmp_path).strip("/")) if "{}" in name else f"{tmp_path}/{name}"
    planned = plan(output, listing("a", "b"))
    verify(planned, output, part(output, "part-1-2.parquet", ["a", "b"]))
    assert todo(plan(output, listing("a", "b"))) == []
    assert ledger.predictions(output, DIGEST).num_rows == 2


# Duplicates


def test_of_two_rows_of_a_scan_the_one_scored_last_stays_and_nothing_else_goes(tmp_path: Path) -> None:
    part(tmp_path, "part-1-2.parquet", ["a", "b"], day=1)
    part(tmp_path, "part-2-2.parquet", ["b", "c"], day=2)
    part(tmp_path, "part-3-1.parquet", ["d"], day=3)
    planned = plan(tmp_path, listing("a", "b", "c", "d"))
    assert (todo(planned), planned.done) == ([], 4)
    rows = ledger.predictions(str(tmp_path), DIGEST).sort_by("scan_uri")
    assert rows["scan_uri"].to_pylist() == ["a", "b", "c", "d"]
    assert [at.day for at in rows["scored_at"].to_pylist()] == [1, 2, 2, 3]
    assert planned.parts == set(parts(tmp_path)) >= {"part-2-2.parquet", "part-3-1.parquet"}


def test_a_row_that_tells_that_a_scan_was_gone_gives_way_to_one_that_tells_more(tmp_path: Path) -> None:
    part(tmp_path, "part-1-1.parquet", ["a"], day=1)
    part(tmp_path, "part-2-1.parquet", ["a"], day=2, reason="vanished")
    plan(tmp_path, listing("a"))
    assert ledger.predictions(str(tmp_path), DIGEST)["reason"].to_pylist() == [None]


def test_copies_of_parts_leave_the_larger_one(tmp_path: Path) -> None:
    """Return an output after a killed compaction: the new part exists, and some of the old ones."""
    part(tmp_path, "part-0-new-3.parquet", ["a", "b", "c"])
    part(tmp_path, "part-0-old-1.parquet", ["b"])
    part(tmp_path, "part-1-1.parquet", ["c"])
    assert todo(plan(tmp_path, listing("a", "b", "c"))) == []
    assert parts(tmp_path) == ["part-0-new-3.parquet"]


def test_a_part_that_holds_a_scan_twice_itself_is_rewritten(tmp_path: Path) -> None:
    part(tmp_path, "part-1-3.parquet", ["a", "b", "a"])
    planned = plan(tmp_path, listing("a", "b"))
    assert (todo(planned), ledger.predictions(str(tmp_path), DIGEST).num_rows) == ([], 2)


def test_two_versions_or_frames_of_a_scan_are_no_duplicates(tmp_path: Path) -> None:
    part(tmp_path, "part-1-2.parquet", ["a"], version="1-1", frames=2)
    part(tmp_path, "part-2-2.parquet", ["a"], version="1-2", frames=2)
    plan(tmp_path, listing("a"))
    assert len(parts(tmp_path)) == 2


# The verification


def test_a_run_that_wrote_what_was_planned_passes(tmp_path: Path) -> None:
    part(tmp_path, "part-1-1.parquet", ["a"])
    planned = plan(tmp_path, listing("a", "b", "c", "d"))
    first = part(tmp_path, "part-2-2.parquet", ["b", "c"])
    verify(planned, tmp_path, first, receipt(None, failed=["d"]))
    assert todo(plan(tmp_path, listing("a", "b", "c", "d"))) == ["d"]  # failed, so planned again


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([["a"]], "1 scans are missing, 0 appear twice, 0 were not planned"),
        ([["a", "b"], ["b"]], "0 scans are missing, 1 appear twice, 0 were not planned"),
        ([["a", "b", "c"]], "0 scans are missing, 0 appear twice, 1 were not planned"),
        ([], "2 scans are missing"),
    ],
)
def test_a_run_whose_rows_are_not_those_planned_fails_and_says_how(
    tmp_path: Path, written: list[list[str]], message: str
) -> None:
    planned = plan(tmp_path, listing("a", "b"))
    receipts = [part(tmp_path, f"part-{n}-{len(rows)}.parquet", rows) for n, rows in enumerate(written)]
    with pytest.raises(RunFailed, match=message):
        verify(planned, tmp_path, *receipts)


def test_a_row_of_another_version_than_planned_is_not_the_row(tmp_path: Path) -> None:
    planned = plan(tmp_path, listing("a"))
    with pytest.raises(RunFailed, match="1 scans are missing, 0 appear twice, 1 were not planned"):
        verify(planned, tmp_path, part(tmp_path, "part-1-1.parquet", ["a"], version="1-2"))


def test_a_part_that_vanished_is_missed(tmp_path: Path) -> None:
    planned = plan(tmp_path, listing("a"))
    written = part(tmp_path, "part-1-1.parquet", ["a"])
    uris.delete(f"{ledger.model_folder(str(tmp_path), DIGEST)}/part-1-1.parquet")
    with pytest.raises(RunFailed, match="1 scans are missing"):
        verify(planned, tmp_path, written)


def test_a_part_that_no_receipt_names_is_removed_and_older_ones_stay(tmp_path: Path) -> None:
    part(tmp_path, "part-0-1.parquet", ["old"])
    planned = plan(tmp_path, listing("a"))
    written = part(tmp_path, "part-1-1.parquet", ["a"])
    part(tmp_path, "part-sleeper-1.parquet", ["a"])
    verify(planned, tmp_path, written)
    assert parts(tmp_path) == ["part-0-1.parquet", "part-1-1.parquet"]


def test_a_run_that_lost_its_lock_does_not_remove_its_successors_parts(tmp_path: Path) -> None:
    planned = plan(tmp_path, listing("a"))
    written = part(tmp_path, "part-1-1.parquet", ["a"])
    part(tmp_path, "part-successor-1.parquet", ["b"])
    uris.put(f"{tmp_path}/_runs/{DIGEST}.lock-2", b"{}")
    fence = Fence(output=str(tmp_path), digest=DIGEST, run_id="sleeper", generation=1)
    with pytest.raises(OutputHeld):
        verify(planned, tmp_path, written, fence=fence)
    assert parts(tmp_path) == ["part-1-1.parquet", "part-successor-1.parquet"]


# Rows, records, names


def test_predictions_gives_all_rows_or_some_columns(tmp_path: Path) -> None:
    part(tmp_path, "part-1-2.parquet", ["a", "b"])
    part(tmp_path, "part-2-1.parquet", ["c"])
    rows = ledger.predictions(str(tmp_path), DIGEST)
    assert rows["scan_uri"].to_pylist() == ["a", "b", "c"]
    assert rows.column_names == schema.prediction_schema(LABELS).names
    some = ledger.predictions(str(tmp_path), DIGEST, ["predicted_class", "scan_uri"])
    assert some.column_names == ["predicted_class", "scan_uri"]


def test_predictions_of_nothing_are_no_rows(tmp_path: Path) -> None:
    assert ledger.predictions(str(tmp_path), DIGEST).num_rows == 0
    assert ledger.predictions(str(tmp_path), DIGEST, ["scan_uri"]).column_names == ["scan_uri"]


def test_the_record_is_json_beside_the_locks(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"run_id": "x", "failed": [{"scan_uri": "/ü\udcff"}]}
    place = ledger.write_record(str(tmp_path), "x", facts)
    assert place == f"{tmp_path}/_runs/x.json"
    assert json.loads(Path(place).read_text()) == facts


@pytest.mark.parametrize(
    ("name", "rows"),
    [("part-20250101T000000Z-ab12-0f0f-256.parquet", 256), ("part-x.parquet", 0), ("part-².parquet", 0)],
)
def test_a_parts_name_tells_its_rows(name: str, rows: int) -> None:
    assert ledger.part_rows(name) == rows


# Readings and frames


def rows_of(scan: str, frames: int = 1, **facts: Any) -> list[dict[str, Any]]:
    given = {"scan_version": "1-1", "status": "ok", "model_digest": DIGEST, "run_id": "run", "frames": frames}
    given["scored_at"] = datetime(2025, 1, 1, tzinfo=UTC)
    return [{"scan_uri": scan, "frame": frame} | given | facts for frame in range(frames)]


def put(output: Path, name: str, rows: list[dict[str, Any]]) -> Receipt:
    folder = output / f"model={DIGEST}"
    folder.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.prediction_schema(LABELS)), folder / name)
    return receipt(name, len(rows))


def test_rows_of_another_reading_are_planned_again_and_replaced_by_the_new_ones(tmp_path: Path) -> None:
    put(tmp_path, "part-1-3.parquet", [*rows_of("a"), *rows_of("b", reading="old"), *rows_of("c", reading="new")])
    table = listing("a", "b", "c", "d")
    assert todo(ledger.plan(table, str(tmp_path), DIGEST, readings={"new"})) == ["b", "d"]
    assert todo(ledger.plan(table, str(tmp_path), DIGEST)) == ["d"]
    planned = ledger.plan(table, str(tmp_path), DIGEST, readings={"new"})
    assert planned.outdated["scan_uri"].to_pylist() == ["b"]
    new = put(tmp_path, "part-2-4.parquet", [*rows_of("b", 3, reading="new"), *rows_of("d")])
    verify(planned, tmp_path, new)
    fence = Fence(output=str(tmp_path), digest=DIGEST, run_id="run", generation=1)
    uris.put(fence.uri, b"{}")
    assert rewrite.supersede(fence, planned, ["part-2-4.parquet"]) == 1
    rows = ledger.predictions(str(tmp_path), DIGEST).to_pylist()
    assert [(row["scan_uri"], row["reading"]) for row in rows if row["scan_uri"] == "b"] == [("b", "new")] * 3
    assert len(rows) == 6


def test_after_a_crash_before_the_replacement_the_newest_rows_of_a_file_win_with_all_their_frames(
    tmp_path: Path,
) -> None:
    late = {"run_id": "late", "scored_at": datetime(2025, 1, 2, tzinfo=UTC)}
    put(tmp_path, "part-1-5.parquet", [*rows_of("a", 4, reading="old"), *rows_of("b", reading="old")])
    put(tmp_path, "part-2-3.parquet", [*rows_of("a", reading="new", **late), *rows_of("b", 2, reading="new", **late)])
    assert todo(ledger.plan(listing("a", "b"), str(tmp_path), DIGEST, readings={"new"})) == []
    rows = ledger.predictions(str(tmp_path), DIGEST).to_pylist()
    assert sorted((row["scan_uri"], row["frame"], row["reading"]) for row in rows) == [
        ("a", 0, "new"),
        ("b", 0, "new"),
        ("b", 1, "new"),
    ]


@pytest.mark.parametrize(("present", "frames"), [((0, 1), 3), ((1, 2), 3), ((0, 2), 3), ((0, 1, 2), 2)])
def test_a_file_without_all_of_its_frames_is_noticed(tmp_path: Path, present: tuple[int, ...], frames: int) -> None:
    planned = plan(tmp_path, listing("a"))
    rows = [row | {"frames": frames} for row in rows_of("a", 4) if row["frame"] in present]
    part = put(tmp_path, "part-1-2.parquet", rows)
    with pytest.raises(RunFailed, match="1 lack some of their frames"):
        verify(planned, tmp_path, part)


def test_parts_of_the_first_version_are_planned_and_read_with_nulls(tmp_path: Path) -> None:
    new = pa.Table.from_pylist(
        [*rows_of("jpeg"), *rows_of("dicom", status="rejected", reason="unsupported_format")],
        schema=schema.prediction_schema(LABELS),
    )
    (tmp_path / f"model={DIGEST}").mkdir()
    added = ["frames", "reading", "kind", "modality", "plane", "slice_mm", "window"]
    added += ["instance_key", "series_key", "study_key", "patient_key", "container", "member", "members"]
    pq.write_table(new.drop_columns(added), tmp_path / f"model={DIGEST}" / "part-1-2.parquet")
    assert todo(ledger.plan(listing("dicom", "jpeg"), str(tmp_path), DIGEST, readings={"new"})) == ["dicom"]
    put(tmp_path, "part-2-1.parquet", rows_of("other", kind="anatomical"))
    rows = ledger.predictions(str(tmp_path), DIGEST)
    assert rows.column_names == schema.prediction_schema(LABELS).names
    assert rows["kind"].to_pylist() == [None, None, "anatomical"]


# Archives: a file of the plan with rows of its members


def members_of(archive: str, numbers: range, count: int, **facts: Any) -> list[dict[str, Any]]:
    place = {"container": archive, "members": count}
    return [row | place | {"member": n} for n in numbers for row in rows_of(f"{archive}!{n}", **facts)]


def test_an_archive_is_done_by_the_rows_of_its_members_and_one_file_of_the_plan(tmp_path: Path) -> None:
    put(tmp_path, "part-1-4.parquet", [*members_of("z", range(3), 3), *rows_of("a!b")])
    planned = plan(tmp_path, listing("z", "a!b", "y"))
    assert (todo(planned), planned.done) == (["y"], 2)
    assert todo(plan(tmp_path, listing("z", version="2-2"))) == ["z"]
    verify(plan(tmp_path, listing("y")), tmp_path, put(tmp_path, "part-2-2.parquet", members_of("y", range(2), 2)))


@pytest.mark.parametrize("numbers", [range(2), range(1, 3)])
def test_an_archive_without_all_of_its_members_is_noticed(tmp_path: Path, numbers: range) -> None:
    planned = plan(tmp_path, listing("z"))
    part = put(tmp_path, "part-1-2.parquet", members_of("z", numbers, 3))
    with pytest.raises(RunFailed, match="1 lack some of their frames or members"):
        verify(planned, tmp_path, part)


def test_an_archive_with_a_member_of_another_reading_is_read_again_as_a_file_and_replaced(tmp_path: Path) -> None:
    old = [*members_of("z", range(2), 3, reading="new"), *members_of("z", range(2, 3), 3, reading="old")]
    put(tmp_path, "part-1-3.parquet", old)
    planned = ledger.plan(listing("z"), str(tmp_path), DIGEST, readings={"new"})
    assert (todo(planned), planned.outdated["scan_uri"].to_pylist()) == (["z"], ["z"])
    late = {"run_id": "late", "scored_at": datetime(2025, 1, 2, tzinfo=UTC), "reading": "new"}
    new = put(tmp_path, "part-2-3.parquet", members_of("z", range(3), 3, **late))
    verify(planned, tmp_path, new)
    fence = Fence(output=str(tmp_path), digest=DIGEST, run_id="run", generation=1)
    uris.put(fence.uri, b"{}")
    assert rewrite.supersede(fence, planned, ["part-2-3.parquet"]) == 3
    assert {row["run_id"] for row in ledger.predictions(str(tmp_path), DIGEST).to_pylist()} == {"late"}
    assert todo(ledger.plan(listing("z"), str(tmp_path), DIGEST, readings={"new"})) == []


def test_after_a_crash_the_rows_of_an_archive_are_of_one_write(tmp_path: Path) -> None:
    late = {"run_id": "late", "scored_at": datetime(2025, 1, 2, tzinfo=UTC)}
    rejected = rows_of("z", status="rejected", reason="unsupported_format")
    put(tmp_path, "part-1-4.parquet", [*rejected, *members_of("y", range(3), 3)])
    put(tmp_path, "part-2-5.parquet", [*members_of("z", range(2), 2, **late), *members_of("y", range(3), 3, **late)])
    assert todo(plan(tmp_path, listing("z", "y"))) == []
    rows = ledger.predictions(str(tmp_path), DIGEST).to_pylist()
    assert {row["run_id"] for row in rows} == {"late"}
    assert sorted(row["scan_uri"] for row in rows) == ["y!0", "y!1", "y!2", "z!0", "z!1"]
