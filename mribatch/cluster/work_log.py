"""Note what the predictors of a run have begun and ended, so that work which kills them is known."""

import time
from collections import Counter

__all__ = ["WorkLog"]


class WorkLog:
    """What all predictors of a run have begun and ended, and whether the run's time is over."""

    def __init__(self, until: float) -> None:
        self._begun: Counter[str] = Counter()
        self._hung: set[str] = set()
        self._ended: set[str] = set()
        self._scored = self._rejected = 0
        self._ready_at: float | None = None
        self._until = until  # of the clock of the driver's machine, on which this actor lives and restarts

    def is_over(self) -> bool:
        """Say whether the run's time is over."""
        return time.monotonic() >= self._until

    def begin(self, work: str) -> tuple[int, bool]:
        """Return how often this work was begun before without an end, and whether it took too long."""
        self._begun[work] += 1
        return self._begun[work] - 1, work in self._hung

    def hang(self, work: str) -> None:
        """Note that some work takes too long."""
        self._hung.add(work)

    def end(self, work: str, scored: int = 0, rejected: int = 0) -> None:
        """Note that some work has ended, and how many of its scans were scored or failed, and rejected.

        Work that Ray repeats, the batches of a block of which another one killed its predictor, counts once.
        """
        self._begun.pop(work, None)
        self._hung.discard(work)
        self._ready_at = self._ready_at or time.monotonic()
        if work not in self._ended:
            self._ended.add(work)
            self._scored, self._rejected = self._scored + scored, self._rejected + rejected

    def progress(self) -> tuple[int, int]:
        """Return how many scans were scored or failed, and rejected."""
        return self._scored, self._rejected

    def ready_at(self) -> float | None:
        """Return the moment at which the first predictor had loaded the model, None before."""
        return self._ready_at
