"""Lines of progress from workers to the log of the driver, plain and in order. What they say is the worker's."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

__all__ = ["lines"]

log = logging.getLogger("mribatch.progress")

_LOOK_EVERY_S = 1.0


class _Lines:
    def __init__(self) -> None:
        self._said: list[str] = []

    def say(self, line: str) -> None:
        self._said.append(line)

    def take(self) -> list[str]:
        said, self._said = self._said, []
        return said


@contextmanager
def lines() -> Iterator[Any]:
    """An actor whose `say.remote(line)` any worker may call; the lines are logged here while this lasts."""
    actor: Any = ray.remote(num_cpus=0)(_Lines).remote()
    stop = threading.Event()

    def show() -> None:
        while True:
            ended = stop.wait(_LOOK_EVERY_S)
            try:
                for line in ray.get(actor.take.remote()):
                    log.info(line)
            except ray.exceptions.RayError:
                return  # the cluster is going; the run itself says why
            if ended:
                return

    thread = threading.Thread(target=show, name="mribatch-lines", daemon=True)
    thread.start()
    try:
        yield actor
    finally:
        stop.set()
        thread.join()
        ray.kill(actor)
