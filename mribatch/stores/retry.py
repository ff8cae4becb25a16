"""Retry requests to S3, with backoff, within a time budget that all requests of a process share.

boto's own retries have no time budget: its five tries are over in 0 to 15 s, and do not cover the bodies of objects.
"""

import logging
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from mribatch.stores.faults import may_pass

__all__ = ["ask", "pause", "trust"]

log = logging.getLogger("mribatch.s3")

_BUDGET_S = 60.0  # longer than a fail-over or a restart of the storage, short enough to fail while someone is watching
_FIRST_BUDGET_S = 10.0  # before the first answer: a wrong address is more likely than an outage
_LONGEST_PAUSE_S = 5.0  # the most time lost once the storage is back
_FORGET_S = 30.0  # an endpoint that was not asked for this long may have recovered
_WARN_AT = 6  # tries, about 5 s

_silences: dict[str, tuple[float, float]] = {}  # by endpoint: the first and the last failure since the last answer
_answered: set[str] = set()  # endpoints that have answered at least once

_Answer = TypeVar("_Answer")


def ask(endpoint: str, request: Callable[[], _Answer]) -> _Answer:
    """Call `request` until it succeeds or fails with an error that retrying cannot fix.

    AWS_MAX_ATTEMPTS, if set, replaces the time budget. The budget is shared by the whole process: once an endpoint has
    been silent for that long, no further request waits for it. Otherwise every scan of an archive would, one by one.
    """
    begun, tries, attempt = time.monotonic(), int(os.environ.get("AWS_MAX_ATTEMPTS", "0")), 0
    while True:
        attempt += 1
        try:
            answer = request()
        except Exception as err:
            if not may_pass(err):
                _end_silence(endpoint)
                raise
            budget_s = _BUDGET_S if endpoint in _answered else _FIRST_BUDGET_S
            silent_s = time.monotonic() - min(begun, _silent_since(endpoint, time.monotonic()))
            if attempt >= tries if tries else silent_s >= budget_s:
                raise
            if attempt == _WARN_AT:
                cause = type(err).__name__
                log.warning("no answer from %s (%s); retrying for up to %g s", endpoint, cause, budget_s)
            pause(attempt)
        else:
            _end_silence(endpoint)
            return answer


def trust(endpoint: str) -> None:
    """Give an endpoint the full time budget, because another process has had an answer from it."""
    _answered.add(endpoint)


def pause(attempt: int) -> None:
    """Sleep 0.1, 0.2, 0.4 s and so on, times a random factor, so that workers do not all retry at once."""
    time.sleep(min(0.05 * 2**attempt, _LONGEST_PAUSE_S) * random.uniform(0.5, 1))


def _end_silence(endpoint: str) -> None:
    _silences.pop(endpoint, None)
    _answered.add(endpoint)


def _silent_since(endpoint: str, now: float) -> float:
    first, last = _silences.get(endpoint, (now, now))
    if now - last > _FORGET_S:
        first = now
    _silences[endpoint] = first, now
    return first
