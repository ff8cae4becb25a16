"""The only code that knows local from S3: list with versions, read, put whole, create exclusively.

A URI is a local path or s3://bucket/key. What a file holds, and why, is not known here.
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
"""Environment variables that a run sets for itself and its workers."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUCKET, _DISK = s3.Bucket(), disk.Disk()


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """The one spelling of a URI: s3://bucket/key, or an absolute path; a name that is not UTF-8 as file://…%xx.

    Raises ConfigError for what is neither.
    """
    if is_s3(uri):
        return s3.spelled(uri)
    if not uri or (_SCHEME.match(uri) and not uri.startswith("file://")):
        raise ConfigError(f"expected a local path or s3://bucket/prefix, got {uri or 'an empty one'}")
    return disk.spelled(os.path.abspath(disk.path_of(uri)))


def join(folder: str, *names: str) -> str:
    """The URI of something in or below a folder. The names are taken as they are, nothing in them is decoded."""
    return _rooted("/".join((plain(absolute(folder)).rstrip("/"), *names)))


def parent(uri: str) -> str:
    """The folder that holds a URI; a bucket and the root hold themselves."""
    whole = plain(absolute(uri))
    if is_s3(whole) and whole.count("/") == 2:
        return whole
    return _rooted(whole.rpartition("/")[0] or "/")


def is_below(uri: str, folder: str) -> bool:
    """Is something below a folder? Both as `absolute` spells them."""
    return plain(uri).startswith(plain(folder).rstrip("/") + "/")


def relative(uri: str, folder: str) -> str:
    """What something below a folder is called there: names with / between them. Both as `absolute` spells them."""
    return plain(uri).removeprefix(plain(folder).rstrip("/") + "/")


def size(uri: str, version: str) -> int:
    """The bytes of a file, as its version tells. An ETag may hold dashes, and a time before 1970 begins with one."""
    return int(version.rpartition("-")[2] if is_s3(uri) else version.partition("-")[0])


def walk(uri: str, exclude: Exclusion | None = None) -> Iterator[Entry]:
    """Every file at or below a folder, file or glob, in no particular order.

    Globs know *, ?, [a-z], [!a-z] within a name and ** across folders; a name that exists as it stands is no glob.
    Hidden names, what systems leave behind (see `_junk`), pipes and devices are passed over, and what is excluded is not
    even looked at. Raises StorageMissing where the folder, file or bucket is not there, InputError where a glob fits
    nothing, StorageDenied for a folder below that this user may not list.
    """
    base, glob = _parted(absolute(uri))
    found = False
    for entry in _store(base).walk(base, glob, exclude):
        found = True
        yield entry
    if glob and not found:
        raise InputError(f"no file fits {uri}: check the pattern, and quote it from the shell")


class Scope(NamedTuple):
    """What `walk` looks at, by names alone: a folder or file, or what fits a glob below a folder."""

    base: str
    glob: Glob | None

    def covers(self, uri: str) -> bool:
        """Would a file of this URI, as `absolute` spells it, be listed if it were there?"""
        if uri == self.base:
            return self.glob is None
        return is_below(uri, self.base) and (self.glob is None or self.glob.fits(relative(uri, self.base)))

    def name_of(self, uri: str) -> str:
        """What something covered is called from the base on, as an `Exclusion` takes it."""
        return plain(uri).rpartition("/")[2] if uri == self.base else relative(uri, self.base)


def scope(uri: str) -> Scope:
    """What `walk` looks at for this URI."""
    return Scope(*_parted(absolute(uri)))


def find(uris: Iterable[str]) -> Iterator[Entry]:
    """Those of some files that are there, hidden ones too, in no particular order."""
    on_s3: dict[bool, set[str]] = {True: set(), False: set()}
    for uri in uris:
        on_s3[is_s3(uri)].add(absolute(uri))
    yield from _BUCKET.find(on_s3[True])
    yield from _DISK.find(on_s3[False])


def exists(uri: str) -> bool:
    """Return whether there is a file or a folder of this very name."""
    return _store(uri).exists(absolute(uri))


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


def check_exclusive(folder: str) -> None:
    """Check that `create` in a folder is exclusive; some S3 stores ignore that condition. Leaves nothing there.

    Raises ConfigError, and what `put` raises.
    """
    _store(folder).check_exclusive(absolute(folder))


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
        client.trust()


@contextmanager
def paying(requester: bool) -> Iterator[None]:
    """Pay for requests to requester-pays buckets while this lasts, in this process and in those it starts."""
    if not requester or client.REQUEST_PAYER in os.environ:
        yield
        return
    os.environ[client.REQUEST_PAYER] = "requester"
    try:
        yield
    finally:
        del os.environ[client.REQUEST_PAYER]


def filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The pyarrow filesystem and the path on it, for libraries that take no less, such as Ray Train.

    Raises ConfigError for a path that is not UTF-8.
    """
    whole = absolute(uri)
    if is_s3(whole):
        with client.faults(whole):
            client.client()  # settings that cannot work are told now
        return pyarrow.fs.PyFileSystem(Objects()), whole.removeprefix("s3://")
    if whole.startswith("file://"):
        raise ConfigError(f"expected a path in UTF-8, got {whole}: give another one")
    return pyarrow.fs.LocalFileSystem(), whole


def _store(uri: str) -> Store:
    return _BUCKET if is_s3(uri) else _DISK


def plain(uri: str) -> str:
    """A URI with its names as they are: the operating system's path, or the URI itself on S3. For comparing names."""
    return uri if is_s3(uri) else disk.path_of(uri)


def _rooted(path: str) -> str:
    """The URI of what `plain` gave."""
    return path if is_s3(path) else disk.spelled(path)


def _parted(whole: str) -> tuple[str, Glob | None]:
    """The folder where a glob begins, and the glob; without a glob, all of it is the folder."""
    path = plain(whole)
    at = len("s3://") if is_s3(path) else 0
    parts = path[at:].split("/")
    for number, name in enumerate(parts):
        if is_glob(name):
            here = path[:at] + "/".join(parts[: number + 1])
            if not _store(whole).exists(_rooted(here)):
                return _rooted(here.rpartition("/")[0] or "/"), Glob(parts[number:])
    return whole, None
