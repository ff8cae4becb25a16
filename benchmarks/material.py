"""The scans to measure with: a share of a folder, or copies of it under other names, in a temporary folder."""

from pathlib import Path

from children import REPOSITORY

from mribatch.errors import InputError
from mribatch.stores import uris

__all__ = ["gather", "shown"]


def gather(wanted: str | None, default: str, count: int, target: Path) -> str:
    """Copy count scans of a folder of class folders to a target of the same shape. Returns a sentence that says which.

    wanted None takes the default folder where it is there, else the sample scans. Fewer scans than count are copied
    again under other names; of more, every n-th is taken. That also brings them all into the page cache.
    """
    missing = wanted is None and not uris.names(default)
    folder = str(REPOSITORY / "samples") if missing else (wanted or default)
    found = sorted(entry.uri for entry in uris.walk(folder))
    if not found:
        raise InputError(f"no scans in {folder}: expected one folder per class with scans in it")
    for number in range(count):
        _copy(found[number % len(found) if count > len(found) else number * len(found) // count], number, target)
    name = "samples" if missing else shown(folder)
    told = f"copies of the {len(found)} scans" if count > len(found) else f"of {len(found)} scans"
    return f"{count} {told} in {name}" + (f" ({default} is missing)" if missing else "")


def shown(uri: str) -> str:
    """A path as the results name it: no machine's own folders."""
    return Path(uri).name if uri.startswith("/") else uri


def _copy(uri: str, number: int, target: Path) -> None:
    *_, label, name = uri.split("/")
    (target / label).mkdir(parents=True, exist_ok=True)
    (target / label / f"{number:06d}-{name}").write_bytes(uris.read(uri))
