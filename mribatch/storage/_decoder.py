"""Decode in a process of its own, so that a scan which kills or hangs its decoder costs that one scan.

What decoding is, `scans.images` says. Not for use outside this folder.
"""

import os
import signal
import socket
import subprocess
import sys
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from mribatch.scans.images import Decoded, ImageSpec, decode
from mribatch.schema import Reason, Status

__all__ = ["DECODE_S", "Decoder", "decoder", "serve"]

DECODE_S = 120.0  # the largest scan takes seconds; a machine that is busy with other things takes many times that
_TRIES = 3  # a decoder may also be killed by the machine, which is out of memory, or by someone's hand
_GRACE_S = 2.0  # a decoder that is overdue ends itself; one that is stopped or stuck in the kernel cannot
_MAIN = "from mribatch.storage._decoder import serve; serve()"


class Decoder:
    """A decoding process, started when it is first needed and again when it has died.

    Its end of the line is its stdin, so it ends with the process that holds this.
    """

    def __init__(self, spec: ImageSpec, timeout_s: float = DECODE_S) -> None:
        self._spec, self._timeout_s = spec, timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> Decoded:
        """As `scans.images.decode`; bytes that kill their decoder every time are rejected as crashed_decoder or
        timed_out. Raises MemoryError."""
        for _ in range(_TRIES):
            try:
                return self._answer(data)
            except (EOFError, ConnectionError):
                ended = self._buried()
        if ended == -signal.SIGALRM:
            detail = f"decoding took more than {self._timeout_s:g} s, {_TRIES} times"
            return Decoded(status=Status.REJECTED, reason=Reason.TIMED_OUT, detail=detail)
        detail = f"decoding ended its process ({_how(ended)}), {_TRIES} times"
        return Decoded(status=Status.REJECTED, reason=Reason.CRASHED_DECODER, detail=detail)

    def peak_bytes(self) -> int:
        """The most memory that the living process has had."""
        if self._process is None:
            return 0
        try:
            with open(f"/proc/{self._process.pid}/status") as lines:
                return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
        except OSError:
            return 0  # it has just died, or there is no /proc here

    def close(self) -> None:
        if self._process is not None:
            self._buried()

    def _answer(self, data: bytes) -> Decoded:
        if self._process is None:
            self._start()
        self._line.send_bytes(data)
        if not self._line.poll(self._timeout_s + _GRACE_S):
            os.kill(self._process_id(), signal.SIGALRM)
            os.kill(self._process_id(), signal.SIGCONT)  # a stopped process dies when it goes on
        answer = self._line.recv()
        if isinstance(answer, MemoryError):
            raise answer
        assert isinstance(answer, Decoded)
        return answer

    def _process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._line = Connection(ours.detach())
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
        self._line.send((self._spec, self._timeout_s))

    def _buried(self) -> int:
        """End the process, if it has not yet; how it ended."""
        assert self._process is not None
        self._line.close()
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return code


@lru_cache(maxsize=1)
def decoder(spec: ImageSpec, timeout_s: float = DECODE_S) -> Decoder:
    """This process's decoder; a worker decodes for one run at a time."""
    return Decoder(spec, timeout_s)


def serve() -> None:
    """What the decoding process does: answer bytes with what they decode to, until the line is closed."""
    line = Connection(os.dup(0))
    spec, timeout_s = line.recv()
    while True:
        try:
            data = line.recv_bytes()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, timeout_s)  # SIGALRM ends it, in the midst of a C library too
        answer = _decoded(data, spec)
        signal.setitimer(signal.ITIMER_REAL, 0)
        line.send(answer)


def _decoded(data: bytes, spec: ImageSpec) -> Any:
    try:
        return decode(data, spec)
    except MemoryError as err:
        return err


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
