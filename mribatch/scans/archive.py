"""Read the members of a zip, tar or tar.gz as streams: each is a scan, and nothing is ever written by its name.

An archive is first listed, so that one beyond a cap is rejected before a member is read. Links, devices, folders, and
names that no scan has are no members.
"""

import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from typing import IO, Any, Protocol

from mribatch.junk import is_junk
from mribatch.scans.formats import GZIP, ZIP, RejectionError
from mribatch.scans.inflate import PIECE_BYTES, InflatedStream, PlainStream
from mribatch.scans.limits import ImageSpec, check_ratio
from mribatch.schema import Reason

__all__ = ["Archive", "open_archive"]

Content = Callable[[], bytes]
"""Return the bytes of a member. Raises RejectionError."""

_DIRECTORY_ENTRY, _DIRECTORY_END = b"PK\x01\x02", b"PK\x05\x06"
_IS_ENCRYPTED = 1 | 1 << 6 | 1 << 13  # bits of a zip's flags: traditional, strong, and with a masked directory
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others take more memory, and no one packs scans with them
_DOCUMENTS = ("[Content_Types].xml", "mimetype")  # an office document begins with one of these
_END_BYTES = 22  # of a zip's end record
_FREE_TOTAL_BYTES = 1_000_000_000  # an archive of masks may be compressed at any ratio up to this
_TAR_BLOCK = 512
_MOST_NAME = 1000  # characters
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # also turns of direction
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error),
    *(EOFError, OSError, NotImplementedError, RuntimeError, ValueError, IndexError, OverflowError),
)
"""What the readers of the standard library raise for bytes that make no sense."""


class Archive(Protocol):
    """The members of an archive in their order."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the members, as rows show them: no two alike, without control characters."""

    def contents(self, start: int = 0) -> Iterator[Content]:
        """Yield the members from a number on. Each must be read before the next one is asked for."""


def open_archive(data: bytes, name: str, spec: ImageSpec) -> Archive:
    """List a zip, a tar, or the tar in a gzip file. Raises RejectionError."""
    try:
        archive = _Zip(data, spec) if name == ZIP else _Tar(data, name == GZIP, spec)
    except tarfile.ReadError as err:
        is_cut = "end of data" in str(err)
        fault = (Reason.TRUNCATED, "the tar file is cut") if is_cut else (Reason.CORRUPT, "the tar file is damaged")
        raise RejectionError(*fault) from err
    except _DAMAGED as err:
        raise RejectionError(Reason.CORRUPT, "the archive is damaged") from err
    if not archive.names:
        raise RejectionError(Reason.EMPTY, "the archive holds no files")
    return archive


class _Zip:
    def __init__(self, data: bytes, spec: ImageSpec) -> None:
        self._spec = spec
        _check_count(data.count(_DIRECTORY_ENTRY), spec)  # before any is read
        if _DIRECTORY_END not in data:
            raise RejectionError(Reason.TRUNCATED, "the zip file ends before its directory")
        self._file = _zip_file(data)
        entries = self._file.infolist()
        if entries and entries[0].filename in _DOCUMENTS:
            raise RejectionError(Reason.UNSUPPORTED_FORMAT, "office documents are not supported")
        self._members = [entry for entry in entries if _is_zipped_file(entry) and _is_scan_name(entry.filename)]
        _check_total(sum(entry.file_size for entry in self._members), spec)
        check_ratio(sum(_read_bytes(entry, spec) for entry in self._members), len(data), spec, _FREE_TOTAL_BYTES)
        self.names = _shown(entry.filename for entry in self._members)

    def contents(self, start: int = 0) -> Iterator[Content]:
        return (partial(self._content, entry) for entry in self._members[start:])

    def _content(self, entry: zipfile.ZipInfo) -> bytes:
        if entry.flag_bits & _IS_ENCRYPTED:
            raise RejectionError(Reason.ENCRYPTED, "the member needs a password")
        if entry.compress_type not in _METHODS:
            raise RejectionError(Reason.UNSUPPORTED_FORMAT, "the member is compressed in a way not read here")
        check_ratio(entry.file_size, entry.compress_size, self._spec)
        return _read(lambda: self._file.open(entry), entry.file_size, self._spec)


class _Tar:
    def __init__(self, data: bytes, is_packed: bool, spec: ImageSpec) -> None:
        self._data, self._is_packed, self._spec = data, is_packed, spec
        members = [(entry.name, entry.size) for _, entry in self._entries()]
        _check_total(sum(size for _, size in members), spec)
        self.names = _shown(name for name, _ in members)

    def contents(self, start: int = 0) -> Iterator[Content]:
        for number, (file, entry) in enumerate(self._entries()):
            if number >= start:
                yield partial(self._content, file, entry)

    def _entries(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        """Yield the members of the tar, and check that it is complete."""
        stream: Any = InflatedStream(self._data, self._spec) if self._is_packed else PlainStream(self._data)
        with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8") as file:
            for number, entry in enumerate(file, 1):
                _check_count(number, self._spec)
                if entry.size < 0:  # the bytes before it would be read again
                    raise RejectionError(Reason.CORRUPT, "a header of the tar file is damaged")
                if entry.isreg() and _is_scan_name(entry.name):
                    yield file, entry
            stream.seek(file.offset)
            rest = stream.read(_TAR_BLOCK)
        if len(rest) < _TAR_BLOCK:
            raise RejectionError(Reason.TRUNCATED, "the tar file ends before its end mark")
        if any(rest):
            raise RejectionError(Reason.CORRUPT, "a header of the tar file is damaged")
        while self._is_packed and stream.read(PIECE_BYTES):  # to the checksum of gzip
            pass

    def _content(self, file: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
        if entry.issparse():
            raise RejectionError(Reason.UNSUPPORTED_FORMAT, "the member is stored with holes, which are not read here")
        return _read(lambda: file.extractfile(entry), entry.size, self._spec)


def _zip_file(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(BytesIO(data))
    except zipfile.BadZipFile as err:
        if data.rfind(_DIRECTORY_END) > len(data) - _END_BYTES:
            raise RejectionError(Reason.TRUNCATED, "the zip file ends within its end record") from err
        raise


def _read_bytes(entry: zipfile.ZipInfo, spec: ImageSpec) -> int:
    """Return the unpacked size of a member; 0 if its own size or ratio keeps it from being read."""
    try:
        check_ratio(entry.file_size, entry.compress_size, spec)
    except RejectionError:
        return 0
    return entry.file_size if entry.file_size <= spec.max_bytes else 0


def _is_zipped_file(entry: zipfile.ZipInfo) -> bool:
    is_folder = not entry.filename or entry.is_dir()  # Python 3.11 raises IndexError for a name without characters
    return not is_folder and stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)


def _is_scan_name(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return not is_junk("/".join(part for part in parts if part not in ("", ".", "..")))


def _shown(names: Iterable[str]) -> tuple[str, ...]:
    """Return names as rows show them: no two alike, cut, without control characters and bytes that are not UTF-8."""
    shown: dict[str, int] = {}  # with the number that a namesake got last
    for name in names:
        plain = unique = _UNSAFE.sub(_quoted, name.removeprefix("./"))[:_MOST_NAME]
        while unique in shown:
            shown[plain] += 1
            unique = f"{plain}#{shown[plain]}"
        shown[unique] = 1
    return tuple(shown)


def _quoted(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in match[0].encode(errors="surrogateescape"))


def _read(opened: Callable[[], IO[bytes] | None], size: int, spec: ImageSpec) -> bytes:
    """Return the bytes of a member piece by piece, as a header may lie about their number. Raises RejectionError."""
    if size > spec.max_bytes:
        raise RejectionError(Reason.TOO_LARGE, f"{size} bytes exceed the cap of {spec.max_bytes}")
    try:
        with opened() as stream:  # type: ignore[union-attr]  # a regular file of a tar has content
            content = b"".join(iter(lambda: stream.read(PIECE_BYTES), b""))
    except EOFError as err:
        raise RejectionError(Reason.TRUNCATED, "the archive ends before the member does") from err
    except _DAMAGED as err:
        raise RejectionError(Reason.CORRUPT, "the member is damaged") from err
    if len(content) < size:
        raise RejectionError(Reason.TRUNCATED, "the member is shorter than its archive says")
    return content


def _check_count(entries: int, spec: ImageSpec) -> None:
    if entries > spec.max_members:
        raise RejectionError(Reason.TOO_LARGE, f"the archive has more entries than the cap of {spec.max_members}")


def _check_total(unpacked_bytes: int, spec: ImageSpec) -> None:
    if unpacked_bytes > spec.max_unpacked_bytes:
        detail = f"the archive unpacks to {unpacked_bytes} bytes, more than the cap of {spec.max_unpacked_bytes}"
        raise RejectionError(Reason.TOO_LARGE, detail)
