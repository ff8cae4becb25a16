"""Watch the memory of this process's children over time: of the driver, and of everything that it started."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

__all__ = ["Memory", "watched"]

_SAMPLE_S = 1.0
_QUARTERS = 4
_JOB = 2  # generations of processes


@dataclass
class Memory:
    """Samples of the anonymous memory (`RssAnon`) of the children, in MiB, with the seconds since the start."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)  # seconds, driver, all that it started

    def summary(self, first_s: float, last_s: float) -> dict[str, Any]:
        """Return the means of the quarters of a time, between the first and the last batch, say."""
        quarter = (last_s - first_s) / _QUARTERS
        parts = [
            [sample for sample in self.samples if start <= sample[0] < start + quarter]
            for start in (first_s + number * quarter for number in range(_QUARTERS))
        ]
        return {
            name: [round(mean(sample[column] for sample in part)) for part in parts if part]
            for column, name in ((1, "driver_mib"), (2, "workers_mib"))
        }


@contextmanager
def watched() -> Iterator[Memory]:
    """Sample the children of this process, once a second, until the block ends."""
    memory, ended, start = Memory(), threading.Event(), time.monotonic()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            memory.samples.append((time.monotonic() - start, *_children_mib()))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()


def _children_mib() -> tuple[float, float]:
    """Return the memory of a job, which is a process for its signals and the driver below it, and of all that it started."""
    facts = dict(_processes())
    generation, sizes = {os.getpid()}, []
    while generation:
        generation = {pid for pid, (parent, _) in facts.items() if parent in generation}
        sizes.append(sum(facts[pid][1] for pid in generation) / 1024)
    return sum(sizes[:_JOB]), sum(sizes[_JOB:])


def _processes() -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the parent and the anonymous memory, in KiB, of each process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        except OSError:
            continue  # it has ended
        yield int(folder.name), (int(lines["PPid"]), int(lines.get("RssAnon", "0").split()[0]))
