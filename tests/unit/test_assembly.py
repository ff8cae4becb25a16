"""Frames that arrive in several writes: one write gets all of them, also where Ray repeats a write."""

import pyarrow as pa

from mribatch.cluster.assembly import Assembler, whole_scans


def rows(uri: str, frames: range, count: int) -> pa.Table:
    return pa.table(
        {
            "scan_uri": [uri] * len(frames),
            "scan_version": ["1"] * len(frames),
            "frame": list(frames),
            "frames": [count] * len(frames),
        }
    )


def frames_of(table: pa.Table) -> list[tuple[str, int]]:
    return sorted(zip(table["scan_uri"].to_pylist(), table["frame"].to_pylist(), strict=True))


def test_only_scans_with_all_their_frames_are_whole() -> None:
    table = pa.concat_tables([rows("a", range(1), 1), rows("b", range(2), 3), rows("c", range(2), 2)])
    assert whole_scans(table).to_pylist() == [True, False, False, True, True]
    assert whole_scans(rows("a", range(1), 1)).to_pylist() == [True]


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
