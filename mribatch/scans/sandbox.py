"""Decode in a separate process, so that a scan that kills or hangs its decoder costs only that scan."""

import mmap
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing.connection import Connection

from mribatch import child
from mribatch.causes import cause
from mribatch.errors import DecoderLost
from mribatch.scans.decode import Opened, opened
from mribatch.scans.frames import PIECE_FRAMES, Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.schema import Reason, Status

__all__ = ["DECODE_S", "Decoder", "decoder", "serve"]

DECODE_S = 60.0  # the largest scan takes seconds, on a busy machine many times as long
_START_S = 120.0  # for Python and its imports, from a slow disk
_MOST_LOST = 3  # members of an archive that may end their decoder before the rest is given up
_PAUSES_S = (0.0, 0.5, 3.0)  # before each try: a machine that is out of memory needs a moment
_LIBRARY_BYTES = 256 << 20  # of address space that codecs reserve when they are first used, and hardly touch
_PROBE_BYTES = 256 << 20
_GRACE_S = 2.0  # an overdue decoder ends itself, unless it is stopped or stuck in the kernel
_MAIN = "from mribatch.scans.sandbox import serve; serve()"

_own = threading.local()


@dataclass(frozen=True)
class _Place:
    """The frame that is due next: of a member, if the file is an archive."""

    member: int = 0
    frame: int = 0
    frames: int = 1  # of that member, as far as known

    def after(self, last: Frame) -> "_Place":
        """Return the place after a frame has arrived."""
        number = last.member or 0
        is_done = last.members is not None and last.frame + 1 == last.frames
        return _Place(number + 1) if is_done else _Place(number, last.frame + 1, last.frames)

    def rest(self, verdict: Frame, names: tuple[str, ...]) -> Iterator[Frame]:
        """Yield a verdict for each frame of the member, or of the file, that has not arrived."""
        for number in range(self.frame, self.frames):
            yield _of_member(replace(verdict, frame=number, frames=self.frames), names, self.member)


@dataclass(frozen=True)
class _Names:
    """The names of an archive's members, known before any of them is decoded."""

    names: tuple[str, ...]


class Decoder:
    """A decoding process, started when it is first needed and restarted when it has died.

    Its end of the connection is its stdin, so it ends with the process that owns this object.
    """

    def __init__(self, spec: ImageSpec, timeout_s: float = DECODE_S, reading: Reading | None = None) -> None:
        self._spec, self._timeout_s, self._reading = spec, timeout_s, reading or Reading()
        self._process: subprocess.Popen[bytes] | None = None
        self._names: tuple[str, ...] = ()  # of the members of the archive that is being decoded

    def decode(self, data: bytes) -> list[Frame]:
        """Return all frames of a file at once. See `pieces`."""
        return [frame for piece in self.pieces(data) for frame in piece]

    def pieces(self, data: bytes) -> Iterator[list[Frame]]:
        """Yield what `scans.decode.frames` yields, in lists of PIECE_FRAMES frames at most.

        Bytes that kill or hang the process at every try are rejected as crashed_decoder or timed_out; those that make
        it raise an unforeseen error have failed. This holds for the frames that are not decoded yet, too; of an archive,
        for those of one member, or of all that are left after _MOST_LOST of them. Raises MemoryError, and DecoderLost if
        no decoding process can be started.
        """
        self._names, place = (), _Place()
        for _ in range(_MOST_LOST):
            stopped = yield from self._tried(data, place)
            if stopped is None:
                return
            place, verdict = stopped
            yield from _chunks([*place.rest(verdict, self._names)])
            place = _Place(place.member + 1)
            if place.member >= len(self._names):
                return
        left = range(place.member, len(self._names))
        yield from _chunks([_of_member(verdict, self._names, member) for member in left])

    def _tried(self, data: bytes, place: _Place) -> Generator[list[Frame], None, tuple[_Place, Frame] | None]:
        """Yield pieces to the end and return None, or return the place where each try fails, and the verdict on it.

        After a first failure an archive's frames come one at a time, so that members before the one at fault do arrive.
        """
        tries = exit_code = 0
        while tries < len(_PAUSES_S):
            if tries:
                time.sleep(_PAUSES_S[tries])
            process, begun = self._process or self._start(), place
            try:
                for piece in self._answers(data, process, place, 1 if tries and self._names else PIECE_FRAMES):
                    yield piece
                    place = place.after(piece[-1])
                return None
            except BlockingIOError:
                exit_code = self._end(process, overdue=True)
            except (EOFError, OSError):
                exit_code = self._end(process)
            tries = 1 if place.member > begun.member else tries + 1
        return place, self._verdict(exit_code)

    def _verdict(self, exit_code: int) -> Frame:
        tries = len(_PAUSES_S)
        if exit_code == -signal.SIGALRM:
            detail = f"decoding took more than {self._timeout_s:g} s, {tries} times"
            return Frame(status=Status.REJECTED, reason=Reason.TIMED_OUT, detail=detail)
        detail = f"decoding ended its process ({child.ending(exit_code)}), {tries} times"
        return Frame(status=Status.REJECTED, reason=Reason.CRASHED_DECODER, detail=detail)

    def peak_bytes(self) -> int:
        """Return the peak memory of the running process."""
        return 0 if self._process is None else child.peak_bytes(self._process.pid)

    def _answers(
        self, data: bytes, process: "subprocess.Popen[bytes]", due: _Place, piece_frames: int
    ) -> Iterator[list[Frame]]:
        """Yield the pieces of an answer, without the frames that an earlier process has answered."""
        self._line.send((due.member, piece_frames))
        self._line.send_bytes(data)
        is_whole = False
        try:
            while not is_whole:
                answer = self._line.recv()
                if isinstance(answer, MemoryError):
                    is_whole = True
                    raise answer
                if isinstance(answer, _Names):
                    self._names = answer.names
                    continue
                piece, is_whole = answer
                if piece := [one for one in piece if ((one.member or 0), one.frame) >= (due.member, due.frame)]:
                    yield piece
        except GeneratorExit:  # nobody wants the rest, which the process still sends
            if not is_whole:
                self._end(process, overdue=True)
            raise

    def _start(self) -> "subprocess.Popen[bytes]":
        """Start a process and wait until it is ready. If it is not, the machine is at fault and not the scan."""
        try:
            limit_s = self._timeout_s + _GRACE_S
            self._process, self._line = child.start(_MAIN, send_s=limit_s, receive_s=limit_s)
            self._line.send((self._spec, self._timeout_s, self._reading))
            if self._line.poll(_START_S) and self._line.recv() == "ready":
                return self._process
        except (EOFError, OSError) as err:
            raise self._not_started() from err
        raise self._not_started()

    def _not_started(self) -> DecoderLost:
        problem = (
            "it is out of processes or memory" if self._process is None else child.ending(self._end(self._process))
        )
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


def decoder(spec: ImageSpec, timeout_s: float = DECODE_S, reading: Reading | None = None) -> Decoder:
    """Return this thread's decoder. There is one, as a worker decodes for one run at a time."""
    settings = (spec, timeout_s, reading)
    if getattr(_own, "settings", None) != settings:
        _own.settings, _own.decoder = settings, Decoder(*settings)
    kept: Decoder = _own.decoder
    return kept


def serve() -> None:
    """Run as the decoding process: answer bytes with the frames in them, until the connection is closed.

    It is also sent the number of the first member that is due, and how many frames to send at once. An answer is the names
    of an archive's members, and lists of frames, each with whether it is the last one; or a MemoryError.
    """
    line = child.parent()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even inside a C library
    spec, timeout_s, reading = line.recv()
    _limit_memory(spec.max_memory_bytes)
    line.send("ready")
    while True:
        try:
            first, piece_frames = line.recv()
            _answer(line, line.recv_bytes(), first, piece_frames, spec, reading, timeout_s)
        except (EOFError, ConnectionError):
            return


def _answer(
    line: Connection, data: bytes, first: int, piece_frames: int, spec: ImageSpec, reading: Reading, timeout_s: float
) -> None:
    """Send the names of a file's members, then its frames piece by piece. The time limit holds for each piece, not for the wait until it is taken."""
    try:
        with child.limited(timeout_s):
            file = _opened(data, spec, reading)
        if file.names:
            line.send(_Names(file.names))
        scans = enumerate(file.scans(first), first)
        frames = chain.from_iterable(_guarded(scan, file.names, number) for number, scan in scans)
        is_last = False
        while not is_last:
            piece = _next(frames, piece_frames, timeout_s)
            is_last = len(piece) < piece_frames
            line.send((piece, is_last))
    except MemoryError as err:
        line.send(err)


def _next(frames: Iterator[Frame], count: int, timeout_s: float) -> list[Frame]:
    with child.limited(timeout_s):
        return list(islice(frames, count))


def _opened(data: bytes, spec: ImageSpec, reading: Reading) -> Opened:
    """Open a file. If that cannot be done, the file has one frame that says why. Raises what `_fault` raises."""
    try:
        return opened(data, spec, reading)
    except Exception as err:
        fault = _fault(err)
        return Opened((), lambda start: iter([iter([fault])][start:]))


def _guarded(scan: Iterator[Frame], names: tuple[str, ...], member: int) -> Iterator[Frame]:
    """Yield the frames of a scan, and for those that are left after an error the reason. Raises what `_fault` raises."""
    place = _Place(member)
    try:
        for frame in scan:
            yield frame
            place = _Place(member, frame.frame + 1, frame.frames)
    except Exception as err:
        yield from place.rest(_fault(err), names)


def _fault(err: Exception) -> Frame:
    """Return what an error makes of frames: an unforeseen one fails them, too little memory rejects them.

    Raises MemoryError if it is the machine that has no memory left.
    """
    if not isinstance(err, MemoryError):
        return Frame(status=Status.FAILED, reason=Reason.UNFORESEEN, detail=cause(err))
    if not _has_memory():
        raise err
    return Frame(status=Status.REJECTED, reason=Reason.TOO_LARGE, detail="decoding takes more memory than allowed")


def _of_member(frame: Frame, names: tuple[str, ...], member: int) -> Frame:
    """Return a frame as one of a member, if its file is an archive."""
    return replace(frame, name=names[member], member=member, members=len(names)) if names else frame


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
