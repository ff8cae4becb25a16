"""The lock on an output: a lease of numbered generations that only ever needs exclusive create. Knows no parts.

OUTPUT/_runs/<digest>.lock-<generation> is held by the run that created it; the highest generation is the holder's.
The holder renews its lease by counting in its file. Who finds a lock watches it for one lease: a count that moves is
a living holder, one that does not is a dead one, and the next generation takes over. A holder that lets go says so in
its file, and is followed at once. The highest generation is never deleted, so a run that slept through its own
take-over, or that wakes up in the middle of one, can always see it. No clock is compared with another machine's.
"""

import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from mribatch.errors import MribatchError, OutputHeld, RunFailed, StorageMissing
from mribatch.predictions.lock_observers import notify
from mribatch.stores import uris

__all__ = ["NIGHTS", "RUNS", "Fence", "held", "new_run_id", "release"]

RUNS = "_runs"
_BEATS_PER_LEASE = 5  # a holder may miss a few before it is taken for dead
_RELEASED = -1  # the count of a holder that let go

log = logging.getLogger("mribatch.lock")


@dataclass(frozen=True, kw_only=True)
class Fence:
    """What a writer asks before it makes anything visible: does this run still hold the output?"""

    output: str
    digest: str
    run_id: str
    generation: int

    @property
    def uri(self) -> str:
        """The file that says who holds the output."""
        return _Generations(self.output, self.digest).uri(self.generation)

    def check(self) -> None:
        """Raises OutputHeld where another run has taken over, RunFailed where the lock was removed."""
        highest = _Generations(self.output, self.digest).highest()
        if highest > self.generation:
            raise OutputHeld(f"run {self.run_id} lost {self.output} to another run while it slept or was cut off: "
                             "nothing more was written; run the command again when that one has ended")  # fmt: skip
        if highest < self.generation:
            raise RunFailed(f"the lock of run {self.run_id} is gone from {self.output}: was the folder cleared? "
                            "Nothing more was written; run the command again")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Lease:
    seconds: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]


@contextmanager
def held(
    output: str, digest: str, run_id: str, *, lease_s: float,
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Fence]:  # fmt: skip
    """Hold the output for one model while this lasts.

    Raises OutputHeld where another run does, and ConfigError where the storage cannot hold a lock.
    """
    fence = _acquire(_Generations(output, digest), run_id, _Lease(seconds=lease_s, clock=clock, sleep=sleep))
    stop = threading.Event()
    beats = threading.Thread(target=_renew, args=(fence, lease_s, stop), name="mribatch-lease", daemon=True)
    try:
        beats.start()
        yield fence
    finally:
        stop.set()
        if beats.ident is not None:  # it was started
            beats.join()
        _release(fence)
        notify(fence, False)


def release(fence: Fence) -> None:
    """Release the lock of a process that died. Leave it alone where it is another run's, or released already."""
    try:
        facts = _Generations(fence.output, fence.digest).read(fence.generation)
    except MribatchError as err:
        log.warning("the lock could not be released, its lease will run out: %s", err)
        return
    if facts.get("run_id") == fence.run_id and not facts.get("released"):
        _release(fence)


class _Generations:
    """The files of one lock."""

    def __init__(self, output: str, digest: str) -> None:
        self.output, self.digest = output, digest
        self._folder, self._stem = uris.join(output, RUNS), f"{digest}.lock-"

    def uri(self, generation: int) -> str:
        return uris.join(self._folder, f"{self._stem}{generation}")

    def all(self) -> list[int]:
        endings = (name.removeprefix(self._stem) for name in uris.names(self._folder, self._stem))
        return sorted(int(ending) for ending in endings if re.fullmatch(r"[0-9]+", ending))

    def highest(self) -> int:
        return max(self.all(), default=0)

    def read(self, generation: int) -> dict[str, object]:
        """What a holder says of itself; nothing where its file is about to be filled, or was cleared away."""
        try:
            facts = json.loads(uris.read(self.uri(generation)))
        except (StorageMissing, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def clear_below(self, generation: int) -> None:
        """Remove older generations, and what their holders left half-written when they were killed: locks and records."""
        try:
            holder = self.read(generation).get("run_id")
            for name in uris.names(self._folder, f".{holder}.") if holder else ():
                uris.delete(uris.join(self._folder, name))
            for old in self.all():
                if old < generation:
                    uris.delete(self.uri(old))
            for name in uris.names(self._folder, f".{self._stem}"):
                number = name.removeprefix(f".{self._stem}").partition(".")[0]
                if number.isdecimal() and int(number) <= generation:
                    uris.delete(uris.join(self._folder, name))
        except MribatchError as err:
            log.warning("old locks could not be removed; they do no harm: %s", err)


def _acquire(files: _Generations, run_id: str, lease: _Lease) -> Fence:
    last = files.highest()
    uris.check_exclusive(uris.join(files.output, RUNS))
    if last:
        _await_end(files, last, lease)
    fence = Fence(output=files.output, digest=files.digest, run_id=run_id, generation=last + 1)
    notify(fence, True)
    try:
        _create(files, fence)
    except MribatchError:
        notify(fence, False)
        raise
    files.clear_below(last)  # the last one stays until the next: a holder that sleeps may still count in it
    return fence


def _create(files: _Generations, fence: Fence) -> None:
    """Create the file of the fence's generation. Raises OutputHeld where another run was first."""
    if not uris.create(files.uri(fence.generation), _content(fence, 0)):
        raise _held_by_another(files, fence.generation)
    highest = files.highest()
    if highest != fence.generation:  # asleep since it looked: others came and went, and cleared this generation away
        uris.delete(files.uri(fence.generation))
        raise _held_by_another(files, highest)


def _await_end(files: _Generations, generation: int, lease: _Lease) -> None:
    """Return when the holder has let go or is dead. Raises OutputHeld as soon as it shows that it lives."""
    seen = files.read(generation)
    begun = lease.clock()
    while not seen.get("released"):
        lease.sleep(lease.seconds / _BEATS_PER_LEASE / 2)
        now = lease.clock()  # before it looks: if this run is stopped in between, that is not the holder's silence
        facts = files.read(generation)
        if facts.get("released"):
            return
        if facts != seen or files.highest() != generation:
            raise _held_by_another(files, files.highest())
        if lease.clock() - now > lease.seconds / 2:
            begun = lease.clock()  # the storage was slow, and the holder could not renew in time either
        if now - begun >= lease.seconds:
            name = seen.get("run_id", "unknown")
            log.info("the lock of run %s was not renewed for %g s: taking over", name, lease.seconds)
            return


def _renew(fence: Fence, lease_s: float, stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(lease_s / _BEATS_PER_LEASE):
        beat += 1
        try:
            _say(fence, beat)
        except OutputHeld:
            return  # the writers see the same and end the run
        except MribatchError as err:
            log.warning("the lock could not be renewed, trying again: %s", err)


def _release(fence: Fence) -> None:
    try:
        _say(fence, _RELEASED)
    except OutputHeld:
        log.warning("another run holds the output now: its lock is left alone")
    except MribatchError as err:
        log.warning("the lock could not be released, its lease will run out: %s", err)


def _say(fence: Fence, beat: int) -> None:
    """Count in the holder's own file. Where another took over in this very moment, that is no longer the highest."""
    fence.check()
    uris.put(fence.uri, _content(fence, beat))


def _content(fence: Fence, beat: int) -> bytes:
    facts = {"run_id": fence.run_id, "host": socket.gethostname(), "pid": os.getpid(),
             "beat": beat, "released": beat == _RELEASED}  # fmt: skip
    return json.dumps(facts).encode()


def _held_by_another(files: _Generations, generation: int) -> OutputHeld:
    facts = files.read(generation)
    who = f" (run {facts['run_id']} on {facts.get('host', 'an unknown host')})" if "run_id" in facts else ""
    return OutputHeld(f"another run{who} is writing {files.output}: wait for it to end, or give another --output")


def new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"


NIGHTS = "nights"  # the lock that a night holds beside its model's: two nights never write one output
