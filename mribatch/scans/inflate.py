"""Inflate gzip piece by piece, so that nothing grows beyond its caps, and read it as a stream."""

import io
import zlib
from collections.abc import Iterator

from mribatch.scans.formats import RejectionError
from mribatch.scans.limits import ImageSpec, check_ratio
from mribatch.schema import Reason

__all__ = ["PIECE_BYTES", "InflatedStream", "PlainStream", "gzip_content", "gzip_start", "inflated"]

PIECE_BYTES = 1 << 18
"""As much is read at once. The headers of archives are shorter, unless someone means harm."""

_GZIP = b"\x1f\x8b"
_WITH_HEADER = 31  # zlib's number for gzip with its header and checksum
_START_BYTES = 1024  # enough for the magic of every format
_KEPT_BYTES = 1024  # behind the position, to which a reader of tar may go back


def inflated(data: bytes, most_bytes: int, spec: ImageSpec) -> Iterator[bytes]:
    """Yield the content of a gzip file in pieces, also of several gzip streams in a row.

    Raises RejectionError beyond most_bytes or the ratio, and for a file that is cut or damaged.
    """
    at = total = 0
    while data.startswith(_GZIP, at):
        stream = zlib.decompressobj(_WITH_HEADER)
        while not stream.eof:
            packed = stream.unconsumed_tail or data[at : at + PIECE_BYTES]
            at += 0 if stream.unconsumed_tail else len(packed)
            piece = _next_piece(stream, packed)
            total += len(piece)
            if total > most_bytes:
                raise RejectionError(Reason.TOO_LARGE, f"it unpacks to more than the cap of {most_bytes} bytes")
            check_ratio(total, len(data), spec)
            if piece:
                yield piece
            elif not packed:
                raise RejectionError(Reason.TRUNCATED, "the gzip file ends before its data does")
        at -= len(stream.unused_data)


def _next_piece(stream: "zlib._Decompress", packed: bytes) -> bytes:
    try:
        return stream.decompress(packed, PIECE_BYTES)
    except zlib.error as err:
        raise RejectionError(Reason.CORRUPT, "the gzip data is damaged") from err


def gzip_start(data: bytes, spec: ImageSpec) -> bytes:
    """Return the first bytes of a gzip file's content. Raises RejectionError."""
    start = b""
    for piece in inflated(data, spec.max_bytes, spec):
        start += piece
        if len(start) >= _START_BYTES:
            break
    return start[:_START_BYTES]


def gzip_content(data: bytes, spec: ImageSpec) -> bytes:
    """Return the content of a gzip file. Raises RejectionError."""
    return b"".join(inflated(data, spec.max_bytes, spec))


def _check_read(size: int | None) -> int:
    if size is None or not 0 <= size <= PIECE_BYTES:
        raise RejectionError(Reason.TOO_LARGE, "a header of the archive is larger than any real one")
    return size


class PlainStream(io.BytesIO):
    """Bytes as a file of which no one reads more than PIECE_BYTES at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return some bytes, fewer at the end. Raises RejectionError for too many at once."""
        return super().read(_check_read(size))


class InflatedStream(io.RawIOBase):
    """A gzip file's content as a file that is read forwards, no more than PIECE_BYTES at once."""

    def __init__(self, data: bytes, spec: ImageSpec) -> None:
        self._pieces = inflated(data, spec.max_unpacked_bytes, spec)
        self._window = bytearray()  # of the content: it holds the position
        self._begin = self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position from the start: forwards, or back by _KEPT_BYTES at most."""
        if whence != io.SEEK_SET or position < self._begin:
            raise io.UnsupportedOperation("inflated data is read forwards")
        while position > self._begin + len(self._window) and self._fill():
            self._forget(self._begin + len(self._window))
        self._position = min(position, self._begin + len(self._window))
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return some bytes, fewer at the end. Raises RejectionError for too many at once, and what `inflated` raises."""
        end = self._position + _check_read(size)
        while self._begin + len(self._window) < end and self._fill():
            pass
        start = self._position - self._begin
        taken = bytes(self._window[start : end - self._begin])
        self._position += len(taken)
        self._forget(self._position)
        return taken

    def _fill(self) -> bool:
        piece = next(self._pieces, None)
        self._window += piece or b""
        return piece is not None

    def _forget(self, position: int) -> None:
        """Drop what lies more than _KEPT_BYTES before a position."""
        spare = position - self._begin - _KEPT_BYTES
        if spare > PIECE_BYTES:
            del self._window[:spare]
            self._begin += spare
