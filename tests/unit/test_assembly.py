"""Frames that arrive in several writes: one write gets all of them, also where Ray repeats a write."""

import pyarrow as pa

from mribatch.cluster.assembly import Assembler, whole_files


def rows(uri: str, frames: range, count: int) -> pa.Table:
    return pa.table(
        {
            "scan_uri": [uri] * len(frames),
            "scan_version": ["1"] * len(frames),
            "frame": list(frames),
            "frames": [count] * len(frames),
            "status": ["ok"] * len(frames),
            "container": pa.nulls(len(frames), pa.string()),
            "member": pa.nulls(len(frames), pa.int32()),
            "members": pa.nulls(len(frames), pa.int32()),
        }
    )


def member_rows(uri: str, members: range, count: int, *, frames: int = 1, status: str = "ok") -> pa.Table:
    """Rows of some members of an archive, each with all its frames."""
    places = [(member, frame) for member in members for frame in range(frames)]
    return pa.table(
        {
            "scan_uri": [f"{uri}!{member}" for member, _ in places],
            "scan_version": ["1"] * len(places),
            "frame": [frame for _, frame in places],
            "frames": [frames] * len(places),
            "status": [status] * len(places),
            "container": [uri] * len(places),
            "member": pa.array([member for member, _ in places], pa.int32()),
            "members": pa.array([count] * len(places), pa.int32()),
        }
    )


def frames_of(table: pa.Table) -> list[tuple[str, int]]:
    return sorted(zip(table["scan_uri"].to_pylist(), table["frame"].to_pylist(), strict=True))


def test_only_scans_with_all_their_frames_are_whole() -> None:
    table = pa.concat_tables([rows("a", range(1), 1), rows("b", range(2), 3), rows("c", range(2), 2)])
    assert whole_files(table).to_pylist() == [True, False, False, True, True]
    assert whole_files(rows("a", range(1), 1)).to_pylist() == [True]


def test_the_write_that_brings_the_last_frames_gets_all() -> None:
    assembler = Assembler()
    assert assembler.add(0, rows("a", range(2), 5)).num_rows == 0
    assert assembler.add(1, rows("a", range(4, 5), 5)).num_rows == 0
    assert frames_of(assembler.add(2, rows("a", range(2, 4), 5))) == [("a", number) for number in range(5)]


def test_a_repeated_write_gets_what_it_got_and_no_other_write_gets_it_too() -> None:
    assembler = Assembler()
    first, last = rows("a", range(2), 3), rows("a", range(2, 3), 3)
    assembler.add(0, first)
    assert assembler.add(0, first).num_rows == 0, "a write repeated before the rest has arrived counts once"
    assert assembler.add(1, last).num_rows == 3
    assert assembler.add(0, first).num_rows == 0
    assert assembler.add(1, last).num_rows == 3


def test_rows_of_old_complete_scans_are_forgotten_but_not_that_they_are_complete() -> None:
    assembler = Assembler()
    for number in range(100):
        assembler.add(0, rows(str(number), range(1), 2))
        assert assembler.add(1, rows(str(number), range(1, 2), 2)).num_rows == 2
    assert assembler.add(1, rows("0", range(1, 2), 2)).num_rows == 0
    assert assembler.add(1, rows("99", range(1, 2), 2)).num_rows == 2


# Archives


def test_an_archive_is_whole_with_all_its_members_and_their_frames() -> None:
    table = pa.concat_tables(
        [member_rows("z", range(2), 3), member_rows("y", range(2), 2, frames=2), rows("z!0", range(1), 1)]
    )
    assert whole_files(table).to_pylist() == [False, False, True, True, True, True, True]
    assert whole_files(member_rows("y", range(2), 2, frames=2).slice(1)).to_pylist() == [False] * 3
    assert whole_files(member_rows("y", range(1), 1)).to_pylist() == [True]


def test_the_write_that_brings_the_last_member_gets_the_whole_archive() -> None:
    assembler = Assembler()
    assert assembler.add(0, member_rows("z", range(2), 5, frames=2)).num_rows == 0
    assert assembler.add(1, member_rows("z", range(4, 5), 5)).num_rows == 0
    assert assembler.add(2, member_rows("z", range(2, 4), 5)).num_rows == 7
    assert assembler.add(1, member_rows("z", range(4, 5), 5)).num_rows == 0


def test_an_archive_with_a_failed_row_is_not_waited_for() -> None:
    failed = rows("z", range(1), 1).set_column(4, "status", [["failed"]])
    assert whole_files(pa.concat_tables([member_rows("z", range(2), 5), failed])).to_pylist() == [True] * 3
    assert whole_files(member_rows("z", range(2), 5, status="failed")).to_pylist() == [True] * 2
