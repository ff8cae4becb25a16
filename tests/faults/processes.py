"""Start jobs as real processes, and kill, stop and await them. `standard` checks what must hold afterwards."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.conftest import as_flags

__all__ = [
    "ROOT",
    "WITHOUT_RAY",
    "WITH_RAY",
    "Job",
    "Process",
    "command",
    "complete",
    "new_parts",
    "paced",
    "parts",
    "sabotaged",
    "score_flags",
    "until",
]

ROOT = Path(__file__).parent.parent.parent
WITH_RAY = {"RAY_ADDRESS": "local"}  # of a job that starts Ray even for few scans
WITHOUT_RAY = {"RAY_ADDRESS": ""}  # of a job that needs none for few scans
_SABOTAGE = ROOT / "tests" / "sabotage"
_NO_WORKERS = ("IDLE", "Agent")  # a raylet exits as soon as one of its agents dies: that is the loss of a node
_MARK = "MRIBATCH_TEST_JOB"  # its own value in the environment of all processes of a job


def command(name: str, *argv: str) -> list[str]:
    """Return the command line of a job."""
    return [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *argv]


class Process:
    """A command as a process. Processes that it starts inherit a mark in their environment and are found by it."""

    def __init__(self, *command: str, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log, self._mark = log, uuid.uuid4().hex
        self._file = log.open("w")
        self.process = subprocess.Popen(
            command,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {_MARK: self._mark} | dict(environment or {}),
            preexec_fn=_hear_signals,
        )

    def end(self, seconds: float = 300) -> int:
        code = self.process.wait(seconds)
        self._file.close()
        return code

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it started, as systemd does to a service."""
        for pid in [*(pid for pid, _ in self._processes()), self.process.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def reap(self) -> None:
        """Kill the process and everything that it started."""
        for pid in [self.process.pid, *(pid for pid, _ in self._processes())]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def _processes(self) -> list[tuple[int, str]]:
        processes = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{_MARK}={self._mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    processes.append((int(folder.name), title))
            except (OSError, UnicodeDecodeError):
                continue  # it has ended
        return processes


def _hear_signals() -> None:
    """Let signals end the process as in a terminal. Under nohup or in a script's background they are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Job(Process):
    """A job as a process: the driver and the workers that Ray starts for it."""

    def __init__(self, name: str, *argv: str, log: Path, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(*command(name, *argv), log=log, environment=environment)

    def kill_driver(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def ray_process(self, name: str) -> int | None:
        """Return the process id of this job's gcs_server or raylet."""
        return next((pid for pid, title in self._processes() if title.split(" ")[0].endswith(f"/{name}")), None)

    def processes(self, word: str) -> list[int]:
        """Return the processes of this job with a word in their title."""
        return [pid for pid, title in self._processes() if word in title]

    def workers(self, doing: str = "") -> list[int]:
        """Return the workers of this job whose title names an actor or a task, and holds the word `doing`."""
        return [
            pid
            for pid, title in self._processes()
            if title.startswith("ray::") and doing in title and not any(name in title for name in _NO_WORKERS)
        ]

    def kill_a_worker(self, doing: str, rng: random.Random) -> bool:
        """Kill one worker and return True, or return False if there is none."""
        workers = self.workers(doing)
        if not workers:
            return False
        try:
            os.kill(rng.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def sabotaged(**variables: str) -> dict[str, str]:
    """Return variables of the environment with which Python loads tests/sabotage, beside what PYTHONPATH names now."""
    path = [str(_SABOTAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), **variables}


def paced() -> dict[str, str]:
    """Return variables of the environment with which a run takes seconds on any machine: 0.02 s for each scan."""
    return sabotaged(SABOTAGE_PACE_S="0.02")


def complete(start: Callable[..., Job], flags: Sequence[str]) -> Job:
    """Run a scoring job to its end: one process completes what a run with Ray has left, and no test waits for Ray."""
    last = start("score", *flags, environment=WITHOUT_RAY)
    assert last.end() == 0, last.log.read_text()
    return last


def until(true: Callable[[], bool], seconds: float = 240) -> None:
    """Wait until the condition is true. Raise AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.05)


def parts(output: Path) -> list[Path]:
    """Return all visible parts."""
    return sorted(output.glob("model=*/part-*"))


def new_parts(job: Job, output: Path, old: set[Path], count: int) -> Callable[[], bool]:
    """Return a condition for `until`: the output has so many parts beside the old ones, or the job has ended."""
    return lambda: len(set(parts(output)) - old) >= count or job.process.poll() is not None


def score_flags(model: str, scans: Path | str, output: Path | str, *more: str) -> list[str]:
    """Return the flags of a scoring run in small steps, so that there is something to disturb."""
    return [*as_flags(model=model, input=scans, output=output, part_rows=8, batch_size=8, lease_s=2), *more]
