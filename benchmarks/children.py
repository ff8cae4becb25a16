"""Run a command in a separate process, with its output in a file, and wait for its end."""

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cpu_time import CpuTime, counted

from mribatch.errors import RunFailed

__all__ = ["REPOSITORY", "Ended", "run"]

REPOSITORY = Path(__file__).resolve().parents[1]

_GRACE_S = 20.0  # a job shuts its Ray session down before it stops
_LINGER_S = 10.0  # Ray's processes end a moment after their driver


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that ended with exit code 0."""

    started_at: datetime
    seconds: float
    cpu_s: float
    """Processor time of the process and of all that it started."""


def run(command: str, log: Path, **variables: str) -> Ended:
    """Run `python SCRIPT …`, with SCRIPT relative to the root of the repository; all output goes to the log file.

    variables: of the environment, beside those of this process. Raises RunFailed with the last lines of the log if the
    exit code is not 0.
    """
    _, script, *flags = shlex.split(command)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}  # use this machine only
    before = _waited_cpu_s()
    with log.open("wb") as output, counted() as cpu:
        started_at, start = datetime.now(UTC), time.monotonic()
        child = subprocess.Popen(
            [sys.executable, str(REPOSITORY / script), *flags],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment | cpu.environment | variables,
        )
        try:
            code = child.wait()
        finally:
            _end(child)
        seconds = time.monotonic() - start
        _await_others(cpu)
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RunFailed(f"{script} ended with exit code {code}, expected 0; its last lines:\n{tail}")
    # the system counts to the end what is waited for, the samples also what is killed
    return Ended(started_at=started_at, seconds=seconds, cpu_s=max(cpu.seconds, _waited_cpu_s() - before))


def _waited_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _await_others(cpu: CpuTime) -> None:
    """Wait until all that the child left behind has ended too, for a bounded time."""
    end = time.monotonic() + _LINGER_S
    while cpu.sample() and time.monotonic() < end:
        time.sleep(0.1)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Stop a process that still runs because the benchmark was stopped."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
