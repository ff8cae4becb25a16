"""Run one measurement in a process of its own and wait for its end. What it measures is `measures`'."""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mribatch.errors import RunFailed

__all__ = ["REPOSITORY", "Ended", "run"]

REPOSITORY = Path(__file__).resolve().parents[1]

_GRACE_S = 20.0  # a job that is told to stop shuts its Ray session down first


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that ended well."""

    started_at: datetime
    seconds: float


def run(command: str, log: Path) -> Ended:
    """Run `python SCRIPT …`, SCRIPT named from the repository's root, with this interpreter.

    All it says goes to a file. Raises RunFailed with the file's last lines where the exit code is not 0.
    """
    _, script, *flags = shlex.split(command)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}  # this machine only
    with log.open("wb") as said:
        started_at, begun = datetime.now(UTC), time.monotonic()
        child = subprocess.Popen(
            [sys.executable, str(REPOSITORY / script), *flags], stdout=said, stderr=subprocess.STDOUT, env=environment
        )
        try:
            code = child.wait()
        finally:
            _end(child)
        seconds = time.monotonic() - begun
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RunFailed(f"{script} ended with exit code {code}, expected 0; its last lines:\n{tail}")
    return Ended(started_at=started_at, seconds=seconds)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Leave no process behind when the benchmark itself is stopped."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
