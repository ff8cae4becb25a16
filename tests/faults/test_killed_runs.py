"""Kill real processes; afterwards every scan has its row, once, and no reader ever saw a broken file."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mribatch.learning.artifact import Model

ROOT = Path(__file__).parent.parent.parent
SCANS = 240
KILLS = 5

ScanFolder = Callable[..., list[str]]


class Job:
    """A job as a process in a session of its own, so that killing it kills what it started too, like a lost node."""

    def __init__(self, name: str, *argv: str, log: Path) -> None:
        self._log = log.open("w")
        command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *argv]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True)

    def kill_driver(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._log.close()

    def end(self, seconds: float = 300) -> int:
        code = self.process.wait(seconds)
        self._log.close()
        return code


@pytest.fixture
def reap() -> Iterator[list[Job]]:
    """Whatever a test started ends with it."""
    jobs: list[Job] = []
    yield jobs
    for job in jobs:
        try:
            os.killpg(job.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def until(true: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.05)


def parts(output: Path) -> list[Path]:
    return sorted(output.glob("model=*/part-*"))


def rows(output: Path) -> list[str]:
    """All scans in all visible parts; each part must open."""
    return [uri for part in parts(output) for uri in pq.read_table(part)["scan_uri"].to_pylist()]


def test_a_driver_killed_at_five_moments_loses_nothing_and_scores_nothing_twice(
    tiny_model: Model, tmp_path: Path, scan_folder: ScanFolder, reap: list[Job]
) -> None:
    scan_folder(tmp_path / "scans", {"glioma": SCANS // 2, "notumor": SCANS // 2})
    output = tmp_path / "out"
    argv = ["--model", tiny_model.uri, "--input", str(tmp_path / "scans"), "--output", str(output),
            "--part-rows", "8", "--batch-size", "8", "--lease-s", "2"]  # fmt: skip
    rng, killed = random.Random(7), 0
    while killed < KILLS:
        before = set(parts(output))
        job = Job("score", *argv, log=tmp_path / f"{killed}.log")
        reap.append(job)
        until(lambda seen=before, process=job.process: set(parts(output)) != seen or process.poll() is not None)
        time.sleep(rng.uniform(0, 0.2))
        job.kill_driver()
        seen = rows(output)
        assert len(seen) == len(set(seen)), "a scan stands twice"
        assert before <= set(parts(output)), "committed work was lost"
        killed += 1
        if len(seen) == SCANS:
            break
    last = Job("score", *argv, log=tmp_path / "last.log")
    reap.append(last)
    assert last.end() == 0, (tmp_path / "last.log").read_text()
    final = rows(output)
    assert len(final) == len(set(final)) == SCANS
    assert not list(output.rglob("*.tmp"))
    records = [json.loads(path.read_text()) for path in output.glob("_runs/*.json")]
    assert all(sum(r["counts"].values()) == r["plan"]["planned"] for r in records), (
        "a record stands for a whole run only"
    )


def test_of_two_runs_on_one_output_one_scores_and_the_other_ends_with_4(
    tiny_model: Model, tmp_path: Path, scan_folder: ScanFolder, reap: list[Job]
) -> None:
    scan_folder(tmp_path / "scans", {"glioma": 20, "notumor": 20})
    output = tmp_path / "out"
    argv = ["--model", tiny_model.uri, "--input", str(tmp_path / "scans"), "--output", str(output)]
    first = Job("score", *argv, log=tmp_path / "first.log")
    reap.append(first)
    until(lambda: bool(list(output.glob("_runs/*.lock-1"))))
    second = Job("score", *argv, log=tmp_path / "second.log")
    reap.append(second)
    assert second.end() == 4
    assert "another run" in (tmp_path / "second.log").read_text()
    assert first.end() == 0, (tmp_path / "first.log").read_text()
    assert len(rows(output)) == len(set(rows(output))) == 40


def test_a_rerun_with_nothing_to_do_starts_no_ray_and_loads_no_tensorflow(
    tiny_model: Model, tmp_path: Path, scan_folder: ScanFolder, reap: list[Job]
) -> None:
    scan_folder(tmp_path / "scans", {"glioma": 4, "notumor": 4})
    argv = ["--model", tiny_model.uri, "--input", str(tmp_path / "scans"), "--output", str(tmp_path / "out")]
    first = Job("score", *argv, log=tmp_path / "first.log")
    reap.append(first)
    assert first.end() == 0, (tmp_path / "first.log").read_text()
    code = (
        f"import runpy, sys; code = runpy.run_path({str(ROOT / 'jobs/score.py')!r})['main']({argv!r}); import ray; "
        "print(code, ray.is_initialized(), 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nothing to do: all 8 scans" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 False False False"


def test_a_killed_training_run_goes_on_from_its_last_checkpoint_with_the_optimizer(
    tmp_path: Path, scan_folder: ScanFolder, reap: list[Job]
) -> None:
    scan_folder(tmp_path / "data", {"glioma": 40, "notumor": 40})
    argv = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "model"), "--backbone", "cnn", "--image-side", "64",
            "--epochs", "15", "--patience", "15", "--batch-size", "8", "--storage", str(tmp_path / "store"), "--run-name", "killed"]  # fmt: skip
    first = Job("train", *argv, log=tmp_path / "first.log")
    reap.append(first)
    until(lambda: len(list(tmp_path.glob("store/killed/checkpoint_*/state.json"))) > 0)
    first.kill_driver()
    assert not (tmp_path / "model" / "model.json").exists()
    second = Job("train", *argv, log=tmp_path / "second.log")
    reap.append(second)
    assert second.end() == 0, (tmp_path / "second.log").read_text()
    assert "going on after epoch" in (tmp_path / "second.log").read_text()
    history = pq.read_table(tmp_path / "model" / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == list(range(1, 16)), "no epoch was done twice or left out"
    assert history[-1]["learning_rate"] < 1e-5, "the schedule, and so the optimizer's count of steps, went on too"
