"""Decode in a separate process, so that a scan that kills or hangs its decoder costs only that scan."""

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

DECODE_S = 60.0  # the largest scan takes seconds, on a busy machine many times as long
_START_S = 120.0  # for Python and its imports, from a slow disk
_PAUSES_S = (0.0, 0.5, 3.0)  # before each try: a machine that is out of memory needs a moment
_GRACE_S = 2.0  # an overdue decoder ends itself, unless it is stopped or stuck in the kernel
_MAIN = "from mribatch.scans.sandbox import serve; serve()"


class Decoder:
    """A decoding process, started when it is first needed and restarted when it has died.

    Its end of the connection is its stdin, so it ends with the process that owns this object.
    """

    def __init__(self, spec: ImageSpec, timeout_s: float = DECODE_S) -> None:
        self._spec, self._timeout_s = spec, timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> list[Frame]:
        """Return what `scans.decode.decode` returns.

        Bytes that kill or hang the process at every try are rejected as crashed_decoder or timed_out; those that make
        it raise an unforeseen error have failed. Raises MemoryError, and DecoderLost if no decoding process can be
        started.
        """
        for pause_s in _PAUSES_S:
            if pause_s:
                time.sleep(pause_s)
            process = self._process or self._start()
            try:
                return self._answer(data)
            except BlockingIOError:
                exit_code = self._end(process, overdue=True)
            except (EOFError, OSError):
                exit_code = self._end(process)
        tries = len(_PAUSES_S)
        if exit_code == -signal.SIGALRM:
            detail = f"decoding took more than {self._timeout_s:g} s, {tries} times"
            return [Frame(status=Status.REJECTED, reason=Reason.TIMED_OUT, detail=detail)]
        detail = f"decoding ended its process ({_ending(exit_code)}), {tries} times"
        return [Frame(status=Status.REJECTED, reason=Reason.CRASHED_DECODER, detail=detail)]

    def peak_bytes(self) -> int:
        """Return the peak memory of the running process."""
        if self._process is None:
            return 0
        try:
            with open(f"/proc/{self._process.pid}/status") as lines:
                return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
        except OSError:
            return 0  # it has just died, or there is no /proc

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
        """Start a process and wait until it is ready. If it is not, the machine is at fault and not the scan."""
        ours, theirs = socket.socketpair()
        limit = struct.pack("ll", int(self._timeout_s + _GRACE_S) + 1, 0)
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, limit)
        self._line = Connection(ours.detach())
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _MAIN],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                )
            self._line.send((self._spec, self._timeout_s))
            if self._line.poll(_START_S) and self._line.recv() == "ready":
                return self._process
        except (EOFError, OSError) as err:
            raise self._not_started() from err
        raise self._not_started()

    def _not_started(self) -> DecoderLost:
        problem = "it is out of processes or memory" if self._process is None else _ending(self._end(self._process))
        return DecoderLost(
            f"no decoder could be started on this machine ({problem}): check that it can run {sys.executable}",
            detail=f"no decoder could be started on its machine ({problem})",
        )

    def _end(self, process: "subprocess.Popen[bytes]", *, overdue: bool = False) -> int:
        """End a process that may have ended already, and return its exit code."""
        self._line.close()
        if overdue:
            process.send_signal(signal.SIGALRM)
            process.send_signal(signal.SIGCONT)  # a stopped process dies when it continues
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
    """Return this process's decoder. There is one, as a worker decodes for one run at a time."""
    return Decoder(spec, timeout_s)


def serve() -> None:
    """Run as the decoding process: answer bytes with the frames in them, until the connection is closed."""
    line = Connection(os.dup(0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even inside a C library
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


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
