"""Run a command in a child process under a small parent that handles signals and always reports the end.

Ray's C++ code ends its process when its raylet or its control store (GCS) dies: no exception, no message, no cleanup. The
parent loads neither Ray nor anything else that could end it. It asks the child to stop, waits for a bounded time, kills what
is left, releases the locks that the child still held, and exits with the documented code.
"""

import io
import json
import mmap
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

from mribatch.predictions.lock_observers import observe

__all__ = ["STOPPED", "Stopped", "lasting_stream", "ray_folder", "ray_logs", "stoppable", "supervised"]

STOPPED = "stopped: nothing is half-written; run the same command again to resume"

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOP_S = (
    10.0  # for the child to stop Ray, which takes 2 s, and release its locks; with _RELEASE_S below TimeoutStopSec
)
_RELEASE_S = 15.0  # for the parent to release the locks, if the storage answers at all
_AGAIN_S = 0.05  # until a signal is sent again
_PR_SET_PDEATHSIG = 1  # of prctl, as in linux/prctl.h

_handling = False  # is a `stoppable` block active?


class Stopped(SystemExit):
    """Raised in the main thread by a signal that asks the run to end. code: 128 + the signal's number, as in a shell."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the main thread at the first SIGINT, SIGTERM or SIGHUP and ignore later ones during the cleanup.

    A signal that was ignored before (nohup) stays ignored. A nested block does nothing. Python drops what is raised within a
    destructor or the callback of a weak reference: then the signal is sent again.
    """
    global _handling
    if _handling or threading.current_thread() is not threading.main_thread():
        yield
        return
    first: int | None = None
    show = sys.unraisablehook

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = number
            raise Stopped(128 + number)

    def dropped(unraisable: Any) -> None:
        nonlocal first
        if first is not None and isinstance(unraisable.exc_value, Stopped):
            _send_again(first)
            first = None
        else:
            show(unraisable)

    before = {number: signal.getsignal(number) for number in _STOPS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    _handling, sys.unraisablehook = True, dropped
    try:
        yield
    finally:
        _handling, sys.unraisablehook = False, show
        for number, handler in before.items():
            signal.signal(number, handler)


def _send_again(number: int) -> None:
    """Send this process a signal in a moment, when what it does now has ended."""
    timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def ray_folder() -> str:
    """The folder in which Ray keeps its sessions and the address of the cluster that this machine belongs to."""
    own = os.environ.get("TMPDIR") if sys.platform == "linux" else None
    return os.path.join(os.environ.get("RAY_TMPDIR") or own or "/tmp", "ray")


def ray_logs() -> str:
    """The folder of the logs of the last Ray session on this machine."""
    return os.path.join(ray_folder(), "session_latest", "logs")


def supervised(main: Callable[[], int]) -> int:
    """Run `main` in a child process and return its exit code, or 128 + the number of the signal that stopped it."""
    _mend_streams()
    stops = {number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*stops, signal.SIGCHLD, signal.SIGALRM})
    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, lambda *_: None)  # an ignored SIGCHLD would never arrive
    note, parent = _Note(), os.getpid()
    child = os.fork()
    if child == 0:
        _run(main, note, parent, before)
    return _Supervisor(child, note).wait(stops)


# The child


def _run(main: Callable[[], int], note: "_Note", parent: int, mask: set[int | signal.Signals]) -> NoReturn:
    """Run the command and exit at once, because C++ libraries may abort in a normal exit."""
    code = 1
    try:
        os.setsid()  # only the parent gets the terminal's signals, and the session shows what this starts
        _die_with(parent)
        with stoppable():
            for number in (signal.SIGCHLD, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask - set(_STOPS))
            code = _code_of(main, note)
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
            note.write(code=code)
    except Stopped as stop:
        print(STOPPED, file=sys.stderr)
        code = int(str(stop.code))
        note.write(code=code)
    except BaseException:
        traceback.print_exc()
        note.write(code=code)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _code_of(main: Callable[[], int], note: "_Note") -> int:
    observe(note.lock)
    try:
        return main()
    except Stopped:
        raise
    except SystemExit as err:
        if err.code is None or isinstance(err.code, int):
            return err.code or 0
        print(err.code, file=sys.stderr)
        return 1


def _die_with(parent: int) -> None:
    """End this process by SIGKILL when the parent dies, so that `kill -9` leaves no run behind. Linux only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


# What the child leaves to the parent


class _Note:
    """The child's exit code and locks in shared memory. A write fills one half while the other stays valid."""

    _HALF = 1 << 17

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * self._HALF + 1)
        self._facts: dict[str, Any] = {"code": None, "held": []}

    def write(self, **facts: Any) -> None:
        self._facts |= facts
        half = 1 - self._memory[0]
        data = json.dumps(self._facts).encode() + b"\n"
        start = 1 + half * self._HALF
        self._memory[start : start + len(data)] = data
        self._memory[0] = half

    def lock(self, fence: Any, held: bool) -> None:
        """Note that a lock is about to be taken, or has been released."""
        facts = vars(fence)
        others = [other for other in self._facts["held"] if other != facts]
        self.write(held=[*others, facts] if held else others)

    def read(self) -> tuple[int | None, list[dict[str, Any]]]:
        """Return the exit code, None if the child died before it had one, and the locks that it has not released."""
        start = 1 + self._memory[0] * self._HALF
        line = self._memory[start : start + self._HALF].partition(b"\n")[0].rstrip(b"\0")
        facts = json.loads(line) if line else self._facts
        return facts["code"], facts["held"]


# The parent


class _Supervisor:
    def __init__(self, child: int, note: _Note) -> None:
        self._child, self._note = child, note
        self._stop: int | None = None  # the first signal that asked for the end

    def wait(self, stops: set[signal.Signals]) -> int:
        """Return the exit code when the child has ended. Signals stay blocked, so nothing can change it."""
        patience = True
        while not self._has_ended():
            number = signal.sigwait({*stops, signal.SIGCHLD, signal.SIGALRM})
            if number == signal.SIGALRM:
                os.kill(self._child, signal.SIGKILL)
            elif number in stops and self._stop is None:
                self._stop = number
                os.kill(self._child, signal.SIGTERM)
                signal.setitimer(signal.ITIMER_REAL, _STOP_S)
            elif number in stops and patience:
                patience = False
                _print(f"stopping: the lock is being released, for up to {_STOP_S + _RELEASE_S:.0f} s")
        return self._verdict()

    def _has_ended(self) -> bool:
        """Say whether the child has ended. It stays a zombie, so that no other process gets its session's number."""
        return os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _verdict(self) -> int:
        code, held = self._note.read()
        if code is None or self._stop is not None:
            _end_session(self._child)  # first, so that no worker writes after the locks are released
        _, status = os.waitpid(self._child, 0)
        if held:
            _release(held)
        if self._stop is not None and code in (None, 1):  # 1: Ray died before the signal arrived
            _print(STOPPED)
        if self._stop is not None and (code in (None, 1) or code > 128):
            return 128 + self._stop
        if code is None:
            _print(_unexpected(os.waitstatus_to_exitcode(status)))
        return 1 if code is None else code


def _unexpected(code: int) -> str:
    how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
    return (
        f"error: the run's process ended without a message ({how}): it or Ray's own processes were killed, or memory ran out; "
        f"see {ray_logs()}, then run the command again to resume"
    )


def _end_session(leader: int) -> None:
    """Kill all processes of a session: the child and the Ray that it started, but not a cluster that it only joined."""
    for _ in range(10):  # new ones may start meanwhile
        left = _members(leader)
        for process in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not left:
            return


def _members(leader: int) -> list[int]:
    """Return the living processes of a session; without /proc, only its leader."""
    if not os.path.isdir("/proc/self"):
        return []
    members = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            state, _, _, session = file.read().rpartition(b")")[2].split()[:4]
            if int(session) == leader and state != b"Z":
                members.append(int(name))
    return members


def _release(held: list[dict[str, Any]]) -> None:
    """Release locks within a bounded time, because the storage may not answer."""

    def release() -> None:
        from mribatch.predictions import lock

        for facts in held:
            lock.release(lock.Fence(**facts))

    thread = threading.Thread(target=release, daemon=True)
    thread.start()
    thread.join(_RELEASE_S)


def _print(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))


# Streams


class _Screen(io.RawIOBase):
    """A file descriptor to write to. Output that nobody reads is dropped: `… | head -1` must not fail a run."""

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: Any) -> int:
        try:
            return os.write(self._number, data)
        except OSError:
            return len(data)


def _mend_streams() -> None:
    """Replace the output streams by ones that never fail: without a reader, with unknown characters, or when closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number; else the next file would get it
    for name, number in (("stdout", 1), ("stderr", 2)):
        encoding = getattr(getattr(sys, name), "encoding", None) or "utf-8"
        setattr(sys, name, lasting_stream(number, encoding))


def lasting_stream(number: int, encoding: str) -> TextIO:
    """Return a text stream to a file descriptor whose writes never fail: without a reader they are dropped."""
    return io.TextIOWrapper(
        io.BufferedWriter(_Screen(number)), encoding, errors="backslashreplace", line_buffering=True
    )
