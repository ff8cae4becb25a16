"""Decode in a separate process, so that a scan that kills or hangs its decoder costs only that scan."""

import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from multiprocessing.connection import Connection

from mribatch.causes import cause
from mribatch.errors import DecoderLost
from mribatch.scans.decode import frames
from mribatch.scans.frames import PIECE_FRAMES, Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.schema import Reason, Status

__all__ = ["DECODE_S", "Decoder", "decoder", "serve"]

DECODE_S = 60.0  # the largest scan takes seconds, on a busy machine many times as long
_START_S = 120.0  # for Python and its imports, from a slow disk
_PAUSES_S = (0.0, 0.5, 3.0)  # before each try: a machine that is out of memory needs a moment
_LIBRARY_BYTES = 256 << 20  # of address space that codecs reserve when they are first used, and hardly touch
_PROBE_BYTES = 256 << 20
_GRACE_S = 2.0  # an overdue decoder ends itself, unless it is stopped or stuck in the kernel
_MAIN = "from mribatch.scans.sandbox import serve; serve()"


class Decoder:
    """A decoding process, started when it is first needed and restarted when it has died.

    Its end of the connection is its stdin, so it ends with the process that owns this object.
    """

    def __init__(self, spec: ImageSpec, timeout_s: float = DECODE_S, reading: Reading | None = None) -> None:
        self._spec, self._timeout_s, self._reading = spec, timeout_s, reading or Reading()
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> list[Frame]:
        """Return all frames of a file at once. See `pieces`."""
        return [frame for piece in self.pieces(data) for frame in piece]

    def pieces(self, data: bytes) -> Iterator[list[Frame]]:
        """Yield what `scans.decode.frames` yields, in lists of PIECE_FRAMES frames at most.

        Bytes that kill or hang the process at every try are rejected as crashed_decoder or timed_out; those that make
        it raise an unforeseen error have failed. This holds for the frames that are not decoded yet, too. Raises
        MemoryError, and DecoderLost if no decoding process can be started.
        """
        done, count, exit_code = 0, 1, 0
        for pause_s in _PAUSES_S:
            if pause_s:
                time.sleep(pause_s)
            process = self._process or self._start()
            try:
                for piece in self._answers(data, process, done):
                    yield piece
                    done, count = done + len(piece), piece[-1].frames
                return
            except BlockingIOError:
                exit_code = self._end(process, overdue=True)
            except (EOFError, OSError):
                exit_code = self._end(process)
        yield from _chunks(
            [replace(self._verdict(exit_code), frame=number, frames=count) for number in range(done, count)]
        )

    def _verdict(self, exit_code: int) -> Frame:
        tries = len(_PAUSES_S)
        if exit_code == -signal.SIGALRM:
            detail = f"decoding took more than {self._timeout_s:g} s, {tries} times"
            return Frame(status=Status.REJECTED, reason=Reason.TIMED_OUT, detail=detail)
        detail = f"decoding ended its process ({_ending(exit_code)}), {tries} times"
        return Frame(status=Status.REJECTED, reason=Reason.CRASHED_DECODER, detail=detail)

    def peak_bytes(self) -> int:
        """Return the peak memory of the running process."""
        if self._process is None:
            return 0
        try:
            with open(f"/proc/{self._process.pid}/status") as lines:
                return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
        except OSError:
            return 0  # it has just died, or there is no /proc

    def _answers(self, data: bytes, process: "subprocess.Popen[bytes]", done: int) -> Iterator[list[Frame]]:
        """Yield the pieces of an answer, without the frames that an earlier process has answered."""
        self._line.send_bytes(data)
        is_whole = False
        try:
            while not is_whole:
                if not self._line.poll(self._timeout_s + _GRACE_S):
                    raise BlockingIOError
                answer = self._line.recv()
                is_whole = not isinstance(answer, list)
                if isinstance(answer, MemoryError):
                    raise answer
                if piece := [frame for frame in answer or () if frame.frame >= done]:
                    yield piece
        except GeneratorExit:  # nobody wants the rest, which the process still sends
            if not is_whole:
                self._end(process, overdue=True)
            raise

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
            self._line.send((self._spec, self._timeout_s, self._reading))
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
def decoder(spec: ImageSpec, timeout_s: float = DECODE_S, reading: Reading | None = None) -> Decoder:
    """Return this process's decoder. There is one, as a worker decodes for one run at a time."""
    return Decoder(spec, timeout_s, reading)


def serve() -> None:
    """Run as the decoding process: answer bytes with the frames in them, until the connection is closed.

    An answer is lists of frames, then None, or a MemoryError.
    """
    line = Connection(os.dup(0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even inside a C library
    spec, timeout_s, reading = line.recv()
    _limit_memory(spec.max_memory_bytes)
    line.send("ready")
    while True:
        try:
            _answer(line, _guarded(line.recv_bytes(), spec, reading), timeout_s)
        except (EOFError, ConnectionError):
            return


def _answer(line: Connection, scan: Iterator[Frame], timeout_s: float) -> None:
    """Send a file piece by piece. The time limit holds for each piece, not for the wait until it is taken."""
    try:
        while piece := _next(scan, timeout_s):
            line.send(piece)
    except MemoryError as err:
        line.send(err)
    else:
        line.send(None)


def _next(scan: Iterator[Frame], timeout_s: float) -> list[Frame]:
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        return list(islice(scan, PIECE_FRAMES))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _guarded(data: bytes, spec: ImageSpec, reading: Reading) -> Iterator[Frame]:
    """Yield the frames of a file. An unforeseen error fails those that are left; too little memory rejects them.

    Raises MemoryError if it is the machine that has no memory left.
    """
    done, count = 0, 1
    try:
        for frame in frames(data, spec, reading):
            yield frame
            done, count = frame.frame + 1, frame.frames
    except MemoryError:
        if not _has_memory():
            raise
        fault = Frame(status=Status.REJECTED, reason=Reason.TOO_LARGE, detail="decoding takes more memory than allowed")
    except Exception as err:
        fault = Frame(status=Status.FAILED, reason=Reason.UNFORESEEN, detail=cause(err))
    else:
        return
    yield from (replace(fault, frame=number, frames=count) for number in range(done, count))


def _limit_memory(max_bytes: int) -> None:
    """Let this process take so much memory beyond what it has: what takes more is denied it, even in a C library."""
    with suppress(OSError, ValueError):  # where there is no /proc, or limits are not for us to set
        with open("/proc/self/status") as lines:
            present = sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmSize:"))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (present + max_bytes + _LIBRARY_BYTES, hard))


def _has_memory() -> bool:
    """Return whether the machine would give as much memory as a scan may take: then it was the limit that denied it."""
    limit, hard = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        mmap.mmap(-1, _PROBE_BYTES).close()
        return True
    except (OSError, ValueError):
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _chunks(frames: list[Frame]) -> Iterator[list[Frame]]:
    for first in range(0, len(frames), PIECE_FRAMES):
        yield frames[first : first + PIECE_FRAMES]


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
