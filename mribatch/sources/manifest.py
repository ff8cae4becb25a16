"""Read manifests: tables that name scans, their labels and, optionally, their splits and patients.

A manifest is Parquet or text: CSV or TSV, in UTF-8 or in UTF-16 with its byte order mark, separated by commas,
semicolons, tabs or bars, as the header shows. Column names may be padded and in any case. Other names are not guessed;
the error message suggests what to rename.
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

__all__ = ["is_manifest", "labelled_scans", "named_scans", "other_columns"]

_IMAGE_WORDS = ("image", "imagepath", "imagefile", "imagename", "img", "imgpath", "scan", "scanpath")
_CLASS_WORDS = ("class", "classname", "classlabel", "classes", "category")
_FINDING_WORDS = ("diagnosis", "diagnose", "target", "tumor", "tumour", "tumortype", "truth", "groundtruth", "y")
_SYNONYMS = {
    "uri": ("scanuri", "path", "filepath", "file", "filename", "fname", *_IMAGE_WORDS),
    "label": ("labels", *_CLASS_WORDS, *_FINDING_WORDS),
    "split": ("splits", "set", "subset", "partition", "splitname"),
    "patient_id": ("patient", "patients", "patientname", "subject", "subjectid", "pid", "caseid"),
}
_NORMALIZED = frozenset(name.replace("_", "") for name in _SYNONYMS)
_BYTE_ORDER_MARKS = (  # UTF-32 before UTF-16, whose mark is the start of it
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = (b"PK\3\4", b"\x1f\x8b", b"\xd0\xcf\x11\xe0", b"PAR1")  # zip and xlsx, gzip, xls, Parquet
_SEPARATORS = ",;\t|"
_EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|.*\\")
_MAX_FIELD = 1 << 24  # an unclosed quote makes the rest of the file one field, which the csv module then reports


class _Manifest(NamedTuple):
    """A table as read. Fields are None if empty."""

    uri: str
    header: list[str]  # column names, unchanged
    columns: dict[int, list[str | None]]  # those with a meaning, or every one, by their index in the header
    rows: int
    lines: list[int] | None  # of each row; None for Parquet

    def place(self, row: int) -> str:
        """Return how to refer to a row in a message."""
        return f"row {row + 1}" if self.lines is None else f"row {row + 1}, line {self.lines[row]}"


def is_manifest(uri: str) -> bool:
    """Return whether a URI has the ending of a manifest."""
    return uri.casefold().endswith(MANIFESTS)


def labelled_scans(uri: str) -> list[LabelledScan]:
    """Return the rows of a manifest. Raises InputError with the file, row and remedy; StorageMissing."""
    manifest = _read(uri)
    columns = _columns(manifest, required=("uri", "label"))
    labels = columns["label"]
    if None in labels:
        first = manifest.place(labels.index(None))
        raise InputError(
            f"{labels.count(None)} rows of the manifest {uri} have no label, the first in {first}: fill or remove them"
        )
    names, versions = _scans(manifest, columns["uri"])
    splits = _splits(manifest, columns["split"])
    rows = zip(names, labels, splits, columns["patient_id"], strict=True)
    return [LabelledScan(name, versions[name], str(label), split, patient) for name, label, split, patient in rows]


def named_scans(uri: str) -> list[tuple[str, str, str | None, str | None]]:
    """Return URI, version, split and patient of the scans in a manifest, labelled or not. Raises as `labelled_scans` does."""
    manifest = _read(uri)
    columns = _columns(manifest, required=("uri",))
    names, versions = _scans(manifest, columns["uri"])
    rows = zip(names, _splits(manifest, columns["split"]), columns["patient_id"], strict=True)
    return [(name, versions[name], split, patient) for name, split, patient in rows]


def other_columns(uri: str) -> pa.Table:
    """Return the columns of a manifest that have no meaning here, as text, beside the `scan_uri` of each row.

    Columns without a name are left out. Raises as `labelled_scans` does.
    """
    manifest = _read(uri, every=True)
    names = _columns(manifest, required=("uri",))["uri"]
    folder = uris.parent(manifest.uri)
    scans = [_uri_of(folder, str(name), manifest, row) for row, name in enumerate(names)]
    others = {
        name: manifest.columns[index]
        for index, name in enumerate(manifest.header)
        if name and _normalized(name) not in _NORMALIZED and index in manifest.columns
    }
    table = {name: pa.array(values, pa.string()) for name, values in others.items() if name != "scan_uri"}
    return pa.table({"scan_uri": pa.array(scans, pa.string()), **table})


# Columns


def _columns(manifest: _Manifest, required: Sequence[str]) -> dict[str, list[str | None]]:
    """Return the columns with a meaning, by their names. An absent one is all None."""
    indices = {
        name: [index for index, column in enumerate(manifest.header) if _normalized(column) == _normalized(name)]
        for name in _SYNONYMS
    }
    for name, same in indices.items():
        if len(same) > 1:
            columns = ", ".join(f"`{manifest.header[index]}`" for index in same)
            raise InputError(f"the manifest {manifest.uri} has the column {name} more than once ({columns}): keep one")
    missing = [name for name in _SYNONYMS if not indices[name] and (name in required or _synonym(manifest, name))]
    if missing:
        raise _missing_columns(manifest, missing)
    empty: list[str | None] = [None] * manifest.rows
    return {name: manifest.columns[same[0]] if same else empty for name, same in indices.items()}


def _normalized(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _synonym(manifest: _Manifest, name: str) -> str | None:
    """Return a column whose name is a synonym of this one, or None."""
    columns = {_normalized(column): column for column in reversed(manifest.header)}
    return next((columns[synonym] for synonym in _SYNONYMS[name] if synonym in columns), None)


def _missing_columns(manifest: _Manifest, missing: Sequence[str]) -> InputError:
    synonyms = {name: _synonym(manifest, name) for name in missing}
    renames = [f"rename the column `{column}` to `{name}`" for name, column in synonyms.items() if column]
    remedy = " and ".join(renames) or "expected uri, label and, optionally, split and patient_id"
    if not {"uri", "label"} & {*missing}:
        remedy += ", or to another name if it means something else"
    lack = f"lacks the column{'s' if len(missing) > 1 else ''} {' and '.join(missing)}, it has {', '.join(manifest.header)}"
    return InputError(f"the manifest {manifest.uri} {lack}: {remedy}")


# Fields


def _scans(manifest: _Manifest, fields: Sequence[str | None]) -> tuple[list[str], dict[str, str]]:
    """Return the URIs of the scans, row by row, and the version of each."""
    if None in fields:
        place = manifest.place(fields.index(None))
        raise InputError(f"{place} of the manifest {manifest.uri} has no uri: fill or remove it")
    folder = uris.parent(manifest.uri)
    names = [_uri_of(folder, str(field), manifest, row) for row, field in enumerate(fields)]
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if first.setdefault(name, row) != row:
            count, places = len(names) - len(set(names)), f"{manifest.place(first[name])} and {manifest.place(row)}"
            raise InputError(
                f"the manifest {manifest.uri} names {count} scans twice, the first in {places}: keep one row each"
            )
    versions = {entry.uri: entry.version for entry in uris.find(names)}
    absent = [row for row, name in enumerate(names) if name not in versions]
    if absent:
        row = absent[0]
        raise InputError(
            f"{len(absent)} of {len(names)} scans in the manifest {manifest.uri} do not exist, the first in "
            f"{manifest.place(row)}, {names[row]}: {_remedy(str(fields[row]), names[row])}"
        )
    return names, versions


def _uri_of(folder: str, name: str, manifest: _Manifest, row: int) -> str:
    """Return the URI of a scan; a relative one starts from the manifest's folder. Raises ConfigError."""
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
        return "it is a Windows path; write / for \\ and start from the manifest's folder, as in glioma/scan.jpg"
    if any(uris.find({unicodedata.normalize(form, uri) for form in ("NFC", "NFD")})):
        return "but a scan of this name in another Unicode form does; write names as the storage spells them"
    return "correct the uri or remove the row"


def _splits(manifest: _Manifest, fields: Sequence[str | None]) -> list[str | None]:
    splits = [split_of(field or "") for field in fields]
    for row, (field, split) in enumerate(zip(fields, splits, strict=True)):
        if field and split is None:
            place = manifest.place(row)
            raise InputError(
                f"the manifest {manifest.uri} has the split {field!r} in {place}: expected {SPLIT_NAMES}, or nothing"
            )
    return splits


# Files


def _read(uri: str, *, every: bool = False) -> _Manifest:
    """Return a manifest with its columns that have a meaning, or with every column."""
    data = uris.read(uri)
    if not uri.casefold().endswith(".parquet"):
        return _parsed(uri, _decoded(uri, data), every)
    try:
        table = pyarrow.parquet.ParquetFile(pa.BufferReader(data)).read()
        columns = {
            index: [_stripped(field) for field in table.column(index).cast(pa.string()).to_pylist()]
            for index in _wanted(table.column_names, every)
            if not (every and pa.types.is_nested(table.schema.field(index).type))
        }
    except (pa.ArrowException, OSError) as err:
        raise _unreadable(uri, " ".join(str(err).split()), "expected Parquet with columns of text or numbers") from err
    return _Manifest(uris.absolute(uri), table.column_names, columns, table.num_rows, None)


def _wanted(header: Sequence[str], every: bool) -> list[int]:
    """Return the indices of the columns that have a meaning, or of every one."""
    return [index for index, name in enumerate(header) if every or _normalized(name) in _NORMALIZED]


def _decoded(uri: str, data: bytes) -> str:
    remedy = 'save it as "CSV UTF-8"'
    if data.startswith(_BINARY):
        raise _unreadable(uri, "it is a spreadsheet, an archive or Parquet under another name", remedy)
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as err:
        line = data[: err.start].count(b"\n") + 1
        cause = f"line {line} is not {encoding.upper()}, it may be Windows-1252 or Latin-1"
        raise _unreadable(uri, cause, remedy) from err
    if "\0" in text:
        raise _unreadable(uri, "it has NUL characters, it may be UTF-16 without a byte order mark", remedy)
    return text


def _parsed(uri: str, text: str, every: bool) -> _Manifest:
    rows, lines = _rows(uri, text)
    if not rows:
        raise _unreadable(uri, "it is empty", "expected a header line with uri and label")
    header, rows, lines = [field or "" for field in rows[0]], rows[1:], lines[1:]
    while not header[-1]:
        header.pop()
    for number, row in enumerate(rows):
        if any(row[len(header) :]):
            cause = f"row {number + 1}, line {lines[number]}, has {len(row)} fields and the header {len(header)}"
            raise _unreadable(uri, cause, "quote fields that contain a separator")
    columns = {index: [row[index] if index < len(row) else None for row in rows] for index in _wanted(header, every)}
    return _Manifest(uris.absolute(uri), header, columns, len(rows), lines)


def _rows(uri: str, text: str) -> tuple[list[list[str | None]], list[int]]:
    """Return the rows of a text, header included, and their line numbers. Skips blank rows and Excel's `sep=;` line."""
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
            row = [_stripped(field) for field in fields]
            if any(row):
                rows.append(row)
                lines.append(reader.line_num + skipped)
    except csv.Error as err:
        raise _unreadable(uri, f"row {len(rows)}, line {reader.line_num + skipped}: {err}", "check its quotes") from err
    return rows, lines


def _separator(header: str) -> str:
    """Return the separator that yields most of the required columns, then the most fields."""

    def score(separator: str) -> tuple[int, int]:
        names = [_normalized(name.strip().strip('"')) for name in header.split(separator)]
        return sum(name in ("uri", "label") for name in names), len(names)

    return max(_SEPARATORS, key=score)


def _stripped(field: str | None) -> str | None:
    """Return a field without padding, or None if nothing is left: scans without a patient must not share one."""
    return (field.strip() or None) if field else None


def _unreadable(uri: str, cause: str, remedy: str) -> InputError:
    return InputError(f"the manifest {uri} could not be read ({cause}): {remedy}")
