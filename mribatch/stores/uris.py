"""List, read, write and delete files at URIs: local paths or s3://bucket/key.

All other rooms work with URIs only; this room alone tells local paths from S3.
"""

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow.fs

from mribatch.errors import ConfigError, InputError
from mribatch.stores import client, disk, s3
from mribatch.stores.arrow import Objects
from mribatch.stores.glob import Exclusion, Glob, is_glob
from mribatch.stores.store import Entry, Store

__all__ = [
    "SHARED_SETTINGS",
    "Entry",
    "Exclusion",
    "Scope",
    "absolute",
    "check_exclusive",
    "check_writable",
    "create",
    "delete",
    "exists",
    "filesystem",
    "find",
    "folders",
    "is_below",
    "is_s3",
    "join",
    "names",
    "parent",
    "paying",
    "plain",
    "probe",
    "put",
    "read",
    "read_version",
    "relative",
    "scope",
    "size",
    "trust",
    "walk",
]

SHARED_SETTINGS = (client.REQUEST_PAYER,)
"""Environment variables that a run sets for itself and passes to its workers."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUCKET, _DISK = s3.Bucket(), disk.Disk()


def is_s3(uri: str) -> bool:
    """Return whether a URI is of S3."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """Return the canonical spelling of a URI: s3://bucket/key or an absolute path, file://…%xx if that is not UTF-8.

    Raises ConfigError for anything else.
    """
    if is_s3(uri):
        return s3.canonical(uri)
    if not uri or (_SCHEME.match(uri) and not uri.startswith("file://")):
        raise ConfigError(f"expected a local path or s3://bucket/prefix, got {uri or 'nothing'}")
    return disk.uri_of(os.path.abspath(disk.path_of(uri)))


def join(folder: str, *names: str) -> str:
    """Return the URI of something in or below a folder. The names are taken literally, nothing is decoded."""
    return _rooted("/".join((plain(absolute(folder)).rstrip("/"), *names)))


def parent(uri: str) -> str:
    """Return the folder that contains a URI; a bucket and the root contain themselves."""
    path = plain(absolute(uri))
    if is_s3(path) and path.count("/") == 2:
        return path
    return _rooted(path.rpartition("/")[0] or "/")


def is_below(uri: str, folder: str) -> bool:
    """Return whether a URI is below a folder. Both must be canonical (`absolute`)."""
    return plain(uri).startswith(plain(folder).rstrip("/") + "/")


def relative(uri: str, folder: str) -> str:
    """Return the path of a URI relative to a folder above it. Both must be canonical (`absolute`)."""
    return plain(uri).removeprefix(plain(folder).rstrip("/") + "/")


def size(uri: str, version: str) -> int:
    """Return the size of a file in bytes, from its version.

    On S3 the size is last, as an ETag may contain dashes; on disk it is first, as a time before 1970 begins with one.
    """
    return int(version.rpartition("-")[2] if is_s3(uri) else version.partition("-")[0])


def walk(uri: str, exclude: Exclusion | None = None) -> Iterator[Entry]:
    """Yield every file at or below a folder, file or glob, in no particular order.

    Globs understand *, ?, [a-z], [!a-z] within a name and ** across folders; a name that exists is taken literally.
    Hidden names, system files (see `mribatch.junk`), pipes and devices are ignored. Excluded folders are not listed at
    all. Raises StorageMissing if the folder, file or bucket does not exist, InputError if a glob matches nothing, and
    StorageDenied for a folder below that this user may not list.
    """
    base, glob = _split_glob(absolute(uri))
    is_empty = True
    for entry in _store(base).walk(base, glob, exclude):
        is_empty = False
        yield entry
    if glob and is_empty:
        raise InputError(f"no file matches {uri}: check the pattern, and quote it in the shell")


class Scope(NamedTuple):
    """What `walk` lists, by name alone: a folder or file, or what matches a glob below a folder."""

    base: str
    glob: Glob | None

    def covers(self, uri: str) -> bool:
        """Return whether a file of this canonical URI would be listed if it existed."""
        if uri == self.base:
            return self.glob is None
        return is_below(uri, self.base) and (self.glob is None or self.glob.fits(relative(uri, self.base)))

    def name_of(self, uri: str) -> str:
        """Return the name of a covered URI relative to the base, for `Exclusion.fits`."""
        return plain(uri).rpartition("/")[2] if uri == self.base else relative(uri, self.base)


def scope(uri: str) -> Scope:
    """Return what `walk` lists for this URI."""
    return Scope(*_split_glob(absolute(uri)))


def find(uris: Iterable[str]) -> Iterator[Entry]:
    """Yield those of some files that exist, including hidden ones, in no particular order."""
    on_s3: dict[bool, set[str]] = {True: set(), False: set()}
    for uri in uris:
        on_s3[is_s3(uri)].add(absolute(uri))
    yield from _BUCKET.find(on_s3[True])
    yield from _DISK.find(on_s3[False])


def exists(uri: str) -> bool:
    """Return whether there is a file or a folder of exactly this name."""
    return _store(uri).exists(absolute(uri))


def names(folder: str, prefix: str = "") -> list[str]:
    """Return the sorted names of files and folders in a folder, including hidden ones; none if it does not exist."""
    return sorted(_store(folder).names(absolute(folder), prefix))


def folders(folder: str) -> list[str]:
    """Return the sorted names of folders in a folder, except hidden ones and junk; none if it does not exist."""
    return sorted(_store(folder).folders(absolute(folder)))


def read(uri: str) -> bytes:
    """Return all bytes of a file. Raises StorageMissing, StorageDenied or StorageUnavailable."""
    return _store(uri).read(absolute(uri))


def read_version(uri: str, version: str) -> bytes:
    """Return the bytes of a file as it was listed. Raises ScanVanished or ScanChanged if it has changed since."""
    return _store(uri).read_version(absolute(uri), version)


def put(uri: str, data: bytes) -> None:
    """Write a file atomically: readers see the old one or the new one. Raises StorageFull, StorageDenied, …"""
    _store(uri).put(absolute(uri), data)


def create(uri: str, data: bytes) -> bool:
    """Write a file unless it exists, and return whether it was written. Of concurrent calls, exactly one succeeds."""
    return _store(uri).create(absolute(uri), data)


def check_exclusive(folder: str) -> None:
    """Check that `create` is exclusive in a folder, as it is not on some S3 stores. Leaves nothing behind.

    Raises ConfigError, and what `put` raises.
    """
    _store(folder).check_exclusive(absolute(folder))


def delete(uri: str) -> None:
    """Delete a file, if it exists."""
    _store(uri).delete(absolute(uri))


@contextmanager
def probe(folder: str) -> Iterator[str]:
    """Create a temporary hidden file in `folder`, creating the folder if needed, and delete it on exit.

    It proves that the folder is writable; other nodes look for it to prove that they share the folder. Raises
    StorageMissing if a file has the folder's name or the bucket does not exist, StorageDenied, StorageFull, …
    """
    hidden = join(folder, f".probe-{uuid.uuid4().hex}.tmp")
    put(hidden, b"mribatch")  # not empty: a full disk accepts an empty file
    try:
        yield hidden
    finally:
        delete(hidden)


def check_writable(folder: str) -> None:
    """Check that a folder is writable. Raises what `probe` raises."""
    with probe(folder):
        return


def trust(uris: Iterable[str]) -> None:
    """Wait longer for the storage of these URIs, because it has answered another process of this run."""
    if any(is_s3(uri) for uri in uris):
        client.trust()


@contextmanager
def paying(requester: bool) -> Iterator[None]:
    """Pay for requests to requester-pays buckets within this context, in this process and in those that it starts."""
    if not requester or client.REQUEST_PAYER in os.environ:
        yield
        return
    os.environ[client.REQUEST_PAYER] = "requester"
    try:
        yield
    finally:
        del os.environ[client.REQUEST_PAYER]


def filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the pyarrow filesystem of a URI and the path on it, for libraries that need one, such as Ray Train.

    Raises ConfigError for a path that is not UTF-8.
    """
    path = absolute(uri)
    if is_s3(path):
        with client.faults(path):
            client.client()  # fails now if the settings cannot work
        return pyarrow.fs.PyFileSystem(Objects()), path.removeprefix("s3://")
    if path.startswith("file://"):
        raise ConfigError(f"expected a path in UTF-8, got {path}: give another one")
    return pyarrow.fs.LocalFileSystem(), path


def _store(uri: str) -> Store:
    return _BUCKET if is_s3(uri) else _DISK


def plain(uri: str) -> str:
    """Return a URI with unquoted names, for comparing them: the operating system's path, or on S3 the URI itself."""
    return uri if is_s3(uri) else disk.path_of(uri)


def _rooted(path: str) -> str:
    """Return the URI of a path from `plain`."""
    return path if is_s3(path) else disk.uri_of(path)


def _split_glob(uri: str) -> tuple[str, Glob | None]:
    """Split a canonical URI into the folder where a glob begins and the glob; without one, the URI and None."""
    path = plain(uri)
    start = len("s3://") if is_s3(path) else 0
    parts = path[start:].split("/")
    for number, name in enumerate(parts):
        if is_glob(name):
            prefix = path[:start] + "/".join(parts[: number + 1])
            if not _store(uri).exists(_rooted(prefix)):
                return _rooted(prefix.rpartition("/")[0] or "/"), Glob(parts[number:])
    return uri, None
