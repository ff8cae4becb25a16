"""The lock on an output: a lease of numbered generations that only ever needs exclusive create. Knows no parts.

OUTPUT/_runs/<digest>.lock-<generation> is held by the run that created it; the highest generation is the holder's.
The holder renews its lease by counting in its file. Who finds a lock watches it for one lease: a count that moves is
a living holder, one that does not is a dead one, and the next generation takes over. The highest generation is never
deleted, so a run that slept through its own take-over can always see it. No clock is compared with another machine's.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mribatch.errors import MribatchError, OutputHeld, StorageMissing
from mribatch.storage import uris

__all__ = ["RUNS", "Fence", "held"]

RUNS = "_runs"
_BEATS_PER_LEASE = 5  # a holder may miss a few before it is taken for dead

log = logging.getLogger("mribatch.lock")


@dataclass(frozen=True, kw_only=True)
class Fence:
    """What a writer asks before it makes anything visible: does this run still hold the output?"""

    output: str
    digest: str
    run_id: str
    generation: int

    def check(self) -> None:
        """Raises OutputHeld where another run has taken over."""
        highest = _highest(self.output, self.digest)
        if highest != self.generation:
            raise OutputHeld(f"run {self.run_id} lost {self.output} to another run while it slept or was cut off: "
                             "nothing more was written; run the command again when that one has ended")  # fmt: skip


@contextmanager
def held(
    output: str, digest: str, run_id: str, *, lease_s: float,
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Fence]:  # fmt: skip
    """Hold the output for one model while this lasts. Raises OutputHeld where another run does."""
    fence = _acquire(output, digest, run_id, lease_s, clock, sleep)
    stop = threading.Event()
    beats = threading.Thread(target=_renew, args=(fence, lease_s, stop), name="mribatch-lease", daemon=True)
    beats.start()
    try:
        yield fence
    finally:
        stop.set()
        beats.join()
        _release(fence)


def _acquire(
    output: str, digest: str, run_id: str, lease_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Fence:
    highest = _highest(output, digest)
    if highest:
        _watch(output, digest, highest, lease_s, clock, sleep)
    fence = Fence(output=output, digest=digest, run_id=run_id, generation=highest + 1)
    if not uris.create(_uri(fence), _content(fence, 0)):
        raise _held_by_another(output)
    for generation in _generations(output, digest):
        if generation < highest:  # the last one stays a while: its holder may still look for it
            uris.delete(_uri(Fence(output=output, digest=digest, run_id="", generation=generation)))
    return fence


def _watch(
    output: str,
    digest: str,
    generation: int,
    lease_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Return when the holder has let go or is dead. Raises OutputHeld as soon as it shows that it lives."""
    seen = _read(output, digest, generation)
    begun = clock()
    while not seen.get("released"):
        if clock() - begun >= lease_s:
            log.info("the lock of run %s was not renewed for %g s: taking over", seen.get("run_id", "unknown"), lease_s)
            return
        sleep(lease_s / _BEATS_PER_LEASE / 2)
        if _highest(output, digest) != generation or _read(output, digest, generation) != seen:
            raise _held_by_another(output, seen)


def _renew(fence: Fence, lease_s: float, stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(lease_s / _BEATS_PER_LEASE):
        beat += 1
        try:
            fence.check()
            uris.put(_uri(fence), _content(fence, beat))
        except OutputHeld:
            return  # the writers see the same and end the run
        except MribatchError as err:
            log.warning("the lock could not be renewed, trying again: %s", err)


def _release(fence: Fence) -> None:
    try:
        fence.check()
        uris.put(_uri(fence), _content(fence, -1))
    except MribatchError as err:
        log.warning("the lock could not be released, its lease will run out: %s", err)


def _content(fence: Fence, beat: int) -> bytes:
    facts = {
        "run_id": fence.run_id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "beat": beat,
        "released": beat < 0,
    }
    return json.dumps(facts).encode()


def _read(output: str, digest: str, generation: int) -> dict[str, object]:
    fence = Fence(output=output, digest=digest, run_id="", generation=generation)
    try:
        facts = json.loads(uris.read(_uri(fence)) or b"{}")  # empty: its creator is about to fill it
    except (StorageMissing, ValueError):
        return {}
    return dict(facts)


def _uri(fence: Fence) -> str:
    return uris.join(fence.output, RUNS, f"{fence.digest}.lock-{fence.generation}")


def _generations(output: str, digest: str) -> list[int]:
    prefix = f"{digest}.lock-"
    found = (name.removeprefix(prefix) for name in uris.names(uris.join(output, RUNS)) if name.startswith(prefix))
    return sorted(int(number) for number in found if number.isdigit())


def _highest(output: str, digest: str) -> int:
    return max(_generations(output, digest), default=0)


def _held_by_another(output: str, seen: dict[str, object] | None = None) -> OutputHeld:
    who = f" (run {seen['run_id']} on {seen['host']})" if seen and "run_id" in seen else ""
    return OutputHeld(f"another run{who} is writing {output}: wait for it to end, or give another --output")
