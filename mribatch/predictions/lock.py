"""Lock an output with a lease of numbered generations, which needs nothing but exclusive create.

OUTPUT/_runs/<digest>.lock-<generation> belongs to the run that created it; the holder has the highest generation. The
holder renews its lease by counting up in its file. A run that meets a lock watches it for one lease. If the count
moves, the holder is alive; if not, it is dead, and the run creates the next generation. A holder that releases the lock
notes that in its file, and the next run need not wait. The highest generation is never deleted, so a run that slept
while another took over can always notice. Clocks of different machines are never compared.
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
NIGHTS = "nights"  # the lock that a night holds in addition to its model's, so that two nights never write one output
_BEATS_PER_LEASE = 5  # a holder may miss a few before it counts as dead
_RELEASED = -1  # the count after a release

log = logging.getLogger("mribatch.lock")


@dataclass(frozen=True, kw_only=True)
class Fence:
    """Proof that a run holds an output. Writers check it before they make anything visible."""

    output: str
    digest: str
    run_id: str
    generation: int

    @property
    def uri(self) -> str:
        """The file of this generation."""
        return _Generations(self.output, self.digest).uri(self.generation)

    def check(self) -> None:
        """Check that this run holds the output. Raises OutputHeld after a take-over, RunFailed for a removed lock."""
        highest = _Generations(self.output, self.digest).highest()
        if highest > self.generation:
            raise OutputHeld(
                f"run {self.run_id} lost {self.output} to another run while it was suspended or disconnected: nothing "
                "more was written; run the command again when the other run has ended"
            )
        if highest < self.generation:
            raise RunFailed(
                f"the lock of run {self.run_id} has disappeared from {self.output}: was the folder cleared? "
                "Nothing more was written; run the command again"
            )


@dataclass(frozen=True, kw_only=True)
class _Lease:
    seconds: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]


@contextmanager
def held(
    output: str,
    digest: str,
    run_id: str,
    *,
    lease_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Fence]:
    """Hold the output for one model within this context.

    Raises OutputHeld if another run holds it, and ConfigError if the storage cannot keep a lock.
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
    """Release the lock of a dead process, unless it belongs to another run or has been released already."""
    try:
        facts = _Generations(fence.output, fence.digest).read(fence.generation)
    except MribatchError as err:
        log.warning("the lock could not be released; its lease will expire: %s", err)
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
        """Return what a holder has written about itself; nothing if its file is still empty or has been deleted."""
        try:
            facts = json.loads(uris.read(self.uri(generation)))
        except (StorageMissing, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def clear_below(self, generation: int) -> None:
        """Delete older generations, and the incomplete locks and records of holders that were killed."""
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
            log.warning("old locks could not be deleted; they do no harm: %s", err)


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
    files.clear_below(last)  # keep the last one for now: a suspended holder may still write to it
    return fence


def _create(files: _Generations, fence: Fence) -> None:
    """Create the file of the fence's generation. Raises OutputHeld if another run was faster."""
    if not uris.create(files.uri(fence.generation), _content(fence, 0)):
        raise _held_by_another(files, fence.generation)
    highest = files.highest()
    if highest != fence.generation:  # this run was suspended, and others have held the lock since
        uris.delete(files.uri(fence.generation))
        raise _held_by_another(files, highest)


def _await_end(files: _Generations, generation: int, lease: _Lease) -> None:
    """Wait until the holder has released the lock or is dead. Raises OutputHeld as soon as it proves to be alive."""
    first = files.read(generation)
    begun = lease.clock()
    while not first.get("released"):
        lease.sleep(lease.seconds / _BEATS_PER_LEASE / 2)
        now = lease.clock()  # before reading: the holder is not silent while this run itself is suspended
        facts = files.read(generation)
        if facts.get("released"):
            return
        if facts != first or files.highest() != generation:
            raise _held_by_another(files, files.highest())
        if lease.clock() - now > lease.seconds / 2:
            begun = lease.clock()  # the storage was too slow for the holder to renew in time
        if now - begun >= lease.seconds:
            holder = first.get("run_id", "unknown")
            log.info("the lock of run %s was not renewed for %g s: taking over", holder, lease.seconds)
            return


def _renew(fence: Fence, lease_s: float, stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(lease_s / _BEATS_PER_LEASE):
        beat += 1
        try:
            _write(fence, beat)
        except OutputHeld:
            return  # the writers notice it too and end the run
        except MribatchError as err:
            log.warning("the lock could not be renewed; trying again: %s", err)


def _release(fence: Fence) -> None:
    try:
        _write(fence, _RELEASED)
    except OutputHeld:
        log.warning("another run holds the output now; its lock is left alone")
    except MribatchError as err:
        log.warning("the lock could not be released; its lease will expire: %s", err)


def _write(fence: Fence, beat: int) -> None:
    """Write the count to the holder's own file, which is no longer the highest if another run is just taking over."""
    fence.check()
    uris.put(fence.uri, _content(fence, beat))


def _content(fence: Fence, beat: int) -> bytes:
    facts = {
        "run_id": fence.run_id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "beat": beat,
        "released": beat == _RELEASED,
    }
    return json.dumps(facts).encode()


def _held_by_another(files: _Generations, generation: int) -> OutputHeld:
    facts = files.read(generation)
    holder = f" (run {facts['run_id']} on {facts.get('host', 'an unknown host')})" if "run_id" in facts else ""
    return OutputHeld(f"another run{holder} is writing {files.output}: wait for it to end, or give another --output")


def new_run_id() -> str:
    """Return a new run ID, which sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"
