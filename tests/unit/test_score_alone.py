"""Which runs need no Ray, and how a part is made of rows that one process sends."""

import math
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from mribatch import schema
from mribatch.cluster import one_process
from mribatch.commands import score_alone
from mribatch.commands.score_alone import MOST_FILES, _Parts, needs_no_ray
from mribatch.commands.scored import WrittenParts
from mribatch.errors import CredentialsRefused
from mribatch.models.format import Model
from mribatch.predictions.ledger import Plan, Receipt
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.settings.score import ScoreConfig
from mribatch.sources.listing import list_scans
from tests.conftest import write_scans
from tests.unit.test_assembly import member_rows, rows


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(score_alone, "cores", lambda: 8)


def files(count: int, *, root: str = "/scans", size: int = 1000) -> pa.Table:
    version = f"etag-{size}" if root.startswith("s3://") else f"{size}-1"
    return pa.table([[f"{root}/{n}.png" for n in range(count)], [version] * count], schema=schema.PLAN)


@pytest.fixture
def small(tiny_model: Model) -> Any:
    config = ScoreConfig(model="m", input=("/scans",), output="/out")
    return lambda todo: needs_no_ray(config, tiny_model, todo)


def test_a_thousand_files_on_disk_and_a_hundred_in_s3_need_no_ray(small: Any) -> None:
    assert small(files(MOST_FILES))
    assert not small(files(MOST_FILES + 1))
    assert small(files(100, root="s3://bucket"))
    assert not small(files(101, root="s3://bucket"))


def test_two_cores_need_no_ray_however_many_files_there_are_on_disk(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = files(5000, size=1 << 20)
    monkeypatch.setattr(score_alone, "cores", lambda: 2)
    assert small(many)
    assert not small(pa.concat_tables([many, files(1, root="s3://bucket")]))
    monkeypatch.setattr(score_alone, "cores", lambda: 3)
    assert not small(many)


def test_large_files_are_many_scans(small: Any) -> None:
    assert small(files(2, size=128 << 20))
    assert not small(files(2, size=(128 << 20) + 1))


def test_archives_and_volumes_count_eightfold(small: Any) -> None:
    version = f"{16 << 20}-1"
    assert small(pa.table([["/a.zip", "/b.nii.gz"], [version] * 2], schema=schema.PLAN))
    assert not small(pa.table([["/a.zip", "/b.nii.gz", "/c.png"], [version] * 3], schema=schema.PLAN))


def test_ray_goes_on_counting_where_the_process_was_lost() -> None:
    facts: dict[str, Any] = {"by_class": {}, "by_node": {}, "peak_bytes": {}, "left": [], "rows": 0, "part": None}
    receipts = [
        Receipt(scored=3, rejected={"corrupt": 1}, failed=[("/a", "cause")], **facts),
        Receipt(scored=1, rejected={}, skipped={"no_pixels": 2}, failed=[], **facts),
    ]
    assert WrittenParts(receipts=receipts).progress == (7, 1)


def test_only_the_scans_of_the_plan_are_sent(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[one_process.Order] = []
    monkeypatch.setattr(one_process.OneProcess, "batches", lambda self: orders.append(self._order) or iter(()))
    todo = files(100_000).slice(0, 10)
    plan = Plan(listed=10, done=0, todo=todo, parts=frozenset())
    config = ScoreConfig(model="m", input=("/scans",), output="/out")
    fence: Any = None
    _, left = score_alone.write_parts(config, tiny_model, plan, fence, Reading(), math.inf, lambda *_: None)
    assert left.num_rows == 10
    assert len(pickle.dumps(orders[0])) < 20_000


def test_whatever_ends_the_decoding_thread_ends_the_run() -> None:
    def decoded() -> Iterator[pa.Table]:
        yield files(1)
        raise SystemExit(3)

    arrived = one_process._ahead(decoded())
    assert next(arrived).num_rows == 1
    with pytest.raises(one_process.ProcessLost):
        next(arrived)


def order(todo: pa.Table, **changes: Any) -> one_process.Order:
    return one_process.Order(
        **{
            "todo": todo,
            "model": "m",
            "digest": "",
            "spec": ImageSpec(side_px=32),
            "engine": "openvino",
            "reading": Reading(),
            "batch_size": 4,
            "timeout_s": 60.0,
            "until": math.inf,
            "among": (),
        }
        | changes
    )


def test_rows_come_in_the_order_of_the_plan_however_long_each_scan_takes(tmp_path: Path) -> None:
    write_scans(tmp_path, {"glioma": 20, "notumor": 21})
    todo = list_scans((str(tmp_path),))
    todo = todo.take(pa.array(range(41)[::-1]))
    began: list[int] = []

    def predict(rows: pa.Table) -> pa.Table:
        began.append(rows.num_rows)
        time.sleep(0.2 if len(began) == 1 else 0)
        return rows

    wanted = order(todo)
    rows = pa.concat_tables(one_process._scored(wanted, predict, one_process._decoded(wanted)))
    assert rows["scan_uri"].to_pylist() == todo["scan_uri"].to_pylist()
    assert set(rows["status"].to_pylist()) == {"ok"}
    assert sorted(began) == [1] + 10 * [4]


def test_an_error_of_a_batch_arrives_after_the_rows_before_it() -> None:
    def predict(rows: pa.Table) -> pa.Table:
        if rows.num_rows == 2:
            raise ValueError("no")
        return rows

    wanted = order(files(9))
    scored = one_process._scored(wanted, predict, iter([files(1), files(2), files(3)]))
    assert next(scored).num_rows == 1
    with pytest.raises(one_process.ProcessLost, match="ValueError"):
        next(scored)


def test_the_rows_of_scans_that_were_read_arrive_before_the_error_that_ends_the_run() -> None:
    def refused() -> Iterator[pa.Table]:
        yield files(1)
        yield files(2)
        raise CredentialsRefused("no")

    scored = one_process._scored(order(files(9)), lambda rows: rows, refused())
    assert [next(scored).num_rows for _ in range(2)] == [1, 2]
    with pytest.raises(CredentialsRefused):
        next(scored)


def test_a_batch_holds_40_mb_of_pixels_at_most(tmp_path: Path) -> None:
    write_scans(tmp_path, {"glioma": 3})
    wanted = order(list_scans((str(tmp_path),)), batch_size=1000, spec=ImageSpec(side_px=3000))
    assert [rows.num_rows for rows in one_process._decoded(wanted)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("cores", "memory", "expected"), [(2, 64 << 30, 2), (1, 64 << 30, 1), (2, 4 << 30, 1), (8, 8 << 30, 2)]
)
def test_two_decoders_need_two_cores_and_memory_for_two_of_the_largest_scans(
    cores: int, memory: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_process, "cores", lambda: cores)
    monkeypatch.setattr(one_process, "_CGROUP", str(tmp_path))
    monkeypatch.setattr(one_process.os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 64 << 18)
    (tmp_path / "memory.max").write_text(f"{memory}\n")
    assert one_process._decoders(ImageSpec(side_px=32).max_memory_bytes) == expected


def test_a_cluster_is_joined_for_one_scan_too(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    assert not small(files(1))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    assert small(files(1))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not small(files(1))
    monkeypatch.setenv("RAY_ADDRESS", "")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").touch()
    assert not small(files(1))


def test_a_gpu_that_may_compute_the_model_is_used(
    small: Any, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not small(files(1))
    on_cpu = ScoreConfig(model="m", input=("/scans",), output="/out", engine="openvino")
    assert needs_no_ray(on_cpu, tiny_model, files(1))


def test_parts_hold_whole_files_of_enough_rows_and_a_file_that_is_lost_is_planned_again(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[str]] = []
    monkeypatch.setattr(
        score_alone, "write_part", lambda _fence, _labels, rows, _: written.append(rows["scan_uri"].to_pylist())
    )
    fence: Any = None
    parts = _Parts(fence, tiny_model, part_rows=4)
    parts.add(rows("a", range(1), 1))
    parts.add(rows("b", range(2), 3))
    assert written == []
    parts.add(pa.concat_tables([rows("b", range(2, 3), 3), rows("c", range(2), 4)]))
    assert written == [["a", "b", "b", "b"]]
    parts.add(member_rows("z", range(3), 5))
    parts.write()
    assert written == [["a", "b", "b", "b"]], "neither c nor the archive is whole"
    todo = pa.table([["a", "b", "c", "z"], ["1"] * 4], schema=schema.PLAN)
    assert parts.without(todo)["scan_uri"].to_pylist() == ["c", "z"]


def test_a_container_limits_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_process.os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr(one_process, "_CGROUP", str(tmp_path))
    assert one_process.cores() == 16
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert one_process.cores() == 16
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert one_process.cores() == 2
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert one_process.cores() == 1
