"""Signals to all of a run at any moment, and a Ray that dies under it: the documented code, one sentence, a free lock."""

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
from tests.faults import standard
from tests.faults.conftest import Archive, Launch, ScanFolder, Start, Tell
from tests.faults.processes import Job, parts, score_flags, until

Archives = Callable[[int], Archive]

QUICK = 240  # scans
LEASE = ("--lease-s", "300")  # longer than any test: a lock that was not released would be noticed


def rows(output: Path) -> int:
    """The rows of all visible parts, by their names."""
    return sum(int(part.stem.rpartition("-")[2]) for part in parts(output))


MOMENTS: dict[str, Callable[[float, Path], bool]] = {  # of the seconds since the start and the output
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
    """The newest lock of each model or purpose."""
    found = sorted(output.glob("_runs/*.lock-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return list({path.name.rpartition("-")[0]: path for path in found}.values())


def check_ended(job: Job, output: Path, code: int) -> None:
    """The run has ended with a code, one sentence and free locks."""
    ended, text = job.end(60), job.log.read_text()
    assert ended == code, text
    assert "Traceback" not in text
    assert len([line for line in text.splitlines() if line.startswith(("stopped: ", "error: "))]) == 1, text
    assert all(json.loads(lock.read_text())["released"] for lock in locks(output)), text


def stop(job: Job, output: Path, moment: str, *, everything: bool) -> None:
    """SIGTERM at a moment, for everything that the run started or for its process group."""
    process = job.process
    await_moment(job, output, moment)
    if everything:
        job.signal_all(signal.SIGTERM)
    elif process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    if list(output.glob("_runs/*.json")) and process.wait(60) == 0:
        return  # it had come to its end before
    if moment == "0.3 s" and process.wait(60) == -signal.SIGTERM:
        assert job.log.read_text() == "", "nothing of ours was loaded yet"
    else:
        check_ended(job, output, 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    ("moments", "everything"),
    [
        (["1 s", "4 s", "the first part"], True),
        pytest.param(list(MOMENTS), True, marks=pytest.mark.slow),
        pytest.param(list(MOMENTS), False, marks=pytest.mark.slow),
    ],
    ids=["quick", "everything", "group"],
)
def test_a_run_that_is_ended_with_its_ray_ends_clean_and_a_rerun_completes(
    moments: list[str], everything: bool, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    about, full = archive(QUICK), len(moments) > 3
    for number, moment in enumerate(moments):
        output = tmp_path / (f"out-{number}" if full else "out")
        flags = score_flags(tiny_model.uri, about.folder, output, *LEASE)
        stop(start("score", *flags), output, moment, everything=everything)
        if full or moment == moments[-1]:
            last = start("score", *flags)
            assert last.end() == 0, last.log.read_text()
            standard.check(str(output), about.uris, str(about.undisturbed))
    whom = "driver, Ray and all workers" if everything else "the process group"
    tell(f"SIGTERM of {whom}, rerun", f"{len(moments)} moments from the first second on",
         f"exit 143 or, at the end, 0; lock released; {QUICK} rows after the rerun")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_three_signals_in_a_row_are_as_one(
    number: signal.Signals, code: int, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    about = archive(QUICK)
    for moment in ("2 s", "4 s", "the first part"):
        output = tmp_path / moment
        flags = score_flags(tiny_model.uri, about.folder, output, *LEASE)
        job = start("score", *flags)
        await_moment(job, output, moment)
        for _ in range(3):
            job.process.send_signal(number)
            time.sleep(0.3)
        check_ended(job, output, code)
    last = start("score", *flags)
    assert last.end() == 0, last.log.read_text()
    standard.check(str(output), about.uris, str(about.undisturbed))
    tell(
        f"{number.name} of the driver, three times",
        "3 moments",
        f"exit {code}, lock released; {QUICK} rows after the rerun",
    )


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("raylet", signal.SIGTERM),
        pytest.param("raylet", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("gcs_server", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("gcs_server", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_ray_that_dies_under_a_run_is_reported_and_a_rerun_completes(
    name: str, number: signal.Signals, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    about, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, about.folder, output, *LEASE)
    job = start("score", *flags)
    until(lambda: bool(parts(output)))
    process = job.ray_process(name)
    assert process is not None
    os.kill(process, number)
    check_ended(job, output, 1)
    assert standard.records(str(output)) == []
    last = start("score", *flags)
    assert last.end() == 0, last.log.read_text()
    standard.check(str(output), about.uris, str(about.undisturbed))
    tell(f"{number.name} of Ray's {name}, rerun", "once, while scoring",
         f"exit 1 with one sentence, lock released; {QUICK} rows after the rerun")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nightly", "evaluate", "promote", "train", "baselines"])
def test_every_command_that_is_ended_with_its_ray_ends_clean(
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
        if job.process.poll() is not None:  # a quick machine: it was over before
            assert job.end() == 0, job.log.read_text()
            continue
        stopped += 1
        job.signal_all(signal.SIGTERM)
        assert job.end(60) == 128 + signal.SIGTERM, job.log.read_text()
        assert "Traceback" not in job.log.read_text()
        assert job.log.read_text().count("stopped: ") == 1
        held = [lock for folder in tmp_path.rglob("_runs") for lock in locks(folder.parent)]
        assert all(json.loads(lock.read_text())["released"] for lock in held)
    assert stopped >= 2, "the commands must run long enough to be stopped"
    tell(f"SIGTERM of `{name}`, its Ray and all workers", f"{stopped} moments", "exit 143, locks released")


@pytest.mark.slow
def test_the_note_of_a_head_that_was_killed_is_reported(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, launch: Launch, tell: Tell
) -> None:
    about = archive(QUICK)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # a socket's path is short
        environment = {"RAY_TMPDIR": folder}
        ray = str(Path(sys.executable).with_name("ray"))
        head = launch(ray, "start", "--head", "--block", "--port=0", "--include-dashboard=false", "--num-cpus=1",
                      "--disable-usage-stats", f"--ray-client-server-port={free_port()}",
                      f"--object-store-memory={100 << 20}", environment=environment)  # fmt: skip
        until(lambda: (Path(folder) / "ray" / "ray_current_cluster").exists())
        head.signal_all(signal.SIGKILL)
        job = start("score", *score_flags(tiny_model.uri, about.folder, tmp_path / "out"), environment=environment)
        check_ended(job, tmp_path / "out", 1)
        for words in ("no Ray head answered at", "ray_current_cluster", "ray stop", "RAY_ADDRESS=local"):
            assert words in job.log.read_text()
        own = environment | {"RAY_ADDRESS": "local"}
        last = start("score", *score_flags(tiny_model.uri, about.folder, tmp_path / "out"), environment=own)
        assert last.end() == 0, last.log.read_text()
    tell("the note of a head that was killed", "once", "exit 1 with its remedy; with RAY_ADDRESS=local all rows")
