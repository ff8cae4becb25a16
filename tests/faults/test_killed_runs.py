"""Kill real processes at any moment; afterwards every scan has its row, once, as in a run that nothing disturbed."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mribatch.models.format import Model
from tests.faults import standard
from tests.faults.conftest import Archive, Start, Tell
from tests.faults.processes import ROOT, SABOTAGE, parts, score_flags, until

Archives = Callable[[int], Archive]
ScanFolder = Callable[..., list[str]]

QUICK, FULL = 240, 1000  # scans

STEPS = [
    "mribatch.stores.uris:create:before:1:.lock-",
    "mribatch.stores.uris:create:after:1:.lock-",
    "mribatch.predictions.ledger:plan:after",
    "mribatch.stores.uris:put:before:3:part-",
    "mribatch.stores.disk:write_flushed:before:3:part-",
    "mribatch.stores.disk:write_flushed:after:3:part-",
    "mribatch.stores.uris:put:after:3:part-",
    "mribatch.predictions.ledger:verify:before",
    "mribatch.predictions.ledger:verify:after",
    "mribatch.predictions.ledger:write_record:before",
    "mribatch.predictions.ledger:write_record:after",
    'mribatch.stores.uris:put:before:1:"released": true',
]
QUICK_STEP = STEPS[5]


def seen(output: Path) -> list[str]:
    """All scans in all visible parts, while others write; each part must open."""
    return [uri for part in parts(output) for uri in pq.read_table(part)["scan_uri"].to_pylist()]


def complete(start: Start, flags: list[str]) -> None:
    last = start("score", *flags)
    assert last.end() == 0, last.log.read_text()


def killed_at_random(start: Start, flags: list[str], output: Path, kills: int) -> int:
    """Kill a driver again and again, each at some moment before or between its parts. How often."""
    rng, killed = random.Random(7), 0
    while killed < kills:
        before, more = set(parts(output)), rng.randint(0, 6)
        job = start("score", *flags)
        until(lambda seen=before, more=more, process=job.process:
              len(set(parts(output)) - seen) >= more or process.poll() is not None)  # fmt: skip
        time.sleep(rng.uniform(0, 0.2 if more else 12))  # where no part is waited for: while it starts
        job.kill_driver()
        killed += 1
        rows = seen(output)
        assert len(rows) == len(set(rows)), "a scan stands twice"
        assert before <= set(parts(output)), "committed work was lost"
        if job.process.returncode == 0:
            break
    return killed


def test_a_driver_killed_asked_to_end_and_killed_within_a_commit_loses_nothing(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start
) -> None:
    """A little of each of the next three tests, in one chain of runs."""
    about, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, about.folder, output)
    assert killed_at_random(start, flags, output, kills=1) == 1
    asked_to_end(start, flags, output, after_parts=1)
    last = start("score", *flags, environment={"PYTHONPATH": str(SABOTAGE), "SABOTAGE": QUICK_STEP})
    assert last.end() == -signal.SIGKILL, last.log.read_text()
    last.reap()
    committed = len(seen(output))
    complete(start, flags)
    standard.check(str(output), about.uris, str(about.undisturbed))
    assert standard.records(str(output))[-1]["plan"]["done"] == committed > 0, "what was committed is not scored again"


@pytest.mark.slow
@pytest.mark.parametrize(("scans", "kills"), [(FULL, 20)])
def test_a_driver_killed_at_random_moments_loses_nothing_and_scores_nothing_twice(
    scans: int, kills: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    about, output = archive(scans), tmp_path / "out"
    flags = score_flags(tiny_model.uri, about.folder, output)
    killed = killed_at_random(start, flags, output, kills)
    committed = len(seen(output))
    complete(start, flags)
    standard.check(str(output), about.uris, str(about.undisturbed))
    reused = standard.records(str(output))[-1]["plan"]["done"] if committed < scans else committed
    assert reused >= 0.8 * committed
    tell("SIGKILL of the driver, rerun", f"{killed} random moments, {scans:,} scans",
         f"{scans:,} rows; {reused:,} of {committed:,} committed rows reused")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("step", "scans"), [(step, FULL) for step in STEPS])
def test_a_driver_killed_at_a_step_of_the_commit_loses_nothing(
    step: str, scans: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    about, output = archive(scans), tmp_path / "out"
    flags = score_flags(tiny_model.uri, about.folder, output)
    job = start("score", *flags, environment={"PYTHONPATH": str(SABOTAGE), "SABOTAGE": step})
    assert job.end() == -signal.SIGKILL, f"the run did not come by {step}: {job.log.read_text()}"
    job.reap()
    committed = len(seen(output))
    records = len(standard.records(str(output)))
    assert records == (1 if step in STEPS[-2:] else 0), "a record stands for a whole run only"
    complete(start, flags)
    standard.check(str(output), about.uris, str(about.undisturbed))
    reused = standard.records(str(output))[-1]["plan"]["done"] if committed < scans else committed
    assert reused >= 0.8 * committed
    tell(
        "SIGKILL of the driver, rerun", f"at `{step}`", f"{scans:,} rows; {reused} of {committed} committed rows reused"
    )


@pytest.mark.parametrize(
    ("scans", "kills"), [(QUICK, 2), pytest.param(FULL, 20, marks=pytest.mark.slow)], ids=["quick", "full"]
)
def test_killed_workers_cost_no_scan_and_no_run(
    scans: int, kills: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    about, output, rng = archive(scans), tmp_path / "out", random.Random(3)
    job = start("score", *score_flags(tiny_model.uri, about.folder, output))
    until(lambda: bool(parts(output)))
    killed = 0
    while killed < kills and job.process.poll() is None:
        before = len(parts(output))
        killed += job.kill_a_worker(rng.choice(("WatchedPredictor", "decode_table", "")), rng)
        until(lambda before=before: len(parts(output)) > before or job.process.poll() is not None)
    assert job.end() == 0, job.log.read_text()
    assert killed == kills, "the run was over before the dose was given"
    standard.check(str(output), about.uris, str(about.undisturbed))
    tell("SIGKILL of a scoring worker", f"{killed} in one run of {scans:,} scans", f"{scans:,} rows, exit 0")


def asked_to_end(start: Start, flags: list[str], output: Path, after_parts: int) -> None:
    """SIGTERM for a run that has made so many parts visible: it ends, lets go of the output, and leaves no record."""
    records, locks = standard.records(str(output)), set(output.glob("_runs/*.lock-*"))
    job = start("score", *flags)
    until(lambda: set(output.glob("_runs/*.lock-*")) > locks)  # workers of a killed run may write on until then
    there = len(parts(output))
    until(lambda: len(parts(output)) >= there + after_parts)
    time.sleep(random.Random(5).uniform(0, 0.2))
    job.process.send_signal(signal.SIGTERM)
    assert job.end() == 128 + signal.SIGTERM, job.log.read_text()
    assert "Traceback" not in job.log.read_text()
    assert standard.records(str(output)) == records
    lock = max(output.glob("_runs/*.lock-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    assert json.loads(lock.read_text())["released"], "a run that was asked to end lets go of the output"


@pytest.mark.slow
@pytest.mark.parametrize(("scans", "moments"), [(FULL, 5)])
def test_a_run_that_is_asked_to_end_lets_go_at_once_and_can_go_on(
    scans: int, moments: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    about = archive(scans)
    for moment in range(moments):
        output = tmp_path / f"out-{moment}"
        flags = score_flags(tiny_model.uri, about.folder, output, "--lease-s", "300")  # not waited for
        asked_to_end(start, flags, output, after_parts=1 + moment * scans // 80)
        complete(start, flags)
        standard.check(str(output), about.uris, str(about.undisturbed))
    tell(
        "SIGTERM of the driver, rerun", f"{moments} moments", f"exit 143, lock released, {scans:,} rows after the rerun"
    )


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [10])
def test_of_two_runs_on_one_output_one_scores_and_the_other_ends_with_4(
    rounds: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    about, rng = archive(QUICK), random.Random(11)
    for number in range(rounds):
        output = tmp_path / f"out-{number}"
        flags = score_flags(tiny_model.uri, about.folder, output)
        first = start("score", *flags)
        time.sleep(rng.uniform(0, 2.0))
        second = start("score", *flags)
        codes = sorted((first.end(), second.end()))
        assert codes == [0, 4], first.log.read_text() + second.log.read_text()
        loser = second if second.process.returncode == 4 else first
        assert "another run" in loser.log.read_text()
        standard.check(str(output), about.uris, str(about.undisturbed))
    tell("two runs on one output", f"{rounds} rounds, starts 0 to 2 s apart", "one commits, the other ends with code 4")


@pytest.mark.slow
def test_the_lock_of_a_dead_run_is_taken_over_after_its_lease_and_not_before(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    about, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, about.folder, output, "--lease-s", "6")
    first = start("score", *flags)
    until(lambda: bool(parts(output)))
    first.kill_driver()
    died = next(output.glob("_runs/*.lock-1")).stat().st_mtime
    second = start("score", *flags)
    until(lambda: bool(list(output.glob("_runs/*.lock-2"))))
    waited = next(output.glob("_runs/*.lock-2")).stat().st_mtime - died
    assert waited >= 6.0, "a lock is not taken before its lease is over"
    assert second.end() == 0, second.log.read_text()
    standard.check(str(output), about.uris, str(about.undisturbed))
    tell("a lock whose holder died", "SIGKILL, lease 6 s", "taken over after the lease, not before")


def test_a_rerun_with_nothing_to_do_starts_no_ray_and_loads_no_tensorflow(
    tiny_model: Model, archive: Archives, tmp_path: Path
) -> None:
    about = archive(QUICK)
    argv = ["--model", tiny_model.uri, "--input", str(about.folder), "--output", str(about.undisturbed)]
    code = (
        f"import runpy, sys; code = runpy.run_path({str(ROOT / 'jobs/score.py')!r})['main']({argv!r}); import ray; "
        "print(code, ray.is_initialized(), 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"nothing to do: all {QUICK} scans" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 False False False"


TRAINING = ["--backbone", "cnn", "--image-side", "64", "--patience", "20", "--batch-size", "8", "--run-name", "killed"]


@pytest.mark.parametrize(
    "kills", [["driver"], pytest.param(["worker", "driver"], marks=pytest.mark.slow)], ids=["quick", "full"]
)
def test_a_training_whose_worker_and_driver_are_killed_goes_on_with_its_optimizer(
    kills: list[str], tmp_path: Path, scan_folder: ScanFolder, start: Start, tell: Tell
) -> None:
    scan_folder(tmp_path / "data", {"glioma": 40, "notumor": 40})
    epochs = 6 if kills == ["driver"] else 20
    argv = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "model"), *TRAINING,
            "--epochs", str(epochs), "--storage", str(tmp_path / "store")]  # fmt: skip
    first = start("train", *argv)
    until(lambda: "epoch 3/" in first.log.read_text())  # so the second one's checkpoint is known to all
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
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1)), "no epoch was done twice or left out"
    assert history[-1]["learning_rate"] < 1e-5, "the schedule, and so the optimizer's count of steps, went on too"
    tell(f"training: {', then the '.join(kills)} killed in an epoch", "one each",
         "goes on after the last checkpoint with optimizer and schedule; no epoch twice")  # fmt: skip
