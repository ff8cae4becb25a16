"""Scans, labelled or not, into tables of names and from there into Ray Datasets of decoded rows.

What a row holds is `schema`'s; how bytes become pixels is `scans`'; what is left to do is `ledger`'s.
"""

import io
from collections.abc import Iterable, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import ray.data

from mribatch import schema
from mribatch.errors import InputError, ScanChanged, ScanVanished, StorageError
from mribatch.scans.images import Decoded, ImageSpec, decode
from mribatch.schema import Reason, Status
from mribatch.storage import uris

__all__ = ["LABELLED", "decode_table", "decoded", "labelled", "listing"]

LABELLED = pa.schema(
    [
        *schema.PLAN,
        pa.field("label", pa.string(), False),
        pa.field("split", pa.string()),
        pa.field("patient_id", pa.string()),
    ]
)
"""A labelled listing: split is training, validation, test or null; patient_id may be null."""

DECODER_BYTES = (
    1 << 29
)  # what a scan of the largest size needs; so few decoders run that all fit, apart from the predictors

_SPLIT_FOLDERS = {"training": "training", "train": "training", "validation": "validation", "val": "validation",
                  "testing": "test", "test": "test"}  # fmt: skip
_MANIFEST_ENDINGS = (".csv", ".parquet")


def listing(inputs: Sequence[str]) -> pa.Table:
    """The scans at some folders, files, globs or prefixes, as the schema `PLAN`, sorted, each once.

    Raises StorageMissing, StorageDenied, StorageUnavailable; InputError where there is no scan at all.
    """
    found = {entry.uri: entry.version for uri in inputs for entry in uris.walk(uri)}
    if not found:
        raise InputError(f"no scans in {', '.join(inputs)}: expected a folder or prefix with at least one file")
    names = sorted(found)
    return pa.table([names, [found[name] for name in names]], schema=schema.PLAN)


def labelled(uri: str) -> pa.Table:
    """The labelled scans at a root of class folders, or in a manifest, as the schema `LABELLED`, sorted by URI.

    Raises InputError where labels, folders or columns do not fit, StorageMissing where the data is not there.
    """
    table = _manifest(uri) if uri.lower().endswith(_MANIFEST_ENDINGS) else _class_folders(uri)
    classes = sorted(table["label"].unique().to_pylist())
    if len(classes) < 2:
        raise InputError(f"expected scans of two classes or more in {uri}, found only {', '.join(classes) or 'none'}")
    return table.sort_by("scan_uri")


def decoded(table: pa.Table, spec: ImageSpec, *, block_rows: int = 32) -> "ray.data.Dataset":
    """Stream the scans of a table: its own columns, and those of `schema.decoded_fields`. One row per row.

    Blocks are small (32 rows of 224 px are 5 MB), so that memory is bounded and work spreads over the nodes.
    """
    slices = [table.slice(at, block_rows) for at in range(0, table.num_rows, block_rows)]
    return ray.data.from_arrow([s.combine_chunks() for s in slices]).map_batches(
        partial(decode_table, spec=spec),
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
        memory=DECODER_BYTES,
    )


def decode_table(table: pa.Table, *, spec: ImageSpec) -> pa.Table:
    """Read and decode each scan of a block. A scan that cannot be read or decoded keeps its row, with the reason."""
    rows = [_decode_one(*key, spec) for key in zip(table["scan_uri"].to_pylist(), table["scan_version"].to_pylist())]
    fields = schema.decoded_fields(spec.side_px)
    columns = [_column(rows, field) for field in fields]
    return pa.table([*table.columns, *columns], schema=pa.schema([*table.schema, *fields]))


def _decode_one(uri: str, version: str, spec: ImageSpec) -> Decoded:
    try:
        return decode(uris.read_version(uri, version), spec)
    except ScanVanished as err:
        return _without_bytes(Status.REJECTED, Reason.VANISHED, err)
    except ScanChanged as err:
        return _without_bytes(Status.REJECTED, Reason.CHANGED, err)
    except (StorageError, MemoryError) as err:
        return _without_bytes(Status.FAILED, Reason.UNREADABLE, err)


def _without_bytes(status: Status, reason: Reason, err: Exception) -> Decoded:
    return Decoded(status=status, reason=reason, detail=type(err).__name__, content_sha256=None)


def _column(rows: Sequence[Decoded], field: pa.Field) -> pa.Array:
    if field.name == "frame":
        return pa.array([0] * len(rows), field.type)
    if field.name == "pixels":
        return pa.array([None if r.pixels is None else r.pixels.tobytes() for r in rows], field.type)
    return pa.array([getattr(r, field.name) for r in rows], field.type)


def _class_folders(uri: str) -> pa.Table:
    root = uris.absolute(uri).rstrip("/")
    entries = list(uris.walk(root))
    rows = [_place(entry, root) for entry in entries]
    if not rows:
        raise InputError(f"no scans in {uri}: expected one folder per class with scans in it")
    with_split = {split for _, _, _, split, _ in rows if split}
    if with_split and any(split is None for _, _, _, split, _ in rows):
        raise InputError(f"{uri} has split folders ({', '.join(sorted(with_split))}) and class folders side by side: "
                         "expected ROOT/<class>/… or ROOT/Training|Testing/<class>/…")  # fmt: skip
    _check_split_classes(uri, rows)
    return pa.Table.from_pylist([dict(zip(LABELLED.names, row)) for row in rows], schema=LABELLED)


_Row = tuple[str, str, str, str | None, str | None]


def _place(entry: uris.Entry, root: str) -> _Row:
    """The label and split that the folders above a scan give it."""
    folders = entry.uri.removeprefix(root).lstrip("/").split("/")[:-1]
    split = _SPLIT_FOLDERS.get(folders[0].lower()) if folders else None
    if split is not None:
        folders = folders[1:]
    if not folders:
        raise InputError(f"a scan stands directly in {root}: expected one folder per class, ROOT/<class>/…; "
                         "move it into its class's folder")  # fmt: skip
    return entry.uri, entry.version, folders[0], split, None


def _check_split_classes(uri: str, rows: Iterable[_Row]) -> None:
    by_split: dict[str, set[str]] = {}
    for _, _, label, split, _ in rows:
        by_split.setdefault(split or "", set()).add(label)
    known = by_split.get("training")
    for split, classes in by_split.items():
        if known is not None and classes - known:
            raise InputError(
                f"{uri}: the {split} scans have classes without training scans: {', '.join(sorted(classes - known))}"
            )


def _manifest(uri: str) -> pa.Table:
    data = io.BytesIO(uris.read(uri))
    try:
        if uri.lower().endswith(".csv"):
            as_text = pyarrow.csv.ConvertOptions(
                column_types={n: pa.string() for n in ("uri", "label", "split", "patient_id")}
            )
            table = pyarrow.csv.read_csv(data, convert_options=as_text)
        else:
            table = pyarrow.parquet.read_table(data)
    except pa.ArrowInvalid as err:
        raise InputError(f"the manifest {uri} could not be read: {err}") from err
    missing = {"uri", "label"} - set(table.column_names)
    if missing:
        raise InputError(f"the manifest {uri} lacks the column {' and '.join(sorted(missing))}: "
                         "expected uri, label and, if wanted, split and patient_id")  # fmt: skip
    return _resolved(uri, table)


def _resolved(manifest: str, table: pa.Table) -> pa.Table:
    """A manifest's rows with the version of each scan; relative URIs are taken from the manifest's folder."""
    folder = uris.parent(manifest)
    names = [_from(folder, name) for name in table["uri"].to_pylist()]
    versions = _versions(names)
    absent = [name for name in names if name not in versions]
    if absent:
        raise InputError(f"{len(absent)} of {len(names)} scans in the manifest {manifest} are not there, "
                         f"the first in row {names.index(absent[0]) + 1}: correct the uri or remove the row")  # fmt: skip
    labels = pc.if_else(pc.equal(pc.utf8_trim_whitespace(table["label"].cast(pa.string())), ""), None, table["label"])
    if labels.null_count:
        raise InputError(f"{labels.null_count} rows of the manifest {manifest} have no label: fill or remove them")
    if len(set(names)) < len(names):
        raise InputError(f"the manifest {manifest} names {len(names) - len(set(names))} scans twice: keep one row each")
    columns = [
        names,
        [versions[name] for name in names],
        labels.cast(pa.string()),
        _splits(manifest, table),
        _optional(table, "patient_id"),
    ]
    return pa.table(columns, schema=LABELLED)


def _from(folder: str, name: str | None) -> str:
    if not name:
        raise InputError("a row of the manifest has no uri: fill or remove it")
    return uris.absolute(name if uris.is_s3(name) or name.startswith("/") else uris.join(folder, name))


def _versions(names: Sequence[str]) -> dict[str, str]:
    """Versions by URI: one listing per folder, not one request per scan."""
    wanted = set(names)
    folders = sorted({uris.parent(name) for name in names})
    tops = [f for i, f in enumerate(folders) if not any(f.startswith(g.rstrip("/") + "/") for g in folders[:i])]
    return {entry.uri: entry.version for top in tops for entry in uris.walk(top) if entry.uri in wanted}


def _optional(table: pa.Table, name: str) -> pa.ChunkedArray | pa.Array:
    return table[name].cast(pa.string()) if name in table.column_names else pa.nulls(table.num_rows, pa.string())


def _splits(manifest: str, table: pa.Table) -> list[str | None]:
    given = _optional(table, "split").to_pylist()
    known = [None if not s else _SPLIT_FOLDERS.get(s.strip().lower(), "?") for s in given]
    if "?" in known:
        raise InputError(f"the manifest {manifest} has the split {given[known.index('?')]!r}: "
                         "expected training, validation or test")  # fmt: skip
    return known
