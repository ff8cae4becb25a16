"""Define the interface of a store, which the disk and S3 implement, and the entries of a listing.

`uris` calls a store with URIs in the spelling of `uris.absolute`.
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
        """Yield the files at or below a URI except excluded ones; with a glob, only those that match."""

    def find(self, uris: Iterable[str]) -> Iterator[Entry]:
        """Yield the files of these URIs that exist."""

    def exists(self, uri: str) -> bool:
        """Return whether there is a file or a folder of exactly this name."""

    def names(self, uri: str, prefix: str) -> list[str]:
        """Return the names of files and folders directly in a folder; none if it does not exist."""

    def folders(self, uri: str) -> list[str]:
        """Return the names of folders directly in a folder except hidden ones; none if it does not exist."""

    def read(self, uri: str) -> bytes: ...

    def read_version(self, uri: str, version: str) -> bytes: ...

    def put(self, uri: str, data: bytes) -> None: ...

    def create(self, uri: str, data: bytes) -> bool: ...

    def check_exclusive(self, uri: str) -> None:
        """Raise ConfigError if `create` does not refuse to replace a file. Leaves nothing in the folder."""

    def delete(self, uri: str) -> None: ...
