"""Processes killed at any moment: afterwards every scan has one row, the same as in an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mribatch.models.format import Model
from tests.conftest import as_flags
from tests.faults import standard
from tests.faults.conftest import Archives, ScanFolder, Start, Tell
from tests.faults.processes import ROOT, Job, complete, new_parts, paced, parts, sabotaged, score_flags, until
from tests.unit.dicom_files import stack, written
from tests.unit.test_archives import png
from tests.unit.volume_files import as_zip

QUICK, FULL = 240, 1000  # scans

STEPS = {  # of a run, and their places in the package as tests/sabotage takes them
    "before the lock is created": "mribatch.stores.uris:create:before:1:.lock-",
    "after the lock was created": "mribatch.stores.uris:create:after:1:.lock-",
    "after the plan was made": "mribatch.predictions.ledger:plan:after",
    "before the third part is put": "mribatch.stores.uris:put:before:3:part-",
    "before the third part's temporary file": "mribatch.stores.disk:write_flushed:before:3:part-",
    "after the third part's temporary file": "mribatch.stores.disk:write_flushed:after:3:part-",
    "after the third part was put": "mribatch.stores.uris:put:after:3:part-",
    "before the verification": "mribatch.predictions.ledger:verify:before",
    "after the verification": "mribatch.predictions.ledger:verify:after",
    "before the record is written": "mribatch.predictions.ledger:write_record:before",
    "after the record was written": "mribatch.predictions.ledger:write_record:after",
    "before the lock is released": 'mribatch.stores.uris:put:before:1:"released": true',
}
WITH_A_RECORD = ("after the record was written", "before the lock is released")
QUICK_STEP = STEPS["after the third part's temporary file"]


def scans_in(output: Path) -> list[str]:
    """Return the scans in all visible parts, even while a run writes more. Each part must open."""
    return [uri for part in parts(output) for uri in pq.read_table(part)["scan_uri"].to_pylist()]


def killed_at_random(start: Start, flags: list[str], output: Path, kills: int) -> int:
    """Start and kill a driver again and again, before or between its parts. Return the number of kills."""
    rng, killed = random.Random(7), 0
    while killed < kills:
        before, more = set(parts(output)), rng.randint(0, 6)
        job = start("score", *flags, environment=paced())
        until(new_parts(job, output, before, more))
        time.sleep(rng.uniform(0, 0.2 if more else 12))  # with no part to wait for, kill it while it starts
        job.kill_driver()
        killed += 1
        rows = scans_in(output)
        assert len(rows) == len(set(rows)), "a scan has two rows"
        assert before <= set(parts(output)), "committed work was lost"
        if job.process.returncode == 0:
            break
    return killed


def test_a_driver_that_is_killed_terminated_and_killed_within_a_commit_loses_nothing(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start
) -> None:
    """Give a small dose of each of the next three tests, in one chain of runs."""
    source, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    first = start("score", *flags, environment=paced())
    until(lambda: bool(parts(output)))
    first.kill_driver()
    terminate(start, flags, output, after_parts=1)
    last = start("score", *flags, environment=sabotaged(SABOTAGE=QUICK_STEP))
    assert last.end() == -signal.SIGKILL, last.log.read_text()
    last.reap()
    committed = len(scans_in(output))
    complete(start, flags)
    standard.check(str(output), source.uris, str(source.undisturbed))
    assert standard.records(str(output))[-1]["plan"]["done"] == committed > 0, "committed rows are not scored again"


def frames_of(output: Path) -> dict[str, list[int]]:
    """Return the frames that the visible parts hold, by file."""
    frames: dict[str, list[int]] = {}
    for part in parts(output):
        table = pq.read_table(part)
        for uri, frame in zip(table["scan_uri"].to_pylist(), table["frame"].to_pylist(), strict=True):
            frames.setdefault(Path(uri).name, []).append(frame)
    return {name: sorted(numbers) for name, numbers in frames.items()}


def kill_while_it_writes(job: Job, most: int, rng: random.Random) -> int:
    """Kill writers of a run at random moments of their work, and as the last of `most` kills all of the run.

    Return the number of kills; fewer if the run ends first.
    """
    killed = 0
    while killed < most:
        until(lambda: bool(job.workers("Write")) or job.process.poll() is not None)
        if job.process.poll() is not None:
            return killed
        time.sleep(rng.uniform(0, 0.1))
        if killed == most - 1:
            job.reap()
            return most
        killed += job.kill_a_worker("Write", rng)
    return killed


@pytest.mark.slow
@pytest.mark.parametrize("kills", [int(os.environ.get("FAULTS_KILLS", "100"))])
def test_runs_killed_a_hundred_times_while_they_write_files_of_500_frames_leave_each_frame_once(
    kills: int, tiny_model: Model, tmp_path: Path, start: Start, tell: Tell
) -> None:
    """Add ten files before each run, so that it has something to write, and kill it ten times at most."""
    scans, output, rng = tmp_path / "scans", tmp_path / "out", random.Random(16)
    scans.mkdir()
    (tmp_path / "500.dcm").write_bytes(written(stack(500)))
    expected: dict[str, list[int]] = {}
    flags = [*score_flags(tiny_model.uri, scans, output, "--part-rows", "100"), "--identifiers", "none"]
    killed, runs = 0, 0
    while killed < kills:
        for name in (f"{runs:03d}-{number}.dcm" for number in range(10)):
            (scans / name).hardlink_to(tmp_path / "500.dcm")
            expected[name] = list(range(500))
        killed, runs = killed + kill_while_it_writes(start("score", *flags), min(10, kills - killed), rng), runs + 1
        assert frames_of(output).items() <= expected.items(), "a file has some of its frames, or one twice"
    committed = len(frames_of(output))
    (scans / "last.dcm").hardlink_to(tmp_path / "500.dcm")
    expected["last.dcm"] = list(range(500))
    complete(start, flags)
    assert frames_of(output) == expected
    assert standard.records(str(output))[-1]["plan"]["done"] == committed, "committed files are not scored again"
    dose = f"{kills} kills of writers and whole runs at random moments of {runs} runs"
    tell("SIGKILL while files of 500 frames are written, rerun", dose, f"{len(expected) * 500:,} frames, each once")


WRITING = ("mribatch.stores.disk:write_flushed:after:1:part-", "mribatch.stores.uris:put:before:1:part-")


@pytest.mark.parametrize("steps", [WRITING[:1], pytest.param(WRITING, marks=pytest.mark.slow)], ids=["quick", "full"])
def test_a_file_of_many_frames_has_all_of_them_or_none_whenever_the_run_is_killed(
    steps: tuple[str, ...], tiny_model: Model, tmp_path: Path, start: Start
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    expected = {f"{name}.dcm": list(range(count)) for name, count in (("a", 40), ("b", 500), ("c", 90))}
    for name, numbers in expected.items():
        (scans / name).write_bytes(written(stack(len(numbers))))
    flags = [*score_flags(tiny_model.uri, scans, output), "--identifiers", "none"]
    for step in steps:
        job = start("score", *flags, environment=sabotaged(SABOTAGE=step))
        job.end()
        job.reap()
        present = frames_of(output)
        assert present.items() <= expected.items(), "a file has some of its frames"
    complete(start, flags)
    assert frames_of(output) == expected


@pytest.mark.parametrize(("members", "steps"), [(40, WRITING[:1]), pytest.param(200, WRITING, marks=pytest.mark.slow)])
def test_a_run_killed_while_an_archive_is_written_has_each_member_once_after_the_next(
    members: int, steps: tuple[str, ...], tiny_model: Model, tmp_path: Path, start: Start
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    expected = {f"{name}.zip!{n}.png": [0] for name, count in (("a", members), ("b", 30)) for n in range(count)}
    for name, count in (("a", members), ("b", 30)):
        (scans / f"{name}.zip").write_bytes(as_zip({f"{n}.png": png(n) for n in range(count)}))
    flags = score_flags(tiny_model.uri, scans, output)
    for step in steps:
        job = start("score", *flags, environment=sabotaged(SABOTAGE=step))
        job.end()
        job.reap()
        present = frames_of(output)
        assert present.items() <= expected.items()
        archives = {name.partition("!")[0] for name in present}
        assert len(present) == sum(name.partition("!")[0] in archives for name in expected), (
            "some members of an archive"
        )
    complete(start, flags)
    assert frames_of(output) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("scans", "kills"), [(FULL, 20)])
def test_a_driver_killed_at_random_moments_loses_nothing_and_scores_nothing_twice(
    scans: int, kills: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(scans), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    killed = killed_at_random(start, flags, output, kills)
    committed = len(scans_in(output))
    complete(start, flags)
    standard.check(str(output), source.uris, str(source.undisturbed))
    reused = standard.records(str(output))[-1]["plan"]["done"] if committed < scans else committed
    assert reused >= 0.8 * committed
    outcome = f"{scans:,} rows; {reused:,} of {committed:,} committed rows reused"
    tell("SIGKILL of the driver, rerun", f"{killed} random moments, {scans:,} scans", outcome)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "scans"), [(step, FULL) for step in STEPS])
def test_a_driver_killed_at_a_step_of_the_commit_loses_nothing(
    step: str, scans: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(scans), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    job = start("score", *flags, environment=sabotaged(SABOTAGE=STEPS[step]))
    assert job.end() == -signal.SIGKILL, f"the run did not reach its step: {job.log.read_text()}"
    job.reap()
    committed = len(scans_in(output))
    records = len(standard.records(str(output)))
    assert records == (1 if step in WITH_A_RECORD else 0), "only a complete run has a record"
    complete(start, flags)
    standard.check(str(output), source.uris, str(source.undisturbed))
    reused = standard.records(str(output))[-1]["plan"]["done"] if committed < scans else committed
    assert reused >= 0.8 * committed
    outcome = f"{scans:,} rows; {reused:,} of {committed:,} committed rows reused"
    tell("SIGKILL of the driver, rerun", step, outcome)


@pytest.mark.parametrize(
    ("scans", "kills"), [(QUICK, 2), pytest.param(FULL, 20, marks=pytest.mark.slow)], ids=["quick", "full"]
)
def test_killed_workers_cost_neither_a_scan_nor_the_run(
    scans: int, kills: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output, rng = archive(scans), tmp_path / "out", random.Random(3)
    job = start("score", *score_flags(tiny_model.uri, source.folder, output), environment=paced())
    until(lambda: bool(parts(output)))
    killed = 0
    while killed < kills and job.process.poll() is None:
        before = len(parts(output))
        killed += job.kill_a_worker(rng.choice(("WatchedPredictor", "decode_blocks", "")), rng)
        until(lambda before=before: len(parts(output)) > before or job.process.poll() is not None)
    assert job.end() == 0, job.log.read_text()
    assert killed == kills, "the run ended before all workers were killed"
    standard.check(str(output), source.uris, str(source.undisturbed))
    tell("SIGKILL of a scoring worker", f"{killed} in one run of {scans:,} scans", f"{scans:,} rows, exit code 0")


def terminate(start: Start, flags: list[str], output: Path, after_parts: int) -> None:
    """Send SIGTERM to a run after so many parts, and check that it releases its lock and leaves no record."""
    records, locks = standard.records(str(output)), set(output.glob("_runs/*.lock-*"))
    job = start("score", *flags, environment=paced())
    until(lambda: set(output.glob("_runs/*.lock-*")) > locks)  # until then, workers of a killed run may still write
    before = len(parts(output))
    until(lambda: len(parts(output)) >= before + after_parts)
    time.sleep(random.Random(5).uniform(0, 0.2))
    job.process.send_signal(signal.SIGTERM)
    assert job.end() == 128 + signal.SIGTERM, job.log.read_text()
    assert "Traceback" not in job.log.read_text()
    assert standard.records(str(output)) == records
    lock = max(output.glob("_runs/*.lock-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    assert json.loads(lock.read_text())["released"], "a terminated run releases its lock"


@pytest.mark.slow
@pytest.mark.parametrize(("scans", "moments"), [(FULL, 5)])
def test_a_terminated_run_releases_its_lock_at_once_and_a_rerun_completes(
    scans: int, moments: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source = archive(scans)
    for moment in range(moments):
        output = tmp_path / f"out-{moment}"
        flags = score_flags(tiny_model.uri, source.folder, output, "--lease-s", "300")  # longer than the test waits
        terminate(start, flags, output, after_parts=1 + moment * scans // 80)
        complete(start, flags)
        standard.check(str(output), source.uris, str(source.undisturbed))
    outcome = f"exit code 143, lock released; {scans:,} rows after the rerun"
    tell("SIGTERM of the driver, rerun", f"{moments} moments", outcome)


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [10])
def test_of_two_runs_on_one_output_one_scores_and_the_other_exits_with_4(
    rounds: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, rng = archive(QUICK), random.Random(11)
    for number in range(rounds):
        output = tmp_path / f"out-{number}"
        flags = score_flags(tiny_model.uri, source.folder, output)
        first = start("score", *flags)
        time.sleep(rng.uniform(0, 2.0))
        second = start("score", *flags)
        codes = sorted((first.end(), second.end()))
        assert codes == [0, 4], first.log.read_text() + second.log.read_text()
        loser = second if second.process.returncode == 4 else first
        assert "another run" in loser.log.read_text()
        standard.check(str(output), source.uris, str(source.undisturbed))
    tell(
        "two runs on one output", f"{rounds} rounds, starts 0 to 2 s apart", "one commits, the other exits with code 4"
    )


@pytest.mark.slow
def test_the_lock_of_a_dead_run_is_taken_over_after_its_lease_and_not_before(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output, "--lease-s", "6")
    first = start("score", *flags)
    until(lambda: bool(parts(output)))
    first.kill_driver()
    died = next(output.glob("_runs/*.lock-1")).stat().st_mtime
    second = start("score", *flags)
    until(lambda: bool(list(output.glob("_runs/*.lock-2"))))
    waited = next(output.glob("_runs/*.lock-2")).stat().st_mtime - died
    assert waited >= 6.0, "a lock is not taken over before its lease ends"
    assert second.end() == 0, second.log.read_text()
    standard.check(str(output), source.uris, str(source.undisturbed))
    tell("the holder of a lock dies", "SIGKILL, lease 6 s", "the lock is taken over after the lease, not before")


def test_a_rerun_with_nothing_to_do_starts_no_ray_and_loads_no_tensorflow(
    tiny_model: Model, archive: Archives, tmp_path: Path
) -> None:
    source = archive(QUICK)
    argv = ["--model", tiny_model.uri, "--input", str(source.folder), "--output", str(source.undisturbed)]
    code = (
        f"import runpy, sys; code = runpy.run_path({str(ROOT / 'jobs/score.py')!r})['main']({argv!r}); import ray; "
        "print(code, ray.is_initialized(), 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"nothing to do: all {QUICK} scans" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 False False False"


TRAINING = as_flags(backbone="cnn", image_side=64, patience=20, batch_size=8, run_name="killed")


@pytest.mark.parametrize(
    "kills", [["driver"], pytest.param(["worker", "driver"], marks=pytest.mark.slow)], ids=["quick", "full"]
)
def test_a_training_whose_worker_and_driver_are_killed_resumes_with_its_optimizer(
    kills: list[str], tmp_path: Path, scan_folder: ScanFolder, start: Start, tell: Tell
) -> None:
    scan_folder(tmp_path / "data", {"glioma": 40, "notumor": 40})
    epochs = 6 if kills == ["driver"] else 20
    places = as_flags(data=tmp_path / "data", output=tmp_path / "model", storage=tmp_path / "store")
    argv = [*places, *TRAINING, "--epochs", str(epochs)]
    first = start("train", *argv)
    until(lambda: "epoch 3/" in first.log.read_text())  # then the checkpoint of epoch 2 is registered
    if "worker" in kills:
        assert first.kill_a_worker("RayTrainWorker", random.Random(0))
        until(lambda: "resuming after epoch" in first.log.read_text())
        until(lambda: "done" in first.log.read_text().rpartition("resuming after epoch")[2])
    first.kill_driver()
    first.reap()
    assert not (tmp_path / "model" / "model.json").exists()
    second = start("train", *argv)
    assert second.end() == 0, second.log.read_text()
    assert "resuming after epoch" in second.log.read_text()
    history = pq.read_table(tmp_path / "model" / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1)), "no epoch was repeated or left out"
    assert history[-1]["learning_rate"] < 1e-5, "the schedule resumed, and so the optimizer's count of steps"
    outcome = "resumes after the last checkpoint with optimizer and schedule; no epoch is repeated"
    tell(f"training: SIGKILL of the {', then of the '.join(kills)} within an epoch", "once each", outcome)
