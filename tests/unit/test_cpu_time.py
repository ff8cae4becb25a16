"""The processor time that the benchmarks count: also that of processes which are killed, or which nobody waits for."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.cpu_time import CpuTime

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the counting reads /proc")

BUSY = """
import sys, time
while time.process_time() < 0.6:
    pass
print("busy", flush=True)
sys.stdin.read()
"""

# It ignores SIGCHLD, so the system adds nothing of its child, which leads a session of its own, to its own time.
PARENT = f"""
import signal, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {BUSY!r}], start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def started(cpu: CpuTime, code: str) -> Iterator[subprocess.Popen[str]]:
    words, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(words, env=cpu.environment, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_time_of_a_killed_process_is_counted() -> None:
    cpu = CpuTime()
    with started(cpu, BUSY) as process:
        assert line(process) == "busy"
        assert cpu.sample()
        process.kill()
        process.wait()
    assert not cpu.sample()
    assert cpu.seconds >= 0.5


def test_the_time_of_a_child_that_its_parent_never_waits_for_is_counted() -> None:
    cpu = CpuTime()
    with started(cpu, PARENT) as parent:
        child = int(line(parent))
        assert line(parent) == "busy"
        assert cpu.sample()
        parent.kill()
        parent.wait()
        assert cpu.sample(), f"the orphan {child} still runs"
    assert cpu.seconds >= 0.5


def test_other_processes_are_not_counted() -> None:
    cpu, other = CpuTime(), CpuTime()
    with started(other, BUSY) as process:
        assert line(process) == "busy"
        assert not cpu.sample()
    assert cpu.seconds == 0
