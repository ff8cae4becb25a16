"""The only code that knows local from S3: list with versions, read, put whole, create exclusively.

A URI is a local path or s3://bucket/key. What a file holds, and why, is not known here.
"""

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow.fs

from mribatch.errors import ConfigError, InputError, ScanChanged, ScanVanished, StorageMissing
from mribatch.storage import _s3
from mribatch.storage._faults import local_faults

__all__ = [
    "Entry",
    "absolute",
    "create",
    "delete",
    "filesystem",
    "is_s3",
    "join",
    "names",
    "parent",
    "put",
    "read",
    "read_version",
    "walk",
]

_GLOB = re.compile(r"[*?\[]")


class Entry(NamedTuple):
    """One file of a listing. Equal versions mean equal bytes: size and mtime on disk, ETag and size on S3."""

    uri: str
    version: str
    size: int


class _Store(Protocol):
    def walk(self, uri: str) -> Iterator[Entry]: ...
    def names(self, uri: str) -> list[str]: ...
    def read(self, uri: str) -> bytes: ...
    def read_version(self, uri: str, version: str) -> bytes: ...
    def put(self, uri: str, data: bytes) -> None: ...
    def create(self, uri: str, data: bytes) -> bool: ...
    def delete(self, uri: str) -> None: ...


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """The one spelling of a URI: s3://bucket/key, or an absolute path; a name that is not UTF-8 as file://…%xx."""
    if is_s3(uri):
        return _s3.spelled(uri)
    if "://" in uri and not uri.startswith("file://"):
        raise ConfigError(f"expected a local path or s3://bucket/prefix, got {uri}")
    if not uri:
        raise ConfigError("expected a local path or s3://bucket/prefix, got an empty one")
    return _spelled(os.path.abspath(_path(uri)))


def join(folder: str, *parts: str) -> str:
    return "/".join((folder.rstrip("/") or "/", *parts)).replace("//", "/", 1 if folder == "/" else 0)


def parent(uri: str) -> str:
    """The folder that holds a URI."""
    return absolute(uri).rstrip("/").rpartition("/")[0] or "/"


def walk(uri: str) -> Iterator[Entry]:
    """Every file at or below a folder, file or glob (* within a level, ** across), in no particular order.

    Names that begin with a dot are passed over. Raises StorageMissing where the folder, file or bucket is not
    there, InputError where a glob fits nothing.
    """
    whole = absolute(uri)
    glob = _GLOB.search(whole)
    if glob is None or (not is_s3(whole) and os.path.lexists(_path(whole))):
        yield from _store(whole).walk(whole)
        return
    pattern, found = _glob_pattern(whole), False
    for entry in _store(whole).walk(whole[: glob.start()].rpartition("/")[0] or "/"):
        if pattern.fullmatch(entry.uri):
            found = True
            yield entry
    if not found:
        raise InputError(f"no file fits {uri}: check the pattern, and quote it from the shell")


def names(folder: str) -> list[str]:
    """The names directly in a folder, sorted; none where the folder is not there."""
    return sorted(_store(folder).names(absolute(folder)))


def read(uri: str) -> bytes:
    """All bytes of a file. Raises StorageMissing, StorageDenied or StorageUnavailable."""
    return _store(uri).read(absolute(uri))


def read_version(uri: str, version: str) -> bytes:
    """The bytes of a file as it was listed. Raises ScanVanished or ScanChanged where it is that no longer."""
    return _store(uri).read_version(uri, version)


def put(uri: str, data: bytes) -> None:
    """Write a file so that readers see the old one or the new one, whole. Raises StorageFull, StorageDenied, …"""
    _store(uri).put(absolute(uri), data)


def create(uri: str, data: bytes) -> bool:
    """Write a file only if there is none; False where there is one. Of many at once, exactly one wins."""
    return _store(uri).create(absolute(uri), data)


def delete(uri: str) -> None:
    """Remove a file; it may be gone already."""
    _store(uri).delete(absolute(uri))


def filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The pyarrow filesystem and the path on it, for readers that want ranges (Parquet) or Ray Train's storage."""
    whole = absolute(uri)
    if is_s3(whole):
        return _s3.arrow_filesystem(), whole.removeprefix("s3://")
    return pyarrow.fs.LocalFileSystem(), _path(whole)


def _store(uri: str) -> _Store:
    return _s3.Bucket(Entry) if is_s3(uri) else _Disk()


def _path(uri: str) -> str:
    """The operating system's path of a local URI."""
    return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))) if uri.startswith("file://") else uri


def _spelled(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def _glob_pattern(glob: str) -> re.Pattern[str]:
    """A pattern for the files that fit a glob, and for all below a folder that fits."""
    translations = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    words = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", glob)
    fixed = (w if w.startswith("[") else translations.get(w) or re.escape(w) for w in words)
    return re.compile("".join(w.replace("[!", "[^") for w in fixed) + "(?:/.*)?", re.DOTALL)


class _Disk:
    """Local files, and mounts that look like them."""

    def walk(self, uri: str) -> Iterator[Entry]:
        root = _path(uri)
        with local_faults(uri):
            if not os.path.lexists(root):
                raise StorageMissing(f"no file or folder at {uri}: check the path")
            if not os.path.isdir(root):
                yield _entry(root, os.stat(root))
                return
            yield from _below(root)

    def names(self, uri: str) -> list[str]:
        with local_faults(uri):
            try:
                return os.listdir(_path(uri))
            except FileNotFoundError:
                return []

    def read(self, uri: str) -> bytes:
        with local_faults(uri):
            return Path(_path(uri)).read_bytes()

    def read_version(self, uri: str, version: str) -> bytes:
        with local_faults(uri):
            try:
                with open(_path(uri), "rb") as file:
                    data = file.read()
                    now = _version(os.fstat(file.fileno()))
            except FileNotFoundError as err:
                raise ScanVanished("deleted after it was listed") from err
        if now != version:
            raise ScanChanged("replaced after it was listed")
        return data

    def put(self, uri: str, data: bytes) -> None:
        path = _path(uri)
        folder, name = os.path.split(path)
        temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        with local_faults(uri):
            os.makedirs(folder, exist_ok=True)
            try:
                _write(temporary, data, "xb")
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            _sync_folder(folder)

    def create(self, uri: str, data: bytes) -> bool:
        path = _path(uri)
        with local_faults(uri):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                _write(path, data, "xb")
            except FileExistsError:
                return False
            return True

    def delete(self, uri: str) -> None:
        with local_faults(uri):
            Path(_path(uri)).unlink(missing_ok=True)


def _below(root: str) -> Iterator[Entry]:
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as found:
            for item in found:
                if item.name.startswith("."):
                    continue
                if item.is_dir():
                    folders.append(item.path)
                else:
                    yield _entry(item.path, _stat(item))


def _stat(item: "os.DirEntry[str]") -> os.stat_result:
    try:
        return item.stat()
    except FileNotFoundError:  # a link to nothing is listed too, and becomes a row
        return item.stat(follow_symlinks=False)


def _entry(path: str, stat: os.stat_result) -> Entry:
    return Entry(_spelled(os.path.abspath(path)), _version(stat), stat.st_size)


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _write(path: str, data: bytes, mode: str) -> None:
    with open(path, mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
