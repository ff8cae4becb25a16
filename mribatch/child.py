"""Start Python processes that answer their parent over a connection, limit their time, and say how they ended."""

import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

__all__ = ["ending", "limited", "parent", "peak_bytes", "start"]


def start(
    main: str, *, send_s: float | None = None, receive_s: float | None = None
) -> "tuple[subprocess.Popen[bytes], Connection]":
    """Run a line of Python in a new process. Return it, and our end of a connection to it. Raises OSError.

    What it prints is dropped. send_s, receive_s: raise BlockingIOError where sending or receiving takes longer.
    """
    ours, theirs = socket.socketpair()
    for option, limit_s in ((socket.SO_SNDTIMEO, send_s), (socket.SO_RCVTIMEO, receive_s)):
        if limit_s is not None:
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(limit_s) + 1, 0))
    line = Connection(ours.detach())
    modules = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", main],  # -P: no module of the current folder takes the place of another
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": modules},
            )
    except OSError:
        line.close()
        raise
    return process, line


def parent() -> Connection:
    """Return this process's connection to its parent, which is its stdin. Processes that this one starts do not inherit it."""
    line = Connection(os.dup(0))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return line


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Let SIGALRM end this process if this lasts longer. In its main thread."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def ending(code: int) -> str:
    """Return what an exit code says."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def peak_bytes(process: int | None = None) -> int:
    """Return the peak memory of a process, by default this one; 0 where another one cannot be looked at.

    The system's own figure, `ru_maxrss`, begins with the peak of the process that started this one.
    """
    try:
        with open(f"/proc/{process or 'self'}/status") as lines:
            return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except OSError:  # it has just died, or there is no /proc
        return 0 if process else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
