"""Let a supervisor follow which locks this process holds, without loading what locks need."""

from collections.abc import Callable
from typing import Any

__all__ = ["notify", "observe"]

_observers: list[Callable[[Any, bool], None]] = []


def observe(observer: Callable[[Any, bool], None]) -> None:
    """Call observer(fence, True) before this process creates a lock, and observer(fence, False) when that lock is
    released or was not created."""
    _observers.append(observer)


def notify(fence: Any, held: bool) -> None:
    """Tell all observers that a lock is about to be created, or that it has been released."""
    for observer in _observers:
        observer(fence, held)
