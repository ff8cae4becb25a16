"""Run a command on a pseudo-terminal, as a person would see it."""

import os
import pty
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Terminal"]

ROOT = Path(__file__).parent.parent


class Terminal:
    """A process on a pseudo-terminal of its own, and everything that it has written there."""

    def __init__(self, words: Sequence[str], kind: str = "xterm-256color") -> None:
        self.output, self._started = b"", time.monotonic()
        self.process, self._file = pty.fork()
        if self.process == 0:
            for number in (signal.SIGINT, signal.SIGHUP):  # ignored where the tests themselves run in the background
                signal.signal(number, signal.SIG_DFL)
            variables = {"PYTHONPATH": str(ROOT), "TERM": kind, "COLUMNS": "120"}
            os.execve(words[0], words, os.environ | variables)

    def seconds_until(self, text: str) -> float:
        """Read until a text was written, and return how long after the start that was. Raises EOFError without it."""
        while text.encode() not in self.output:
            if not self._read():
                raise EOFError(f"the command ended without {text!r}: {self.output.decode(errors='replace')}")
        return time.monotonic() - self._started

    def close(self) -> int:
        """Read the rest and return the exit code."""
        while self._read():
            pass
        os.close(self._file)
        return self.wait()

    def hang_up(self) -> None:
        """Close the terminal under its process."""
        os.close(self._file)

    def wait(self) -> int:
        """Return the exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def _read(self) -> bytes:
        data = b""
        with suppress(OSError):  # how a pseudo-terminal says that all writers have closed it
            data = os.read(self._file, 65536)
        self.output += data
        return data
