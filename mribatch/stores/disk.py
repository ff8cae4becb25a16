"""Implement the store for local files and mounts.

A name on disk is bytes. If they are UTF-8, the path is the URI; if not, the URI is file://…%xx.
"""

import errno
import os
import shlex
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from urllib.parse import quote_from_bytes, unquote_to_bytes

from mribatch.errors import ConfigError, InputError, ScanChanged, ScanVanished, StorageError, StorageMissing
from mribatch.junk import is_junk
from mribatch.stores.faults import local_faults
from mribatch.stores.glob import Exclusion, Glob
from mribatch.stores.store import Entry

__all__ = ["Disk", "path_of", "uri_of", "write_flushed"]

_Identity = tuple[int, int]  # device and inode: the same folder by any path

_UNKNOWN_FOLDER, _UNKNOWN_FILE = (
    os.stat_result((kind, *[0] * 9), {"st_mtime_ns": 0}) for kind in (stat.S_IFDIR, stat.S_IFREG)
)
_LISTED = {stat.S_IFREG, stat.S_IFLNK}  # a broken link becomes a row; pipes, sockets and devices are ignored
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FOLDER_SYNC = {errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP}


def path_of(uri: str) -> str:
    """Return the operating system's path of a local URI. Raises ConfigError."""
    path = uri
    if uri.startswith("file://"):
        path = os.fsdecode(unquote_to_bytes(uri.removeprefix("file://").removeprefix("localhost")))
        if not path.startswith("/"):
            raise ConfigError(f"expected file:///absolute/path, got {uri}")
    if "\0" in path:
        raise ConfigError("expected a path without NUL characters: correct the path")
    return path


def uri_of(path: str) -> str:
    """Return the URI of an absolute path."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


class Disk:
    """The store of local paths."""

    def walk(self, uri: str, glob: Glob | None = None, exclude: Exclusion | None = None) -> Iterator[Entry]:
        root = path_of(uri)
        with local_faults(uri):
            status = os.stat(root)
        if stat.S_ISDIR(status.st_mode):
            yield from _files_below(root, _identity(status), glob, exclude)
        elif not stat.S_ISREG(status.st_mode):
            raise InputError(f"expected a file or a folder at {uri}, found a device, a pipe or a socket")
        elif glob is None and not (exclude and exclude.fits(os.path.basename(root))):
            yield _entry(root, status)

    def find(self, uris: Iterable[str]) -> Iterator[Entry]:
        for uri in uris:
            path = path_of(uri)
            with local_faults(uri):
                try:
                    status = os.stat(path)
                except OSError as err:
                    if err.errno in _MISSING or err.errno == errno.ENAMETOOLONG:
                        continue
                    raise
            if stat.S_ISREG(status.st_mode):
                yield _entry(path, status)

    def exists(self, uri: str) -> bool:
        return os.path.lexists(path_of(uri))

    def names(self, uri: str, prefix: str) -> list[str]:
        with local_faults(uri):
            try:
                return [name for name in os.listdir(path_of(uri)) if name.startswith(prefix)]
            except FileNotFoundError:
                return []

    def folders(self, uri: str) -> list[str]:
        with local_faults(uri):
            items = [(item.name, _stat(item)) for item in _items(path_of(uri), required=False)]
        return [name for name, status in items if status is not None and stat.S_ISDIR(status.st_mode)]

    def read(self, uri: str) -> bytes:
        with local_faults(uri), open(path_of(uri), "rb") as file:
            return file.read()

    def read_version(self, uri: str, version: str) -> bytes:
        def no_waiting(path: str, flags: int) -> int:  # a pipe may have taken the place of the file
            return os.open(path, flags | os.O_NONBLOCK)

        with local_faults(uri):
            try:
                with open(path_of(uri), "rb", opener=no_waiting) as file:
                    _check_version(file.fileno(), version)  # before reading: a file that grew may not fit into memory
                    data = file.read()
                    _check_version(file.fileno(), version)
            except IsADirectoryError as err:
                raise ScanChanged("replaced by a folder after it was listed") from err
            except OSError as err:
                if err.errno in _MISSING:
                    raise ScanVanished("deleted after it was listed") from err
                raise
        return data

    def put(self, uri: str, data: bytes) -> None:
        path = path_of(uri)
        with local_faults(uri), _temporary(path, data) as temporary:
            os.replace(temporary, path)
            _sync_folder(os.path.dirname(path))

    def create(self, uri: str, data: bytes) -> bool:
        """Create a hard link, which appears with all its bytes or not at all, and replaces no other file."""
        path = path_of(uri)
        with local_faults(uri), _temporary(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return os.stat(temporary).st_nlink > 1  # NFS: a first try made it, and its reply was lost
            except OSError as err:
                if err.errno not in _NO_HARD_LINKS:
                    raise
                return _create_in_place(path, data)
            _sync_folder(os.path.dirname(path))
            return True

    def check_exclusive(self, uri: str) -> None:
        probe = uri_of(os.path.join(path_of(uri), f".probe-{uuid.uuid4().hex}.tmp"))
        try:
            refused = self.create(probe, b"first") and not self.create(probe, b"second")
        finally:
            self.delete(probe)
        if not refused:
            raise ConfigError(
                f"the mount of {uri} creates files that exist already, so two runs could delete each other's rows: "
                "give an --output on a local disk, NFS or SMB"
            )

    def delete(self, uri: str) -> None:
        with local_faults(uri), suppress(FileNotFoundError):
            os.unlink(path_of(uri))


def _files_below(root: str, identity: _Identity, glob: Glob | None, exclude: Exclusion | None) -> Iterator[Entry]:
    """Yield all files below a folder. Follows links, but not back to a folder that contains them (as find -L does)."""
    start = root.rstrip("/") + "/"
    waiting = [(root, frozenset([identity]))]
    while waiting:
        folder, inside = waiting.pop()
        with _folder_faults(folder, root, excludable=exclude is not None):
            for item in _items(folder, required=folder == root):
                name = item.path.removeprefix(start)
                status = None if exclude and exclude.fits(name) else _stat(item)
                if status is None:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    is_new = _identity(status) not in inside
                    if is_new and (glob is None or glob.may_hold(name)):
                        waiting.append((item.path, inside | {_identity(status)}))
                elif stat.S_IFMT(status.st_mode) in _LISTED and (glob is None or glob.fits(name)):
                    yield _entry(item.path, status)


@contextmanager
def _folder_faults(folder: str, root: str, *, excludable: bool) -> Iterator[None]:
    """Translate the OSError of a folder that cannot be listed, and end the listing: no scan is silently missing."""
    try:
        with local_faults(uri_of(folder)):
            yield
    except StorageError as err:
        if folder == root or isinstance(err, StorageMissing):
            raise
        advice = "make it readable for this user"
        if excludable:
            name = folder.removeprefix(root.rstrip("/") + "/")
            advice += f", or leave it out with --exclude {shlex.quote(escape(name))}"
        cause = err.__cause__.strerror if isinstance(err.__cause__, OSError) else None
        cause = (cause or type(err).__name__).lower()
        raise type(err)(f"the folder {uri_of(folder)} cannot be listed ({cause}): {advice}") from err


def _items(folder: str, *, required: bool) -> Iterator["os.DirEntry[str]"]:
    """Yield what is in a folder except hidden names and junk. Raises FileNotFoundError only for a required folder."""
    try:
        items = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        if required:
            raise
        return
    with items:
        yield from (item for item in items if not is_junk(item.name))


def _stat(item: "os.DirEntry[str]") -> os.stat_result | None:
    """Return the status of a name, or None if it has vanished since it was listed.

    A broken or inaccessible link has its own status, and an inaccessible file a placeholder: both become rows.
    """
    with suppress(OSError):
        return item.stat()
    try:
        return item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError:
        with suppress(OSError):
            return _UNKNOWN_FOLDER if item.is_dir(follow_symlinks=False) else _UNKNOWN_FILE
        return _UNKNOWN_FILE


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _entry(path: str, status: os.stat_result) -> Entry:
    return Entry(uri_of(path), _version(status), status.st_size)


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _check_version(file: int, version: str) -> None:
    if _version(os.fstat(file)) != version:
        raise ScanChanged("replaced after it was listed")


@contextmanager
def _temporary(path: str, data: bytes) -> Iterator[str]:
    """Write a flushed temporary file beside its target, and remove it in the end, whatever happens."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    os.makedirs(folder, exist_ok=True)
    try:
        write_flushed(temporary, data)
        yield temporary
    finally:
        with suppress(OSError):  # an earlier error is more informative
            os.unlink(temporary)


def write_flushed(path: str, data: bytes) -> None:
    """Write a new file and flush it to the disk. Raises FileExistsError if there is one."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _create_in_place(path: str, data: bytes) -> bool:
    """Create a file on a mount without hard links. Other processes may see it before it is complete."""
    try:
        write_flushed(path, data)
    except FileExistsError:
        return False
    except OSError:
        os.unlink(path)
        raise
    return True


def _sync_folder(folder: str) -> None:
    """Make a new name survive a power cut, if the mount supports that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as err:
        if err.errno not in _NO_FOLDER_SYNC:
            raise
