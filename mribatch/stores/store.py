"""What `uris` asks of a store, and what a listing holds. The disk and S3 each fill this Protocol in a file of their own.

A store is given URIs as `uris.absolute` spells them. Not for use outside this folder.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from mribatch.stores.glob import Exclusion, Glob

__all__ = ["Entry", "Store"]


class Entry(NamedTuple):
    """One file of a listing. Equal versions mean equal bytes: size and mtime on disk, ETag and size on S3."""

    uri: str
    version: str
    size: int


class Store(Protocol):
    def walk(self, uri: str, glob: Glob | None = None, exclude: Exclusion | None = None) -> Iterator[Entry]:
        """The files at or below a URI, without excluded ones; with a glob, those below it that fit."""

    def find(self, uris: Iterable[str]) -> Iterator[Entry]:
        """Files by their names; those that are not there are left out."""

    def exists(self, uri: str) -> bool:
        """Is there a file or a folder of this very name?"""

    def names(self, uri: str, prefix: str) -> list[str]:
        """The names of files and folders directly in a folder; none where it is not there."""

    def folders(self, uri: str) -> list[str]:
        """The names of folders directly in a folder, but for hidden ones; none where it is not there."""

    def read(self, uri: str) -> bytes: ...

    def read_version(self, uri: str, version: str) -> bytes: ...

    def put(self, uri: str, data: bytes) -> None: ...

    def create(self, uri: str, data: bytes) -> bool: ...

    def check_exclusive(self, uri: str) -> None:
        """Raise ConfigError where `create` does not refuse a file that exists. Leaves nothing in the folder."""

    def delete(self, uri: str) -> None: ...
