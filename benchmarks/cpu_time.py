"""Count the processor time of a command and of all processes that it starts, also of those that are killed.

A killed process whose parent does not wait for it, such as a worker of Ray, is missing in what the system adds up for the
parent. So all processes are sampled, and the last value of each is kept. Linux only.
"""

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["CpuTime", "counted"]

_SAMPLE_S = 0.2  # at most this much is lost of a killed process; ended ones are also counted by the system
_MARK = "MRIBATCH_BENCHMARK"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class _Process(NamedTuple):
    """A line of /proc/PID/stat."""

    pid: int
    is_running: bool  # else it has ended and its parent has not noticed
    parent: int
    session: int
    seconds: float
    started: int  # ticks since the machine started; with the number, it names a process for ever


@dataclass
class CpuTime:
    """The processor time of all processes that carry a mark in their environment, and of what they start."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    _seconds: dict[tuple[int, int], float] = field(default_factory=dict)
    _alive: set[int] = field(default_factory=set)
    _since: int = field(default_factory=lambda: int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_S))

    @property
    def environment(self) -> dict[str, str]:
        """Return the variable that a process must be started with to be counted."""
        return {_MARK: self.mark}

    @property
    def seconds(self) -> float:
        """Return the seconds that all processes had taken when they were last sampled."""
        return sum(self._seconds.values())

    def sample(self) -> bool:
        """Look at all processes once. Return whether any of those that are counted is still running."""
        alive = set()
        for process in _processes():
            key = process.pid, process.started
            if key in self._seconds or self._is_counted(process):
                self._seconds[key] = process.seconds
                alive |= {process.pid} if process.is_running else set()
        self._alive = alive
        return bool(alive)

    def _is_counted(self, process: _Process) -> bool:
        """Say whether a process is below or in the session of a counted one, or carries the mark.

        A process may overwrite its environment, as Ray's workers do when they set their titles.
        """
        if process.started < self._since:
            return False
        if process.parent in self._alive or process.session in self._alive:
            return True
        with suppress(OSError):
            return f"{_MARK}={self.mark}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        return False


@contextmanager
def counted() -> Iterator[CpuTime]:
    """Sample in a thread until the block ends."""
    cpu, ended = CpuTime(), threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            cpu.sample()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield cpu
    finally:
        ended.set()
        thread.join()


def _processes() -> Iterator[_Process]:
    """Yield all processes of this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            seconds = (int(words[11]) + int(words[12])) / _TICKS_PER_S
            yield _Process(int(folder.name), words[0] != "Z", int(words[1]), int(words[3]), seconds, int(words[19]))
