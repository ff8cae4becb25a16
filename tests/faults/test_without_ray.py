"""A run of few scans needs no Ray, and loses nothing when it is killed. No test here starts Ray: see test_ray_takes_over.py."""

import signal
import time
from pathlib import Path

import pytest

from mribatch.models.format import Model
from tests.faults import standard
from tests.faults.conftest import Archive, Archives, Start, Tell
from tests.faults.processes import WITHOUT_RAY, Job, complete, paced, parts, sabotaged, score_flags, until
from tests.faults.test_killed_runs import STEPS

QUICK = 200
_SHORT = ("after the third part's temporary file", "before the verification", "after the record was written")


def completed(start: Start, flags: list[str], source: Archive, output: Path) -> Job:
    """Run a job to its end and make the standard check."""
    last = complete(start, flags)
    standard.check(str(output), source.uris, str(source.undisturbed))
    return last


def test_few_scans_are_scored_without_ray_with_the_rows_that_ray_writes(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    last = completed(start, score_flags(tiny_model.uri, source.folder, output), source, output)
    assert "Ray" not in last.log.read_text()
    (record,) = standard.records(str(output))
    assert [(node["id"], node["scans"]) for node in record["nodes"]] == [("this machine", QUICK)]
    assert len(parts(output)) > QUICK // 16, "parts are written as the run goes on"


@pytest.mark.parametrize(
    "step",
    [step if step in _SHORT else pytest.param(step, marks=pytest.mark.slow) for step in STEPS if "lock" not in step],
)
def test_a_run_without_ray_killed_at_a_step_of_the_commit_loses_nothing(
    step: str, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    job = start("score", *flags, environment=WITHOUT_RAY | sabotaged(SABOTAGE=STEPS[step]))
    assert job.end() == -signal.SIGKILL, job.log.read_text()
    until(lambda: not job.processes(""), 20)
    time.sleep(2)  # the lease
    completed(start, flags, source, output)
    tell("SIGKILL of a run without Ray", step, "no process is left; the next run completes it")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_without_ray_that_is_stopped_releases_its_lock_and_leaves_no_process(
    number: signal.Signals, code: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    job = start("score", *flags, environment=WITHOUT_RAY | paced())
    until(lambda: bool(parts(output)) or job.process.poll() is not None)
    job.process.send_signal(number)
    assert job.end() == code, job.log.read_text()
    assert not job.processes("")
    completed(start, flags, source, output)  # at once
    tell("a run without Ray is stopped", number.name, f"exit code {code}, the lock is released, no process is left")


def test_scans_that_a_night_without_ray_does_not_begin_in_time_are_left(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    job = start("nightly", *flags, "--max-hours", "0.0001", environment=WITHOUT_RAY)
    assert job.end() == 0, job.log.read_text()
    (record,) = standard.records(str(output))
    assert record["counts"]["left"] > 0
    assert record["counts"]["ok"] + record["counts"]["left"] == record["plan"]["planned"] == QUICK
    completed(start, flags, source, output)
