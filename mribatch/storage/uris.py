"""The only code that knows local from S3: list with versions, read, put whole, create exclusively.

A URI is a local path or s3://bucket/key. What a file holds, and why, is not known here.
"""

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow.fs

from mribatch.errors import ConfigError, InputError
from mribatch.storage import _disk, _s3
from mribatch.storage._glob import Glob, is_glob
from mribatch.storage._store import Entry, Store

__all__ = [
    "Entry",
    "absolute",
    "check_writable",
    "create",
    "delete",
    "filesystem",
    "find",
    "folders",
    "is_below",
    "is_s3",
    "join",
    "names",
    "parent",
    "probe",
    "put",
    "read",
    "read_version",
    "relative",
    "size",
    "trust",
    "walk",
]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUCKET, _DISK = _s3.Bucket(), _disk.Disk()


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """The one spelling of a URI: s3://bucket/key, or an absolute path; a name that is not UTF-8 as file://…%xx.

    Raises ConfigError for what is neither.
    """
    if is_s3(uri):
        return _s3.spelled(uri)
    if not uri or (_SCHEME.match(uri) and not uri.startswith("file://")):
        raise ConfigError(f"expected a local path or s3://bucket/prefix, got {uri or 'an empty one'}")
    return _disk.spelled(os.path.abspath(_disk.path_of(uri)))


def join(folder: str, *names: str) -> str:
    """The URI of something in or below a folder. The names are taken as they are, nothing in them is decoded."""
    return _rooted("/".join((_plain(absolute(folder)).rstrip("/"), *names)))


def parent(uri: str) -> str:
    """The folder that holds a URI; a bucket and the root hold themselves."""
    whole = _plain(absolute(uri))
    if is_s3(whole) and whole.count("/") == 2:
        return whole
    return _rooted(whole.rpartition("/")[0] or "/")


def is_below(uri: str, folder: str) -> bool:
    """Is something below a folder? Both as `absolute` spells them."""
    return _plain(uri).startswith(_plain(folder).rstrip("/") + "/")


def relative(uri: str, folder: str) -> str:
    """What something below a folder is called there: names with / between them. Both as `absolute` spells them."""
    return _plain(uri).removeprefix(_plain(folder).rstrip("/") + "/")


def size(uri: str, version: str) -> int:
    """The bytes of a file, as its version tells."""
    first, _, last = version.rpartition("-")
    return int(last if is_s3(uri) else first)


def walk(uri: str) -> Iterator[Entry]:
    """Every file at or below a folder, file or glob, in no particular order.

    Globs know *, ?, [a-z], [!a-z] within a name and ** across folders; a name that exists as it stands is no glob.
    Hidden names, what systems leave behind (see `_junk`), pipes and devices are passed over. Raises StorageMissing where
    the folder, file or bucket is not there, InputError where a glob fits nothing.
    """
    base, glob = _parted(absolute(uri))
    found = False
    for entry in _store(base).walk(base, glob):
        found = True
        yield entry
    if glob and not found:
        raise InputError(f"no file fits {uri}: check the pattern, and quote it from the shell")


def find(uris: Iterable[str]) -> Iterator[Entry]:
    """Those of some files that are there, hidden ones too, in no particular order."""
    on_s3: dict[bool, set[str]] = {True: set(), False: set()}
    for uri in uris:
        on_s3[is_s3(uri)].add(absolute(uri))
    yield from _BUCKET.find(on_s3[True])
    yield from _DISK.find(on_s3[False])


def names(folder: str, prefix: str = "") -> list[str]:
    """The names directly in a folder, of files, folders and hidden ones, sorted; none where the folder is not there."""
    return sorted(_store(folder).names(absolute(folder), prefix))


def folders(folder: str) -> list[str]:
    """The names of the folders directly in a folder, without hidden ones and junk, sorted; none where the folder is not there."""
    return sorted(_store(folder).folders(absolute(folder)))


def read(uri: str) -> bytes:
    """All bytes of a file. Raises StorageMissing, StorageDenied or StorageUnavailable."""
    return _store(uri).read(absolute(uri))


def read_version(uri: str, version: str) -> bytes:
    """The bytes of a file as it was listed. Raises ScanVanished or ScanChanged where it is that no longer."""
    return _store(uri).read_version(absolute(uri), version)


def put(uri: str, data: bytes) -> None:
    """Write a file so that readers see the old one or the new one, whole. Raises StorageFull, StorageDenied, …"""
    _store(uri).put(absolute(uri), data)


def create(uri: str, data: bytes) -> bool:
    """Write a file only if there is none; False where there is one. Of many at once, exactly one wins."""
    return _store(uri).create(absolute(uri), data)


def delete(uri: str) -> None:
    """Remove a file; it may be gone already."""
    _store(uri).delete(absolute(uri))


@contextmanager
def probe(folder: str) -> Iterator[str]:
    """The URI of a hidden file that is in a folder for as long as this lasts: what writes it now can write there later, and
    who sees it sees the folder. A folder that is not there is made, and stays.

    Raises StorageMissing where a file stands in its place or the bucket is not there, StorageDenied, StorageFull, …
    """
    place = join(folder, f".probe-{uuid.uuid4().hex}.tmp")
    put(place, b"mribatch")  # some bytes: a full disk takes an empty file
    try:
        yield place
    finally:
        delete(place)


def check_writable(folder: str) -> None:
    """Raises what `probe` raises where nothing can be written."""
    with probe(folder):
        return


def trust(uris: Iterable[str]) -> None:
    """The storage of these has answered another process of the run: where it does not answer now, wait for it."""
    if any(is_s3(uri) for uri in uris):
        _s3.trust()


def filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The pyarrow filesystem and the path on it, for libraries that take no less, such as Ray Train.

    Raises ConfigError for a path that is not UTF-8.
    """
    whole = absolute(uri)
    if is_s3(whole):
        return _s3.arrow_filesystem(whole), whole.removeprefix("s3://")
    if whole.startswith("file://"):
        raise ConfigError(f"expected a path in UTF-8, got {whole}: give another one")
    return pyarrow.fs.LocalFileSystem(), whole


def _store(uri: str) -> Store:
    return _BUCKET if is_s3(uri) else _DISK


def _plain(uri: str) -> str:
    """A URI with its names as they are: the operating system's path, or the URI itself on S3."""
    return uri if is_s3(uri) else _disk.path_of(uri)


def _rooted(plain: str) -> str:
    """The URI of what `_plain` gave."""
    return plain if is_s3(plain) else _disk.spelled(plain)


def _parted(whole: str) -> tuple[str, Glob | None]:
    """The folder where a glob begins, and the glob; without a glob, all of it is the folder."""
    plain = _plain(whole)
    at = len("s3://") if is_s3(plain) else 0
    parts = plain[at:].split("/")
    for number, name in enumerate(parts):
        if is_glob(name):
            here = plain[:at] + "/".join(parts[: number + 1])
            if not _store(whole).exists(_rooted(here)):
                return _rooted(here.rpartition("/")[0] or "/"), Glob(parts[number:])
    return whole, None
