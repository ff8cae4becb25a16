"""Rewriting parts: the same rows in fewer parts, none missing at any step, and recovery from a crash in between."""

from pathlib import Path

import pyarrow as pa
import pytest

from mribatch import schema
from mribatch.errors import OutputHeld
from mribatch.predictions import ledger, rewrite
from mribatch.predictions.lock import Fence
from mribatch.stores import uris
from tests.unit.test_history import OLD, listing, part

SCANS = [f"scan{number:02}" for number in range(10)]


@pytest.fixture(params=["", "0-"], ids=["parts of runs", "parts that were rewritten before"])
def fence(tmp_path: Path, request: pytest.FixtureRequest) -> Fence:
    """Return the lock of an output with five parts of two scans each."""
    for number in range(0, 10, 2):
        part(tmp_path, OLD, SCANS[number : number + 2], day=number, name=f"{request.param}{number}")
    uris.put(f"{tmp_path}/_runs/{OLD}.lock-1", b"{}")
    return Fence(output=str(tmp_path), digest=OLD, run_id="run", generation=1)


def names(fence: Fence) -> list[str]:
    return ledger.part_names(fence.output, fence.digest)


def rows(fence: Fence) -> pa.Table:
    return ledger.predictions(fence.output, fence.digest).sort_by([(name, "ascending") for name in schema.KEY])


def test_small_parts_become_few_and_the_rows_stay_as_they_are(fence: Fence) -> None:
    before = rows(fence)
    assert rewrite.compact(fence, part_rows=6) == (5, 2)
    assert rows(fence).equals(before, check_metadata=True)
    assert sorted(map(ledger.part_rows, names(fence))) == [4, 6]


def test_compacting_again_changes_nothing(fence: Fence) -> None:
    rewrite.compact(fence, part_rows=6)
    held = names(fence)
    rewrite.compact(fence, part_rows=6)
    assert names(fence) == held


def test_rows_that_are_to_go_go_and_the_others_stay(fence: Fence) -> None:
    before = rows(fence)
    assert rewrite.without(fence, names(fence), listing("scan00", "scan02", "scan03", "scan04@other")) == 3
    assert rows(fence).equals(before.take([1, 4, 5, 6, 7, 8, 9]))


@pytest.mark.parametrize("deleted", range(4))
def test_a_crash_between_the_new_part_and_the_old_ones_loses_no_row(
    fence: Fence, deleted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, left = rows(fence), [deleted]
    really = uris.delete

    def delete(uri: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        really(uri)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(uris, "delete", delete)
        rewrite.compact(fence, part_rows=10)
    assert set(rows(fence)["scan_uri"].to_pylist()) == set(SCANS), "none is missing in between"
    planned = ledger.plan(listing(*SCANS), fence.output, OLD)
    assert planned.todo.num_rows == 0
    assert rows(fence).equals(before)


def test_who_has_lost_the_lock_removes_nothing(fence: Fence) -> None:
    uris.put(f"{fence.output}/_runs/{OLD}.lock-2", b"{}")
    held = names(fence)
    with pytest.raises(OutputHeld):
        rewrite.compact(fence, part_rows=10)
    assert names(fence) == held


def test_the_parts_of_many_runs_are_read_while_they_are_compacted(
    fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that has listed parts which have been replaced since lists them again."""
    really, once = uris.read, [True]

    def read(uri: str) -> bytes:
        if once and ".parquet" in uri:
            once.clear()
            rewrite.compact(fence, part_rows=10)
        return really(uri)

    monkeypatch.setattr(uris, "read", read)
    assert ledger.predictions(fence.output, fence.digest).num_rows == 10
