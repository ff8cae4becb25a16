"""Start Python processes that answer their parent over a connection, which is their stdin."""

import os
import socket
import struct
import subprocess
import sys
from multiprocessing.connection import Connection

__all__ = ["parent", "start"]


def start(main: str, limit_s: float | None = None) -> "tuple[subprocess.Popen[bytes], Connection]":
    """Run a line of Python in a new process. Return it, and our end of the connection. Raises OSError.

    What it prints is dropped. limit_s: raise BlockingIOError where sending or receiving takes longer.
    """
    ours, theirs = socket.socketpair()
    if limit_s is not None:
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(limit_s) + 1, 0))
    line = Connection(ours.detach())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", main],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
    except OSError:
        line.close()
        raise
    return process, line


def parent() -> Connection:
    """Return this process's connection to its parent."""
    return Connection(os.dup(0))
