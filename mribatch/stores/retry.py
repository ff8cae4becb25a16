"""Asking S3 again, with backoff and a budget of time. What may pass is `_faults`'. Not for use outside this folder.

boto's own retries know no time: its five tries are over in 0 to 15 s, and do not cover the bodies of objects.
"""

import logging
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from mribatch.stores.faults import may_pass

__all__ = ["ask", "trust"]

log = logging.getLogger("mribatch.s3")

_BUDGET_S = 60.0  # longer than a fail-over or a restart of the storage, short enough to end while someone looks
_FIRST_S = 10.0  # where there was no answer yet: rather a wrong address than an outage
_LONGEST_PAUSE_S = 5.0  # what is lost at most when the storage is back
_FORGET_S = 30.0  # an endpoint that was not asked for so long may be well again
_TOLD_AT = 6  # tries: some 5 s

_silences: dict[str, tuple[float, float]] = {}  # of endpoints, the first and the last failure since the last answer
_answered: set[str] = set()  # endpoints

_Answer = TypeVar("_Answer")


def ask(endpoint: str, request: Callable[[], _Answer]) -> _Answer:
    """Ask until there is an answer that will stay. AWS_MAX_ATTEMPTS, where it is set, stands in place of the budget.

    The budget is the process's too: when an endpoint has been silent for so long, nothing waits for it again. Else each
    scan of an archive would, one after the other.
    """
    begun, tries, attempt = time.monotonic(), int(os.environ.get("AWS_MAX_ATTEMPTS", "0")), 0
    while True:
        attempt += 1
        try:
            answer = request()
        except Exception as err:
            if not may_pass(err):
                _heard(endpoint)
                raise
            budget_s = _BUDGET_S if endpoint in _answered else _FIRST_S
            silent_s = time.monotonic() - min(begun, _silent_since(endpoint, time.monotonic()))
            if attempt >= tries if tries else silent_s >= budget_s:
                raise
            if attempt == _TOLD_AT:
                log.warning(
                    "no usable answer from %s (%s), asking on for up to %g s", endpoint, type(err).__name__, budget_s
                )
            _pause(attempt)
        else:
            _heard(endpoint)
            return answer


def trust(endpoint: str) -> None:
    """It has answered another process: it is waited for, also before it has answered this one."""
    _answered.add(endpoint)


def _heard(endpoint: str) -> None:
    _silences.pop(endpoint, None)
    _answered.add(endpoint)


def _silent_since(endpoint: str, now: float) -> float:
    first, last = _silences.get(endpoint, (now, now))
    if now - last > _FORGET_S:
        first = now
    _silences[endpoint] = first, now
    return first


def _pause(attempt: int) -> None:
    """0.1, 0.2, 0.4 s and so on, each its own share of it, so that workers do not all ask at once."""
    time.sleep(min(0.05 * 2**attempt, _LONGEST_PAUSE_S) * random.uniform(0.5, 1))
