"""Return labelled scans from folders or a manifest, and reject labels that do not fit. Opens no scan."""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mribatch import schema
from mribatch.errors import InputError
from mribatch.sources import folders, manifest
from mribatch.sources.label_names import LabelledScan, copied_class, of_classes, same_class

__all__ = [
    "LABELLED",
    "TrainingScans",
    "check_known",
    "data_fingerprint",
    "evaluation_scans",
    "labelled",
    "training_scans",
]

LABELLED = pa.schema(
    [
        *schema.PLAN,
        pa.field("label", pa.string(), False),
        pa.field("split", pa.string()),
        pa.field("patient_id", pa.string()),
    ]
)
"""A labelled listing: split is training, validation, test or null; patient_id may be null."""


_KNOWN = pa.schema([*schema.PLAN, LABELLED.field("patient_id")])


@dataclass(frozen=True, kw_only=True)
class TrainingScans:
    """The scans that a model may have been trained on, and how many test scans were left out of them.

    scans: the columns of the schema PLAN, and patient_id, which may be null.
    """

    scans: pa.Table
    test_scans: int


def labelled(
    uri: str, *, classes: Sequence[str] = (), exclude: Sequence[str] = (), outputs: Sequence[str] = ()
) -> pa.Table:
    """Return the labelled scans at a root of class folders, or in a manifest, as the schema `LABELLED`, sorted by URI.

    classes: take scans of these only, and do not check the others. exclude: globs, relative to the root, of what to
    leave out. outputs: folders that this run writes, which are not classes. Raises InputError for labels, folders or
    columns that are inconsistent or ambiguous, StorageMissing if the data does not exist.
    """
    if manifest.is_manifest(uri):
        if exclude:
            raise InputError(f"--exclude is for folders, and {uri} is a manifest: remove the rows from it instead")
        rows = of_classes(uri, manifest.labelled_scans(uri), classes)
    else:
        rows = folders.labelled_scans(uri, classes, exclude, outputs)
    if not rows:
        raise InputError(f"no scans in {uri}: {folders.EXPECTED}, or a manifest with rows")
    _check_classes(uri, rows)
    _check_split_classes(uri, rows)
    columns = zip(*sorted(rows), strict=True)
    return pa.table([list(column) for column in columns], schema=LABELLED)


def evaluation_scans(table: pa.Table, labels: Sequence[str]) -> pa.Table:
    """Return the test split of labelled scans (schema LABELLED), or all of them if they have none.

    labels: those that a model knows. Raises InputError for a scan with another label.
    """
    if "test" in table["split"].to_pylist():
        table = table.filter(pc.equal(table["split"], "test"))
    check_known(table, labels)
    return table


def check_known(table: pa.Table, labels: Sequence[str]) -> None:
    """Raise InputError for labelled scans (schema LABELLED) with a label that is none of `labels`, those of a model."""
    unknown = sorted(set(table["label"].to_pylist()) - set(labels))
    if unknown:
        raise InputError(
            f"the data has classes that the model does not know: {', '.join(unknown)}; it knows {', '.join(labels)}: "
            "rename or remove those folders, or train on them"
        )


def data_fingerprint(contents: Iterable[str], labels: Iterable[str]) -> str:
    """Return the SHA-256 of scans, given by theirs, with their labels; the same whatever their names and order are."""
    rows = sorted(f"{content}{label}" for content, label in zip(contents, labels, strict=True))
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def training_scans(uris: Sequence[str]) -> TrainingScans:
    """Return the scans at some folders, files, globs or manifests, each once, whether labelled or not.

    If a set has training or validation scans, its test split is left out. Raises InputError for a set without scans,
    and what `labelled` raises.
    """
    known: dict[str, tuple[str, str | None]] = {}
    tests: set[str] = set()
    for uri in uris:
        named: Sequence[tuple[str, str, str | None, str | None]] = (
            manifest.named_scans(uri) if manifest.is_manifest(uri) else folders.named_scans(uri)
        )
        if not named:
            raise InputError(f"no scans in {uri}: expected a folder with scans, or a manifest that names them")
        has_training = any(split in ("training", "validation") for _, _, split, _ in named)
        for name, version, split, patient in named:
            if has_training and split == "test":
                tests.add(name)
            else:
                known[name] = version, patient
    rows = [(name, *known[name]) for name in sorted(known)]
    scans = pa.table([list(column) for column in zip(*rows, strict=True)], schema=_KNOWN)
    return TrainingScans(scans=scans, test_scans=len(tests - known.keys()))


def _check_classes(uri: str, rows: Sequence[LabelledScan]) -> None:
    """Raise InputError for a single class and for classes whose names differ only in spelling."""
    classes = sorted({row.label for row in rows})
    if len(classes) < 2:
        raise InputError(f"expected scans of two classes or more in {uri}, found only {classes[0]}: {folders.EXPECTED}")
    known: dict[str, str] = {}
    for label in classes:
        other = known.setdefault(same_class(label), label)
        if other != label:
            raise InputError(_alike(uri, other, label))
    for label in classes:
        original = known.get(same_class(copied_class(label)), label)
        if original != label:
            raise InputError(_alike(uri, original, label))


def _alike(uri: str, first: str, second: str) -> str:
    shown = ascii if unicodedata.normalize("NFKC", first) == unicodedata.normalize("NFKC", second) else repr
    pair = f"{shown(first)} and {shown(second)}"
    remedy = "give both one name, or two clearly different ones"
    return f"{uri} has the classes {pair}, which look like the same class: {remedy}"


def _check_split_classes(uri: str, rows: Sequence[LabelledScan]) -> None:
    known = {row.label for row in rows if row.split in ("training", None)}
    for split in ("validation", "test"):
        unknown = {row.label for row in rows if row.split == split} - known
        if known and unknown:
            names = ", ".join(sorted(unknown))
            raise InputError(
                f"{uri}: the {split} scans have classes without training scans: {names}; rename these classes, or add "
                "training scans of them"
            )
