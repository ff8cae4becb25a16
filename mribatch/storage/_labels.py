"""Which label each scan has: by the folders above it, or by a manifest. No Ray, and no scan is opened.

Folders: ROOT/<class>/… or ROOT/Training|Validation|Testing/<class>/… (also train, val, test, in any case). Whatever is
below a class's folder, to any depth, is a scan of that class. Beside the class folders there may be documents (README,
LICENSE, .csv, .txt, .json …: see _DOCUMENTS), which are passed over; any other file there is a scan without a label.

Manifest: CSV or Parquet with the columns uri and label and, if wanted, split and patient_id. A relative uri is taken
from the manifest's folder.
"""

import posixpath
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mribatch import schema
from mribatch.errors import InputError
from mribatch.storage import uris
from mribatch.storage._listing import listed
from mribatch.storage.uris import Entry

__all__ = ["LABELLED", "labelled"]

LABELLED = pa.schema(
    [
        *schema.PLAN,
        pa.field("label", pa.string(), False),
        pa.field("split", pa.string()),
        pa.field("patient_id", pa.string()),
    ]
)
"""A labelled listing: split is training, validation, test or null; patient_id may be null."""

_SPLITS = {"training": "training", "train": "training", "validation": "validation", "val": "validation",
           "testing": "test", "test": "test"}  # fmt: skip
_DOCUMENTS = (".csv", ".db", ".htm", ".html", ".ini", ".json", ".log", ".md", ".md5", ".parquet", ".pdf", ".rst", ".sha256",
              ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml")  # fmt: skip
_DOCUMENT_NAMES = ("COPYING", "LICENCE", "LICENSE", "NOTICE", "README")
_EXPECTED = "expected ROOT/<class>/… or ROOT/Training|Testing/<class>/…"


class _Labelled(NamedTuple):
    """A row of LABELLED."""

    scan_uri: str
    scan_version: str
    label: str
    split: str | None
    patient_id: str | None


def labelled(uri: str, exclude: Sequence[str] = (), outputs: Sequence[str] = ()) -> pa.Table:
    """The labelled scans at a root of class folders, or in a manifest, as the schema `LABELLED`, sorted by URI.

    exclude: globs, relative to the root, of what to leave out. outputs: folders that this run writes; one that is still
    empty is no class without scans. Raises InputError where labels, folders or columns do not fit, StorageMissing where
    the data is not there.
    """
    if uri.lower().endswith((".csv", ".parquet")):
        if exclude:
            raise InputError(f"--exclude is for folders, and {uri} is a manifest: remove the rows from it instead")
        rows = _of_manifest(uri)
    else:
        rows = _of_folders(uri, exclude, outputs)
    if not rows:
        raise InputError(f"no scans in {uri}: {_EXPECTED}, or rows in a manifest")
    classes = sorted({row.label for row in rows})
    if len(classes) < 2:
        raise InputError(f"expected scans of two classes or more in {uri}, found only {classes[0]}: {_EXPECTED}")
    _check_split_classes(uri, rows)
    columns = zip(*sorted(rows), strict=True)
    return pa.table([list(column) for column in columns], schema=LABELLED)


def _check_split_classes(uri: str, rows: Sequence[_Labelled]) -> None:
    known = {row.label for row in rows if row.split in ("training", None)}
    for split in ("validation", "test"):
        unknown = {row.label for row in rows if row.split == split} - known
        if known and unknown:
            raise InputError(f"{uri}: the {split} scans have classes without training scans: {', '.join(sorted(unknown))}; "
                             "rename these classes, or add scans of them to the training ones")  # fmt: skip


def _of_folders(uri: str, exclude: Sequence[str], outputs: Sequence[str]) -> list[_Labelled]:
    root = uris.absolute(uri)
    listing = listed([root], exclude)
    found = [(entry, _folders_above(entry, root, uri)) for entry in listing.entries()]
    scans = [(entry, folders) for entry, folders in found if not _is_document(entry, folders)]
    rows = [_placed(entry, folders, root) for entry, folders in scans]
    with_split = sorted({folders[0] for _, folders in scans if _split_of(folders)})
    if with_split and any(row.split is None for row in rows):
        raise InputError(
            f"{uri} has split folders ({', '.join(with_split)}) and class folders side by side: {_EXPECTED}"
        )
    ours = [uris.relative(each, root).split("/")[:-1] for each in listing.own]
    ours += [uris.relative(uris.absolute(each), root).split("/") for each in outputs]
    _check_none_is_empty(root, [*(folders for _, folders in scans), *ours], listing.covers)
    return rows


def _folders_above(entry: Entry, root: str, told: str) -> list[str]:
    """The folders between the root and a scan."""
    if not uris.is_below(entry.uri, root):
        raise InputError(f"expected a folder of class folders or a manifest (.csv, .parquet), got {told}: "
                         "labels come from folders, so name the one above them")  # fmt: skip
    return uris.relative(entry.uri, root).split("/")[:-1]


def _split_of(folders: Sequence[str]) -> str | None:
    return _SPLITS.get(folders[0].lower()) if folders else None


def _is_document(entry: Entry, folders: Sequence[str]) -> bool:
    """Does a file stand beside class folders, where no scan may, and tell about them?"""
    name = entry.uri.rpartition("/")[2]
    beside = len(folders) == (1 if _split_of(folders) else 0)
    return beside and (name.lower().endswith(_DOCUMENTS) or name.upper() in _DOCUMENT_NAMES)


def _placed(entry: Entry, folders: Sequence[str], root: str) -> _Labelled:
    split = _split_of(folders)
    above = folders[1:] if split else folders
    if not above:
        raise InputError(f"a scan stands directly in {uris.join(root, *folders)}: {_EXPECTED}; "
                         "move it into the folder of its class")  # fmt: skip
    label = above[0]
    try:
        label.encode()
    except UnicodeEncodeError as err:
        raise InputError(
            f"the class folder {entry.uri.rpartition('/')[0]} has a name that is not UTF-8: rename it"
        ) from err
    return _Labelled(entry.uri, entry.version, label, split, None)


def _check_none_is_empty(root: str, filled: Iterable[Sequence[str]], covers: Callable[[str], bool]) -> None:
    """Raises InputError for the folder of a class, or of a split, that has no scan in it; not for one that is left out."""
    known = {tuple(folders[:depth]) for folders in filled for depth in (1, 2)}
    for top in uris.folders(root):
        classes = [(top, name) for name in uris.folders(uris.join(root, top))] if _split_of([top]) else []
        for folder in [(top,), *classes]:
            if folder not in known and covers(uris.join(root, *folder, "scan")):
                raise InputError(f"a label without scans: the folder {uris.join(root, *folder)} has none; "
                                 "add scans or remove the folder")  # fmt: skip


def _of_manifest(uri: str) -> list[_Labelled]:
    columns = _columns(uri)
    names = [_located(uris.parent(uri), name, uri) for name in columns["uri"]]
    labels = [label and label.strip() for label in columns["label"]]
    if not all(labels):
        raise InputError(f"{sum(not label for label in labels)} rows of the manifest {uri} have no label, the first in "
                         f"row {[bool(label) for label in labels].index(False) + 1}: fill or remove them")  # fmt: skip
    if len(set(names)) < len(names):
        raise InputError(f"the manifest {uri} names {len(names) - len(set(names))} scans twice: keep one row each")
    versions = {entry.uri: entry.version for entry in uris.find(names)}
    absent = [name for name in names if name not in versions]
    if absent:
        raise InputError(f"{len(absent)} of {len(names)} scans in the manifest {uri} are not there, the first in row "
                         f"{names.index(absent[0]) + 1}, {absent[0]}: correct the uri or remove the row")  # fmt: skip
    splits = [_named_split(split, uri) for split in columns["split"]]
    rows = zip(names, labels, splits, columns["patient_id"], strict=True)
    return [_Labelled(name, versions[name], str(label), split, patient) for name, label, split, patient in rows]


def _columns(uri: str) -> dict[str, list[str | None]]:
    """A manifest's columns as text; nothing (null or empty) is None, so that no two scans share an empty patient."""
    wanted = ("uri", "label", "split", "patient_id")
    data = pa.BufferReader(uris.read(uri))
    try:
        if uri.lower().endswith(".csv"):
            as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.string()))
            table = pyarrow.csv.read_csv(data, convert_options=as_text)
        else:
            table = pyarrow.parquet.ParquetFile(data).read()
        found = {name: table[name].cast(pa.string()).to_pylist() for name in wanted if name in table.column_names}
    except (pa.ArrowException, OSError) as err:
        told = " ".join(str(err).split())
        raise InputError(f"the manifest {uri} could not be read ({told}): expected CSV in UTF-8, or Parquet") from err
    missing = [name for name in ("uri", "label") if name not in found]
    if missing:
        raise InputError(f"the manifest {uri} lacks the column {' and '.join(missing)}, it has "
                         f"{', '.join(table.column_names)}: expected uri, label and, if wanted, split and patient_id")  # fmt: skip
    nothing = [None] * table.num_rows
    return {name: [value or None for value in found.get(name, nothing)] for name in wanted}


def _located(folder: str, name: str | None, manifest: str) -> str:
    """The URI of a scan that a manifest names."""
    if not name:
        raise InputError(f"a row of the manifest {manifest} has no uri: fill or remove it")
    if name.startswith("/") or "://" in name:
        return uris.absolute(name)
    if not uris.is_s3(folder):
        return uris.absolute(uris.join(folder, name))
    bucket, _, key = folder.removeprefix("s3://").partition("/")
    return uris.join(f"s3://{bucket}", posixpath.normpath(f"/{key}/{name}").lstrip("/"))


def _named_split(split: str | None, manifest: str) -> str | None:
    if split is None or not split.strip():
        return None
    known = _SPLITS.get(split.strip().lower())
    if known is None:
        raise InputError(f"the manifest {manifest} has the split {split!r}: expected training, validation or test")
    return known
