"""Manifests: tables that name scans, their labels and, if wanted, their splits and patients. What labels mean is `_labels`'.

Text (CSV, TSV; UTF-8 or UTF-16 with its mark; separated by commas, semicolons, tabs or bars, as the header shows) or
Parquet. Column names may be in any case and padded; other names for the columns are not guessed, the error proposes them.
"""

import codecs
import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet

from mribatch.errors import ConfigError, InputError
from mribatch.sources.label_names import MANIFESTS, SPLIT_NAMES, LabelledScan, split_of
from mribatch.stores import uris

__all__ = ["is_manifest", "labelled_scans", "named_scans"]

_SYNONYMS = {
    "uri": ("scanuri", "path", "filepath", "file", "filename", "fname", "image", "imagepath", "imagefile", "imagename",
            "img", "imgpath", "scan", "scanpath"),
    "label": ("labels", "class", "classname", "classlabel", "classes", "category", "diagnosis", "diagnose", "target", "tumor",
              "tumour", "tumortype", "truth", "groundtruth", "y"),
    "split": ("splits", "set", "subset", "partition", "splitname"),
    "patient_id": ("patient", "patients", "patientname", "subject", "subjectid", "pid", "caseid"),
}  # fmt: skip
_PLAIN = frozenset(name.replace("_", "") for name in _SYNONYMS)
_MARKS = (  # the longer ones first: UTF-16's is how UTF-32's begins
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_PACKED = (b"PK\3\4", b"\x1f\x8b", b"\xd0\xcf\x11\xe0", b"PAR1")  # zip and xlsx, gzip, xls, Parquet
_SEPARATORS = ",;\t|"
_EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|.*\\")
_MAX_FIELD = 1 << 24  # an unclosed quote takes the rest of the file into one field: let the reader say so


class _Manifest(NamedTuple):
    """Column names as they stand, the fields of those that may count (None: empty), and the line of each row of a text."""

    uri: str
    header: list[str]
    columns: dict[int, list[str | None]]  # by their places in the header
    rows: int
    lines: list[int] | None

    def place(self, row: int) -> str:
        """What a person calls a row."""
        return f"row {row + 1}" if self.lines is None else f"row {row + 1}, line {self.lines[row]}"


def is_manifest(uri: str) -> bool:
    return uri.casefold().endswith(MANIFESTS)


def labelled_scans(uri: str) -> list[LabelledScan]:
    """Return the rows of a manifest. Raises InputError, naming file, row and change; StorageMissing where it is not there."""
    manifest = _read(uri)
    columns = _columns(manifest, required=("uri", "label"))
    labels = columns["label"]
    if None in labels:
        raise InputError(f"{labels.count(None)} rows of the manifest {uri} have no label, the first in "
                         f"{manifest.place(labels.index(None))}: fill or remove them")  # fmt: skip
    names, versions = _scans(manifest, columns["uri"])
    splits = _splits(manifest, columns["split"])
    rows = zip(names, labels, splits, columns["patient_id"], strict=True)
    return [LabelledScan(name, versions[name], str(label), split, patient) for name, label, split, patient in rows]


def named_scans(uri: str) -> list[tuple[str, str, str | None]]:
    """Return URI, version and split of the scans in a manifest, which may do without labels. Raises as `labelled_scans`."""
    manifest = _read(uri)
    columns = _columns(manifest, required=("uri",))
    names, versions = _scans(manifest, columns["uri"])
    splits = _splits(manifest, columns["split"])
    return [(name, versions[name], split) for name, split in zip(names, splits, strict=True)]


# Columns


def _columns(manifest: _Manifest, required: Sequence[str]) -> dict[str, list[str | None]]:
    """Return the columns that count by their names; one that is not there is all None."""
    places: dict[str, list[int]] = {}
    for number, name in enumerate(manifest.header):
        places.setdefault(_plain(name), []).append(number)
    found = {name: places.get(_plain(name), []) for name in _SYNONYMS}
    for name, numbers in found.items():
        if len(numbers) > 1:
            twice = ", ".join(f"`{manifest.header[number]}`" for number in numbers)
            raise InputError(f"the manifest {manifest.uri} has the column {name} more than once ({twice}): keep one")
    missing = [name for name in _SYNONYMS if not found[name] and (name in required or _synonym(manifest, name))]
    if missing:
        raise InputError(_lacking(manifest, missing))
    nothing: list[str | None] = [None] * manifest.rows
    return {name: manifest.columns[numbers[0]] if numbers else nothing for name, numbers in found.items()}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _synonym(manifest: _Manifest, name: str) -> str | None:
    """Return the column that may be meant by another name."""
    return next(
        (column for synonym in _SYNONYMS[name] for column in manifest.header if _plain(column) == synonym), None
    )


def _lacking(manifest: _Manifest, missing: Sequence[str]) -> str:
    meant = {name: _synonym(manifest, name) for name in missing}
    changes = [f"rename the column `{column}` to `{name}`" for name, column in meant.items() if column]
    change = " and ".join(changes) or "expected uri, label and, if wanted, split and patient_id"
    optional = "" if {"uri", "label"} & {*missing} else ", or to another name if it is something else"
    return (f"the manifest {manifest.uri} lacks the column {' and '.join(missing)}, it has "
            f"{', '.join(manifest.header)}: {change}{optional}")  # fmt: skip


# Fields


def _scans(manifest: _Manifest, fields: Sequence[str | None]) -> tuple[list[str], dict[str, str]]:
    """Return the URIs of the scans, row by row, and the version of each."""
    if None in fields:
        raise InputError(
            f"{manifest.place(fields.index(None))} of the manifest {manifest.uri} has no uri: fill or remove it"
        )
    folder = uris.parent(manifest.uri)
    names = [_located(folder, str(field), manifest, row) for row, field in enumerate(fields)]
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if first.setdefault(name, row) != row:
            raise InputError(f"the manifest {manifest.uri} names {len(names) - len(set(names))} scans twice, the first in "
                             f"{manifest.place(first[name])} and {manifest.place(row)}: keep one row each")  # fmt: skip
    versions = {entry.uri: entry.version for entry in uris.find(names)}
    absent = [row for row, name in enumerate(names) if name not in versions]
    if absent:
        raise InputError(f"{len(absent)} of {len(names)} scans in the manifest {manifest.uri} are not there, the first in "
                         f"{manifest.place(absent[0])}, {names[absent[0]]}: {_remedy(str(fields[absent[0]]), names[absent[0]])}")  # fmt: skip
    return names, versions


def _located(folder: str, name: str, manifest: _Manifest, row: int) -> str:
    """Return the URI of a scan: a relative one begins at the manifest's folder. Raises ConfigError for other schemes."""
    if name.startswith("/") or "://" in name:
        try:
            return uris.absolute(name)
        except ConfigError as err:
            raise ConfigError(f"{manifest.place(row)} of the manifest {manifest.uri}: {err}") from err
    if not uris.is_s3(folder):
        return uris.absolute(uris.join(folder, name))
    bucket, _, key = folder.removeprefix("s3://").partition("/")
    return uris.join(f"s3://{bucket}", posixpath.normpath(f"/{key}/{name}").lstrip("/"))


def _remedy(name: str, uri: str) -> str:
    if _WINDOWS.match(name):
        return "it is a path of Windows; write / for \\ and begin at the manifest's folder, as in glioma/scan.jpg"
    if any(uris.find({unicodedata.normalize(form, uri) for form in ("NFC", "NFD")})):
        return "a scan of the same name in another Unicode form is; write names as the storage spells them"
    return "correct the uri or remove the row"


def _splits(manifest: _Manifest, fields: Sequence[str | None]) -> list[str | None]:
    splits = [split_of(field or "") for field in fields]
    for row, (field, split) in enumerate(zip(fields, splits, strict=True)):
        if field and split is None:
            raise InputError(f"the manifest {manifest.uri} has the split {field!r} in {manifest.place(row)}: "
                             f"expected {SPLIT_NAMES}, or nothing")  # fmt: skip
    return splits


# Files


def _read(uri: str) -> _Manifest:
    data = uris.read(uri)
    if not uri.casefold().endswith(".parquet"):
        return _of_text(uri, _text(uri, data))
    try:
        table = pyarrow.parquet.ParquetFile(pa.BufferReader(data)).read()
        columns = {
            place: [_filled(field) for field in table.column(place).cast(pa.string()).to_pylist()]
            for place in _wanted(table.column_names)
        }
    except (pa.ArrowException, OSError) as err:
        raise _unreadable(uri, " ".join(str(err).split()), "expected Parquet with columns of text or numbers") from err
    return _Manifest(uris.absolute(uri), table.column_names, columns, table.num_rows, None)


def _wanted(header: Sequence[str]) -> list[int]:
    """Return the places of the columns that may count."""
    return [place for place, name in enumerate(header) if _plain(name) in _PLAIN]


def _text(uri: str, data: bytes) -> str:
    if data.startswith(_PACKED):
        raise _unreadable(
            uri, "it is a spreadsheet, an archive or Parquet under another name", 'save it as "CSV UTF-8"'
        )
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as err:
        line = data[: err.start].count(b"\n") + 1
        raise _unreadable(uri, f"line {line} is not {encoding.upper()}, it may be Windows-1252 or Latin-1",
                          'save it as "CSV UTF-8"') from err  # fmt: skip
    if "\0" in text:
        raise _unreadable(uri, "it has NUL characters, it may be UTF-16 without its mark", 'save it as "CSV UTF-8"')
    return text


def _of_text(uri: str, text: str) -> _Manifest:
    rows, lines = _rows(uri, text)
    if not rows:
        raise _unreadable(uri, "it is empty", "expected a header line with uri and label")
    header, rows, lines = [field or "" for field in rows[0]], rows[1:], lines[1:]
    while not header[-1]:
        header.pop()
    for number, row in enumerate(rows):
        if any(row[len(header) :]):
            raise _unreadable(uri, f"row {number + 1}, line {lines[number]}, has {len(row)} fields and the header {len(header)}",
                              "put fields that hold a separator into quotes")  # fmt: skip
    columns = {place: [row[place] if place < len(row) else None for row in rows] for place in _wanted(header)}
    return _Manifest(uris.absolute(uri), header, columns, len(rows), lines)


def _rows(uri: str, text: str) -> tuple[list[list[str | None]], list[int]]:
    """Return the rows of a text, the header among them, and their lines, without blank rows and Excel's line sep=;"""
    first, _, rest = text.lstrip().partition("\n")
    named = _EXCEL_SEPARATOR.fullmatch(first.strip(" \r"))
    skipped = text[: len(text) - len(rest)].count("\n") if named else 0
    body, separator = (rest, named[1]) if named else (text, _separator(first))
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[list[str | None]] = []
    lines: list[int] = []
    try:
        for fields in reader:
            row = [_filled(field) for field in fields]
            if any(row):
                rows.append(row)
                lines.append(reader.line_num + skipped)
    except csv.Error as err:
        raise _unreadable(uri, f"row {len(rows)}, line {reader.line_num + skipped}: {err}", "check its quotes") from err
    return rows, lines


def _separator(header: str) -> str:
    """Return the separator whose fields have the columns that are wanted; of equals, the one that gives most fields."""

    def fit(separator: str) -> tuple[int, int]:
        names = [_plain(name.strip().strip('"')) for name in header.split(separator)]
        return sum(name in ("uri", "label") for name in names), len(names)

    return max(_SEPARATORS, key=fit)


def _filled(field: str | None) -> str | None:
    """Return a field without padding, or None: no two scans share an empty patient."""
    return (field.strip() or None) if field else None


def _unreadable(uri: str, why: str, change: str) -> InputError:
    return InputError(f"the manifest {uri} could not be read ({why}): {change}")
