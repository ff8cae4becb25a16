"""Present S3 as a pyarrow filesystem, for Ray Train.

pyarrow's own S3FileSystem is a second client with its own settings: it ignores AWS_CA_BUNDLE, the endpoint and the
certificate of a profile, and requester-pays, and gives up after three tries.
"""

import io
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType

from mribatch.errors import StorageMissing
from mribatch.stores.s3 import Bucket

__all__ = ["Objects"]

_STORE = Bucket()


class Objects(FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """A handler that reads and writes files in one piece, so each must fit into memory and into one PUT (5 GiB).

    Paths are bucket/key. Folders are the common prefixes of keys, so there is nothing to create.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Objects)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return "mribatch-s3"

    def normalize_path(self, path: str) -> str:
        return path.strip("/")

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        return [_info(path.rstrip("/")) for path in paths]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        base = selector.base_dir.strip("/")
        infos: dict[str, FileInfo] = {}
        for entry in _STORE.tree(f"s3://{base}"):
            path = entry.uri.removeprefix("s3://")
            names = path.removeprefix(f"{base}/").split("/")
            for depth in range(1, len(names)):
                folder = "/".join((base, *names[:depth]))
                infos.setdefault(folder, FileInfo(folder, FileType.Directory))
            if names[-1]:  # an empty last name marks a folder
                infos[path] = FileInfo(path, FileType.File, size=entry.size)
        if not infos and not selector.allow_not_found and _info(base).type != FileType.Directory:
            raise FileNotFoundError(base)
        if selector.recursive:
            return list(infos.values())
        return [info for path, info in infos.items() if "/" not in path.removeprefix(f"{base}/")]

    def create_dir(self, path: str, recursive: bool) -> None:
        """Do nothing: a folder exists from its first object on."""

    def delete_dir(self, path: str) -> None:
        self.delete_dir_contents(path, missing_dir_ok=True)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        entries = list(_STORE.tree(f"s3://{path.strip('/')}"))
        if not entries and not missing_dir_ok:
            raise FileNotFoundError(path)
        for entry in entries:
            _STORE.delete(entry.uri)

    def delete_root_dir_contents(self) -> None:
        raise PermissionError("refusing to delete all buckets")

    def delete_file(self, path: str) -> None:
        if _info(path).type != FileType.File:
            raise FileNotFoundError(path)
        _STORE.delete(f"s3://{path}")

    def move(self, src: str, dest: str) -> None:
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        _STORE.put(f"s3://{dest}", _read(src))

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return pa.BufferReader(_read(path))

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.BufferReader(_read(path))

    def open_output_stream(self, path: str, metadata: dict[str, str] | None) -> pa.NativeFile:  # noqa: ARG002
        return pa.PythonFile(_Upload(path), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        raise NotImplementedError(f"S3 objects cannot be appended to: {path}")


class _Upload(io.BytesIO):
    """A buffer that is uploaded when it is closed. An abandoned one, say of a copy that failed, is not uploaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._uri = f"s3://{path}"

    def __del__(self) -> None:
        """Do not close the buffer, as the base class would."""

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            _STORE.put(self._uri, data)


def _info(path: str) -> FileInfo:
    for entry in _STORE.find([f"s3://{path}"]):
        return FileInfo(path, FileType.File, size=entry.size)
    kind = FileType.Directory if _STORE.exists(f"s3://{path}") else FileType.NotFound
    return FileInfo(path, kind)


def _read(path: str) -> bytes:
    try:
        return _STORE.read(f"s3://{path}")
    except StorageMissing as err:
        raise FileNotFoundError(path) from err
