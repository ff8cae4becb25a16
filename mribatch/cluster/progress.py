"""Bring the progress of workers to the driver: lines for its log, and numbers for its bar."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray

__all__ = ["lines", "watched"]

log = logging.getLogger("mribatch.progress")

_LOOK_EVERY_S = 1.0
_ANSWER_S = 2.0
_QUIET_S = 600.0


class _Lines:
    """Lines that workers have sent and the driver has not taken, each with how much is done."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, float | None]] = []

    def say(self, line: str, done: float | None = None) -> None:
        self._lines.append((line, done))

    def take(self) -> list[tuple[str, float | None]]:
        taken, self._lines = self._lines, []
        return taken


@contextmanager
def lines(heard: Callable[[float | None], object] | None = None) -> Iterator[Any]:
    """Log what workers say by `say.remote(line, done)` of this actor, in order, while this lasts.

    heard: called in a thread of this process with each line's `done`, which may be None.
    """
    actor: Any = ray.remote(num_cpus=0)(_Lines).remote()

    def look() -> None:
        for line, done in ray.get(actor.take.remote()):
            log.info("%s", line)
            if heard is not None:
                heard(done)

    try:
        with _polled(look):
            yield actor
    finally:
        ray.kill(actor)


@contextmanager
def watched(notes: Any, show: Callable[[int, int], object]) -> Iterator[None]:
    """Show how many scans were scored or failed, and rejected, by a thread that calls `show`; warn after a long silence."""
    last, moved_at = (0, 0), time.monotonic()

    def look() -> None:
        nonlocal last, moved_at
        now = tuple(ray.get(notes.progress.remote(), timeout=_ANSWER_S))
        if now > last:
            last, moved_at = now, time.monotonic()
            show(*now)
        elif time.monotonic() - moved_at > _QUIET_S:
            moved_at = time.monotonic()
            log.warning("no scan was scored for %d min: `ray status` shows whether the cluster has room", _QUIET_S / 60)

    with _polled(look):
        yield


@contextmanager
def _polled(look: Callable[[], None]) -> Iterator[None]:
    """Call a function every second, in a thread, and once at the end.

    Errors of Ray are passed over: if they matter, the run itself fails.
    """
    stop = threading.Event()

    def poll() -> None:
        ended = False
        while not ended:
            ended = stop.wait(_LOOK_EVERY_S)
            with suppress(ray.exceptions.RayError):
                look()

    thread = threading.Thread(target=poll, name="mribatch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
