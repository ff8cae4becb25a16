"""Full disks, models and archives that change during a run, wrong clocks, scans that kill their decoder."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mribatch.models.format import Model
from tests.conftest import make_model, write_scans
from tests.faults import standard
from tests.faults.conftest import Archives, Start, Tell
from tests.faults.processes import complete, parts, sabotaged, score_flags, until
from tests.sabotage.sabotage_words import HANGS, KILLS, RAISES

QUICK = 240  # scans


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return small_disk(n), which mounts a disk of n KiB. Called again, it resizes that disk."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(kib: int) -> Path:
        option = "remount," if os.path.ismount(place) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{option}size={kib}k", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a tmpfs, which this user does not have")
        return place

    yield sized
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", str(place)], check=True)


def disk_kib(folder: Path) -> int:
    """Return the KiB that the files of a folder take on a disk of 4 KiB blocks."""
    return sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("percent", [10, 50, 90])
def test_a_full_disk_is_named_and_a_rerun_completes_once_space_is_free(
    percent: int,
    tiny_model: Model,
    archive: Archives,
    tmp_path: Path,
    start: Start,
    tell: Tell,
    small_disk: Callable[[int], Path],
) -> None:
    source, full = archive(QUICK), tmp_path / "full"
    enough = start("score", *score_flags(tiny_model.uri, source.folder, full))
    assert enough.end() == 0, enough.log.read_text()
    disk = small_disk(disk_kib(next(full.glob("model=*"))) * percent // 100)
    flags = score_flags(tiny_model.uri, source.folder, disk / "out")
    job = start("score", *flags)
    assert job.end() == 1, job.log.read_text()
    log = job.log.read_text()
    assert "no space left" in log
    assert str(disk) in log
    assert "Traceback" not in log
    assert standard.records(str(disk / "out")) == []
    committed = len(parts(disk / "out"))
    small_disk(64 << 10)
    complete(start, flags)
    standard.check(str(disk / "out"), source.uris, str(source.undisturbed))
    outcome = f"exit code 1, the disk named, no record, {committed} complete parts; {QUICK} rows once there is space"
    tell("the disk is full", f"at {percent}% of the parts", outcome)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["swapped", "truncated"])
def test_weights_that_change_after_the_start_are_refused_by_every_worker(
    how: str, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    model, other = tmp_path / "model", make_model(tmp_path / "other", seed=9)
    shutil.copytree(tiny_model.uri, model)
    weights = model / "weights.h5"
    job = start("score", *score_flags(str(model), source.folder, output))
    until(lambda: bool(list(output.glob("_runs/*.lock-1"))))  # it has read the model
    if how == "swapped":
        shutil.copy(Path(other.uri) / "weights.h5", weights)
    else:
        weights.write_bytes(weights.read_bytes()[:-100])
    assert job.end() == 2, job.log.read_text()
    assert "SHA-256" in job.log.read_text()
    assert parts(output) == []
    assert standard.records(str(output)) == []
    shutil.copy(Path(tiny_model.uri) / "weights.h5", weights)
    complete(start, score_flags(str(model), source.folder, output))
    standard.check(str(output), source.uris, str(source.undisturbed))
    tell(f"the weights are {how} after the start", "once", "exit code 2, no rows; the rerun has one model digest")


def test_scans_that_change_or_vanish_during_a_run_get_rows_that_say_so(
    tiny_model: Model, tmp_path: Path, start: Start, tell: Tell
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    uris = write_scans(scans, {"glioma": QUICK // 2, "notumor": QUICK // 2})
    deleted, replaced = uris[-1], uris[-2]
    flags = score_flags(tiny_model.uri, scans, output)
    job = start("score", *flags)
    until(lambda: bool(list(output.glob("_runs/*.lock-1"))))  # it has listed the archive
    Path(deleted).unlink()
    Path(replaced).write_bytes(Path(uris[0]).read_bytes() + b"more")
    (new,) = write_scans(scans, {"late": 1})
    assert job.end() == 0, job.log.read_text()
    first = {row["scan_uri"]: row for row in standard.rows(str(output)).to_pylist()}
    assert set(first) == set(uris), "the plan is fixed when a run begins"
    assert (first[deleted]["status"], first[deleted]["reason"]) == ("rejected", "vanished")
    assert (first[replaced]["status"], first[replaced]["reason"]) == ("rejected", "changed")
    complete(start, flags)
    rows = standard.rows(str(output)).to_pylist()
    assert len(rows) == QUICK + 2, "the new scan and the new version, nothing else"
    assert {row["scan_uri"] for row in rows if row["run_id"] != first[deleted]["run_id"]} == {new, replaced}
    outcome = (
        "the plan stays fixed; rows `vanished` and `changed`; the next run scores the new scan and the new version"
    )
    tell("the archive changes during a run", "one scan deleted, one replaced, one added", outcome)


@pytest.mark.slow
def test_a_clock_that_is_a_day_off_changes_nothing_but_scored_at(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    for hours, more in ((24, ["--limit", "80"]), (-24, ["--limit", "80"]), (0, [])):
        job = start("score", *flags, *more, environment=sabotaged(SABOTAGE_CLOCK_H=str(hours)))
        assert job.end() == 0, job.log.read_text()
    standard.check(str(output), source.uris, str(source.undisturbed))
    at = standard.rows(str(output))["scored_at"].to_pylist()
    days = {round((moment - max(at)).total_seconds() / 86400) for moment in at}
    assert days == {0, -1, -2}, "the clocks were really off"
    again = start("score", *flags)
    assert again.end() == 0
    assert "nothing to do" in again.log.read_text()
    tell("clock skew between runs", "+24 h, -24 h, none", "only `scored_at` depends on the clock")


@pytest.mark.parametrize("hanging", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["quick", "full"])
def test_scans_that_kill_or_hang_their_worker_cost_no_other_scan(
    hanging: bool, tiny_model: Model, tmp_path: Path, start: Start, tell: Tell
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    good = write_scans(scans, {"glioma": 40, "notumor": 40})
    ordinary = Path(good[1]).read_bytes()
    poison = {"kills.jpg": KILLS, "kills-its-predictor.jpg": ordinary}
    if hanging:
        poison |= {"hangs.jpg": HANGS, "hangs-its-predictor.jpg": ordinary}
    broken = {"raises.jpg": RAISES, "raises-its-predictor.jpg": ordinary}
    for name, data in (poison | broken).items():
        (scans / "glioma" / name).write_bytes(data)
    os.utime(good[0], ns=(-(10**18), -(10**18)))  # a day in 1938
    flags = score_flags(tiny_model.uri, scans, output, "--scan-timeout-s", "4", "--max-reject-rate", "0.5")
    job = start("score", *flags, environment=sabotaged())
    assert job.end(500) == 0, job.log.read_text()
    rows = standard.rows(str(output))
    reasons = {row["scan_uri"].rpartition("/")[2]: row["reason"] for row in rows.to_pylist() if row["status"] != "ok"}
    assert reasons == {name: "crashed_decoder" if name.startswith("kills") else "timed_out" for name in poison}
    assert rows.num_rows == len(set(rows["scan_uri"].to_pylist())) == len(good) + len(poison)
    (record,) = standard.records(str(output))
    assert record["counts"] == {
        "ok": len(good),
        "rejected": len(poison),
        "skipped": 0,
        "failed": len(broken),
        "left": 0,
    }
    causes = {failed["scan_uri"].rpartition("/")[2]: failed["detail"] for failed in record["failed"]}
    assert set(causes) == set(broken)
    assert causes["raises.jpg"].startswith("ZeroDivisionError")
    assert causes["raises-its-predictor.jpg"].startswith("scoring it: ZeroDivisionError")
    assert "JOHN" not in str(record)
    outcome = (
        "tried alone: `crashed_decoder` or `timed_out`; after any other error: failed, with the cause; exit code 0"
    )
    tell("scans that kill, hang or break their decoder or predictor", f"{len(poison | broken)} among 80", outcome)
