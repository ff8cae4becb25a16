"""Gather the scans for a measurement: a part of a folder, or several copies of it under other names."""

from pathlib import Path

from children import REPOSITORY

from mribatch.errors import InputError
from mribatch.stores import uris

__all__ = ["gather", "shown"]


def gather(wanted: str | None, default: str, count: int, target: Path) -> str:
    """Copy `count` scans from a folder of class folders to the folder `target`; return a description of them.

    wanted: the folder; None takes the default folder if it exists, else the samples. A larger folder gives every n-th scan,
    a smaller one several copies. Copying also puts the scans into the page cache.
    """
    missing = wanted is None and not uris.names(default)
    folder = str(REPOSITORY / "samples") if missing else (wanted or default)
    scans = sorted(entry.uri for entry in uris.walk(folder))
    if not scans:
        raise InputError(f"no scans in {folder}: expected one folder per class with scans in it")
    for number in range(count):
        uri = scans[number % len(scans) if count > len(scans) else number * len(scans) // count]
        *_, label, name = uri.split("/")
        (target / label).mkdir(parents=True, exist_ok=True)
        (target / label / f"{number:06d}-{name}").write_bytes(uris.read(uri))
    part = f"copies of the {len(scans)} scans" if count > len(scans) else f"of {len(scans)} scans"
    return f"{count} {part} in " + (f"samples ({default} is missing)" if missing else shown(folder))


def shown(uri: str) -> str:
    """Return a path for the results, without the folders of this machine."""
    return Path(uri).name if uri.startswith("/") else uri
