"""Runs stopped at any moment, and Ray dying under a run: the documented exit code, one sentence, a released lock."""

import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mribatch.models.format import Model
from tests.conftest import as_flags
from tests.faults import standard
from tests.faults.conftest import Archives, Launch, ScanFolder, Start, Tell
from tests.faults.processes import Job, complete, paced, parts, score_flags, until

QUICK = 240  # scans
LEASE = ("--lease-s", "300")  # longer than any test, so that a lock that was not released shows


def rows(output: Path) -> int:
    """Return the number of rows in all visible parts, by their names."""
    return sum(int(part.stem.rpartition("-")[2]) for part in parts(output))


MOMENTS: dict[str, Callable[[float, Path], bool]] = {  # from seconds since the start, and the output
    "0.3 s": lambda seconds, _: seconds >= 0.3,  # Python itself
    "1 s": lambda seconds, _: seconds >= 1,  # imports
    "2 s": lambda seconds, _: seconds >= 2,
    "the lock": lambda _, output: bool(list(output.glob("_runs/*.lock-*"))),  # Ray is started next
    "4 s": lambda seconds, _: seconds >= 4,
    "6 s": lambda seconds, _: seconds >= 6,
    "the first part": lambda _, output: len(parts(output)) >= 1,
    "half of the rows": lambda _, output: rows(output) >= QUICK // 2,
    "all rows": lambda _, output: rows(output) >= QUICK,  # the verification
    "the record": lambda _, output: bool(list(output.glob("_runs/*.json"))),
}


def await_moment(job: Job, output: Path, moment: str) -> None:
    begun, process = time.monotonic(), job.process
    until(lambda: MOMENTS[moment](time.monotonic() - begun, output) or process.poll() is not None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def locks(output: Path) -> list[Path]:
    """Return the newest lock of each model or purpose."""
    oldest_first = sorted(output.glob("_runs/*.lock-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return list({path.name.rpartition("-")[0]: path for path in oldest_first}.values())


def check_ended(job: Job, output: Path, code: int) -> None:
    """Check that the run ends with an exit code, one sentence and released locks."""
    ended, text = job.end(60), job.log.read_text()
    assert ended == code, text
    assert "Traceback" not in text
    assert len([line for line in text.splitlines() if line.startswith(("stopped: ", "error: "))]) == 1, text
    assert all(json.loads(lock.read_text())["released"] for lock in locks(output)), text


def stop(job: Job, output: Path, moment: str, *, everything: bool) -> None:
    """Send SIGTERM at a moment, to everything that the run started or to its process group. Check how the run ends."""
    process = job.process
    await_moment(job, output, moment)
    if everything:
        job.signal_all(signal.SIGTERM)
    elif process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    if list(output.glob("_runs/*.json")) and process.wait(60) == 0:
        return  # it was complete before the signal
    if moment == "0.3 s" and process.wait(60) == -signal.SIGTERM:
        assert job.log.read_text() == "", "the package was not loaded yet"
    else:
        check_ended(job, output, 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    ("moments", "everything"),
    [
        (["1 s", "the first part"], True),
        pytest.param(list(MOMENTS), True, marks=pytest.mark.slow),
        pytest.param(list(MOMENTS), False, marks=pytest.mark.slow),
    ],
    ids=["quick", "everything", "group"],
)
def test_a_run_stopped_together_with_its_ray_ends_cleanly_and_a_rerun_completes(
    moments: list[str], everything: bool, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, full = archive(QUICK), len(moments) > 2
    for number, moment in enumerate(moments):
        output = tmp_path / (f"out-{number}" if full else "out")
        flags = score_flags(tiny_model.uri, source.folder, output, *LEASE)
        stop(start("score", *flags, environment=paced()), output, moment, everything=everything)
        if full or moment == moments[-1]:
            complete(start, flags)
            standard.check(str(output), source.uris, str(source.undisturbed))
    targets = "driver, Ray and all workers" if everything else "the process group"
    outcome = f"exit code 143, or 0 at the very end; lock released; {QUICK} rows after the rerun"
    tell(f"SIGTERM of {targets}, rerun", f"{len(moments)} moments from the first second on", outcome)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_three_signals_in_a_row_act_like_one(
    number: signal.Signals, code: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source = archive(QUICK)
    for moment in ("2 s", "4 s", "the first part"):
        output = tmp_path / moment
        flags = score_flags(tiny_model.uri, source.folder, output, *LEASE)
        job = start("score", *flags, environment=paced())
        await_moment(job, output, moment)
        for _ in range(3):
            job.process.send_signal(number)
            time.sleep(0.3)
        check_ended(job, output, code)
    complete(start, flags)
    standard.check(str(output), source.uris, str(source.undisturbed))
    outcome = f"exit code {code}, lock released; {QUICK} rows after the rerun"
    tell(f"{number.name} of the driver, three times", "3 moments", outcome)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_the_death_of_ray_during_a_run_is_reported_and_a_rerun_completes(
    name: str, number: signal.Signals, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output, *LEASE)
    job = start("score", *flags, environment=paced())
    until(lambda: bool(parts(output)))
    process = job.ray_process(name)
    assert process is not None
    os.kill(process, number)
    check_ended(job, output, 1)
    assert standard.records(str(output)) == []
    complete(start, flags)
    standard.check(str(output), source.uris, str(source.undisturbed))
    outcome = f"exit code 1 with one sentence, lock released; {QUICK} rows after the rerun"
    tell(f"{number.name} of Ray's {name}, rerun", "once, while scoring", outcome)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nightly", "evaluate", "promote", "train", "baselines"])
def test_every_command_stopped_together_with_its_ray_ends_cleanly(
    name: str, tiny_model: Model, tmp_path: Path, scan_folder: ScanFolder, start: Start, tell: Tell
) -> None:
    scan_folder(tmp_path / "data", {"glioma": 60, "notumor": 60})
    data, output, models = str(tmp_path / "data"), tmp_path / "out", str(Path(tiny_model.uri).parent)
    flags = {
        "nightly": ["--model", tiny_model.uri, "--input", data, *LEASE],
        "evaluate": ["--model", tiny_model.uri, "--data", data],
        "promote": ["--models", models, "--candidate", Path(tiny_model.uri).name, "--data", data],
        "train": ["--data", data, "--backbone", "cnn", "--epochs", "50", "--storage", str(tmp_path / "store")],
        "baselines": ["--data", data, "--models", "svm", "cnn", "--repeats", "2"],
    }[name]
    stopped = 0
    for seconds in (3, 5, 7, 12):
        job = start(name, *flags, "--output", str(output))
        time.sleep(seconds)
        if job.process.poll() is not None:  # a fast machine: it was complete before the signal
            assert job.end() == 0, job.log.read_text()
            continue
        stopped += 1
        job.signal_all(signal.SIGTERM)
        assert job.end(60) == 128 + signal.SIGTERM, job.log.read_text()
        assert "Traceback" not in job.log.read_text()
        assert job.log.read_text().count("stopped: ") == 1
        held = [lock for folder in tmp_path.rglob("_runs") for lock in locks(folder.parent)]
        assert all(json.loads(lock.read_text())["released"] for lock in held)
    assert stopped >= 2, "the command ended too early to be stopped"
    tell(f"SIGTERM of `{name}`, its Ray and all workers", f"{stopped} moments", "exit code 143, locks released")


@pytest.mark.slow
def test_the_address_file_of_a_killed_head_is_reported(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, launch: Launch, tell: Tell
) -> None:
    source = archive(QUICK)
    short = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # the paths of sockets must be short
    with short as folder:
        environment = {"RAY_TMPDIR": folder, "RAY_ADDRESS": ""}
        ray = str(Path(sys.executable).with_name("ray"))
        options = as_flags(ray_client_server_port=free_port(), object_store_memory=100 << 20, num_cpus=1, port=0)
        switches = ("--block", "--include-dashboard=false", "--disable-usage-stats")
        head = launch(ray, "start", "--head", *switches, *options, environment=environment)
        until(lambda: (Path(folder) / "ray" / "ray_current_cluster").exists())
        head.signal_all(signal.SIGKILL)
        job = start("score", *score_flags(tiny_model.uri, source.folder, tmp_path / "out"), environment=environment)
        check_ended(job, tmp_path / "out", 1)
        for words in ("no Ray head answered at", "ray_current_cluster", "ray stop", "RAY_ADDRESS=local"):
            assert words in job.log.read_text()
        own = environment | {"RAY_ADDRESS": "local"}
        last = start("score", *score_flags(tiny_model.uri, source.folder, tmp_path / "out"), environment=own)
        assert last.end() == 0, last.log.read_text()
    outcome = "exit code 1 with the remedy; all rows with RAY_ADDRESS=local"
    tell("the address file of a killed Ray head", "once", outcome)
