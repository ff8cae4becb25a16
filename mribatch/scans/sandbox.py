"""Decode in a process of its own, so that a scan which kills or hangs its decoder costs that one scan."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from mribatch.causes import cause
from mribatch.errors import DecoderLost
from mribatch.scans.decode import decode
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Reason, Status

__all__ = ["DECODE_S", "Decoder", "decoder", "serve"]

DECODE_S = 60.0  # the largest scan takes seconds; a machine that is busy with other things takes many times that
_START_S = 120.0  # for Python and its imports, from a slow disk
_PAUSES_S = (0.0, 0.5, 3.0)  # before each try: a machine that is out of memory needs a moment
_GRACE_S = 2.0  # a decoder that is overdue ends itself; one that is stopped or stuck in the kernel cannot
_MAIN = "from mribatch.scans.sandbox import serve; serve()"


class Decoder:
    """A decoding process, started when it is first needed and again when it has died.

    Its end of the line is its stdin, so it ends with the process that holds this.
    """

    def __init__(self, spec: ImageSpec, timeout_s: float = DECODE_S) -> None:
        self._spec, self._timeout_s = spec, timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> list[Frame]:
        """Return what `scans.decode.decode` returns. Bytes that kill or hang the process at every try are rejected as
        crashed_decoder or timed_out; those that make it raise an unforeseen error have failed.

        Raises MemoryError, and DecoderLost where no decoding process can be started.
        """
        for pause_s in _PAUSES_S:
            if pause_s:
                time.sleep(pause_s)
            process = self._process or self._start()
            try:
                return self._answer(data)
            except BlockingIOError:
                ended = self._buried(process, overdue=True)
            except (EOFError, OSError):
                ended = self._buried(process)
        tries = len(_PAUSES_S)
        if ended == -signal.SIGALRM:
            detail = f"decoding took more than {self._timeout_s:g} s, {tries} times"
            return [Frame(status=Status.REJECTED, reason=Reason.TIMED_OUT, detail=detail)]
        detail = f"decoding ended its process ({_how(ended)}), {tries} times"
        return [Frame(status=Status.REJECTED, reason=Reason.CRASHED_DECODER, detail=detail)]

    def peak_bytes(self) -> int:
        """The most memory that the living process has had."""
        if self._process is None:
            return 0
        try:
            with open(f"/proc/{self._process.pid}/status") as lines:
                return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
        except OSError:
            return 0  # it has just died, or there is no /proc here

    def _answer(self, data: bytes) -> list[Frame]:
        self._line.send_bytes(data)
        if not self._line.poll(self._timeout_s + _GRACE_S):
            raise BlockingIOError
        answer = self._line.recv()
        if isinstance(answer, MemoryError):
            raise answer
        frames: list[Frame] = answer
        return frames

    def _start(self) -> "subprocess.Popen[bytes]":
        """A process that says it is ready; one that is not, is the machine's fault and no scan's."""
        ours, theirs = socket.socketpair()
        limit = struct.pack("ll", int(self._timeout_s + _GRACE_S) + 1, 0)
        for way in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, way, limit)
        self._line = Connection(ours.detach())
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _MAIN],
                    stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
                )  # fmt: skip
            self._line.send((self._spec, self._timeout_s))
            if self._line.poll(_START_S) and self._line.recv() == "ready":
                return self._process
        except (EOFError, OSError) as err:
            raise self._not_started() from err
        raise self._not_started()

    def _not_started(self) -> DecoderLost:
        how = "it is out of processes or memory" if self._process is None else _how(self._buried(self._process))
        return DecoderLost(
            f"no decoder could be started on this machine ({how}): see that it can run {sys.executable}",
            detail=f"no decoder could be started on its machine ({how})",
        )

    def _buried(self, process: "subprocess.Popen[bytes]", *, overdue: bool = False) -> int:
        """End a process, if it has not yet ended; how it did."""
        self._line.close()
        if overdue:
            process.send_signal(signal.SIGALRM)
            process.send_signal(signal.SIGCONT)  # a stopped process dies when it goes on
        try:
            code = process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = -signal.SIGALRM
        self._process = None
        return code


@lru_cache(maxsize=1)
def decoder(spec: ImageSpec, timeout_s: float = DECODE_S) -> Decoder:
    """This process's decoder; a worker decodes for one run at a time."""
    return Decoder(spec, timeout_s)


def serve() -> None:
    """What the decoding process does: answer bytes with what they decode to, until the line is closed."""
    line = Connection(os.dup(0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends it, in the midst of a C library too
    spec, timeout_s = line.recv()
    line.send("ready")
    while True:
        try:
            line.send(_next(line, spec, timeout_s))
        except (EOFError, ConnectionError):
            return


def _next(line: Connection, spec: ImageSpec, timeout_s: float) -> Any:
    data = line.recv_bytes()
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        return decode(data, spec)
    except MemoryError as err:
        return err
    except Exception as err:
        return [Frame(status=Status.FAILED, reason=Reason.UNFORESEEN, detail=cause(err))]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
