"""Jobs as real processes that tests kill, stop and wait for. What must hold afterwards is in `standard`."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["ROOT", "SABOTAGE", "Job", "Process", "command", "parts", "score_flags", "until"]

ROOT = Path(__file__).parent.parent.parent
SABOTAGE = ROOT / "tests" / "sabotage"
_NO_WORKERS = ("IDLE", "Agent")  # a raylet exits as soon as one of its agents dies: that is the loss of a node
_MARK = "MRIBATCH_TEST_JOB"  # its own value in the environment of all processes of a job


def command(name: str, *argv: str) -> list[str]:
    """The command line of a job."""
    return [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *argv]


class Process:
    """A command as a process. What it starts in turn inherits its mark, and is found by that."""

    def __init__(self, *command: str, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log, self._mark = log, uuid.uuid4().hex
        self._file = log.open("w")
        self.process = subprocess.Popen(
            command, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {_MARK: self._mark} | dict(environment or {}), preexec_fn=_hear_signals,
        )  # fmt: skip

    def end(self, seconds: float = 300) -> int:
        code = self.process.wait(seconds)
        self._file.close()
        return code

    def signal_all(self, number: signal.Signals) -> None:
        """A signal for it and for all that it started, as systemd sends one to a service."""
        for pid in [*(pid for pid, _ in self._processes()), self.process.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def reap(self) -> None:
        """End all that is left of it."""
        for pid in [self.process.pid, *(pid for pid, _ in self._processes())]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def _processes(self) -> list[tuple[int, str]]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{_MARK}={self._mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
            except (OSError, UnicodeDecodeError):
                continue  # it has ended
        return found


def _hear_signals() -> None:
    """As in a terminal: tests that themselves run under nohup, or in the background of a script, pass on ignored signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Job(Process):
    """A job as a process, the driver, with the workers that Ray starts for it."""

    def __init__(self, name: str, *argv: str, log: Path, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(*command(name, *argv), log=log, environment=environment)

    def kill_driver(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def ray_process(self, name: str) -> int | None:
        """One of the processes that Ray itself runs for this job: gcs_server or raylet."""
        return next((pid for pid, title in self._processes() if title.split(" ")[0].endswith(f"/{name}")), None)

    def workers(self, doing: str = "") -> list[int]:
        """Ray's workers for this job that hold an actor or run a task, by what their title says."""
        return [
            pid
            for pid, title in self._processes()
            if title.startswith("ray::") and doing in title and not any(name in title for name in _NO_WORKERS)
        ]

    def kill_a_worker(self, doing: str, rng: random.Random) -> bool:
        """SIGKILL for a worker, if there is one."""
        found = self.workers(doing)
        if not found:
            return False
        try:
            os.kill(rng.choice(found), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def until(true: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.05)


def parts(output: Path) -> list[Path]:
    """All visible parts."""
    return sorted(output.glob("model=*/part-*"))


def score_flags(model: str, scans: Path | str, output: Path | str, *more: str) -> list[str]:
    """The flags of a scoring run in small steps, so that there is something to disturb."""
    return ["--model", model, "--input", str(scans), "--output", str(output), "--part-rows", "8", "--batch-size", "8",
            "--lease-s", "2", *more]  # fmt: skip
