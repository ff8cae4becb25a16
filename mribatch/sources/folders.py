"""Read labels from folders, ROOT/<class>/… or ROOT/<split>/<class>/…, and reject ambiguous folders.

A split folder is called train, training, val, valid, validate, validation, dev, test or testing, in any case.
Everything below the folder of a class, at any depth, is a scan of that class. Documents beside the class folders
(README, LICENSE, tables, archives: see `label_names`) are ignored. Any other file there is a scan without a label.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mribatch.errors import InputError
from mribatch.sources.label_names import (
    MANIFESTS,
    SPLIT_NAMES,
    LabelledScan,
    is_document,
    looks_like_split,
    of_classes,
    same_class,
    split_of,
)
from mribatch.sources.listing import list_inputs
from mribatch.stores import uris
from mribatch.stores.uris import Entry

__all__ = ["EXPECTED", "labelled_scans", "named_scans"]

EXPECTED = "expected ROOT/<class>/… or ROOT/Training|Validation|Testing/<class>/…"

_IMAGES = frozenset({"image", "images", "img", "imgs"})
_ANNOTATIONS = frozenset(
    {"annotation", "annotations", "label", "labels", "mask", "masks", "segmentation", "segmentations"}
)


class _Located(NamedTuple):
    """A scan and the folders from the root to it."""

    entry: Entry
    split: str | None
    class_folder: tuple[str, ...]  # the folder of its split, if any, and of its class
    subfolders: tuple[str, ...]  # below that of its class

    @property
    def label(self) -> str:
        return self.class_folder[-1]


def labelled_scans(
    uri: str, classes: Sequence[str] = (), exclude: Sequence[str] = (), outputs: Sequence[str] = ()
) -> list[LabelledScan]:
    """Return the scans below a root with their labels, of all classes or of those named.

    Raises InputError, naming the folder and the remedy, for another layout or a folder that is unlikely to be a class.
    """
    root = uris.absolute(uri)
    listing = list_inputs([root], exclude)
    scans = [scan for scan in (_locate(entry, root, uri) for entry in listing.entries()) if scan is not None]
    scans = of_classes(uri, scans, classes)
    _check_splits(root, scans)
    _check_more_than_one(root, scans)
    _check_nested(root, scans)
    _check_kinds(root, scans)
    if not classes:
        own = [uris.relative(name, root).split("/")[:-1] for name in listing.own]
        own += [uris.relative(uris.absolute(folder), root).split("/") for folder in outputs]
        _check_none_is_empty(root, [*(scan.class_folder for scan in scans), *own], listing.covers)
    return [LabelledScan(*scan.entry[:2], scan.label, scan.split, None) for scan in scans]


def named_scans(uri: str) -> list[tuple[str, str, str | None, None]]:
    """Return URI, version, split and no patient of the scans at a folder, file or glob. Documents are not scans."""
    root = uris.absolute(uri)
    scans: list[tuple[str, str, str | None, None]] = []
    for entry in list_inputs([uri]).entries():
        *folders, name = uris.relative(entry.uri, root).split("/") if uris.is_below(entry.uri, root) else [entry.uri]
        if not is_document(name):
            scans.append((entry.uri, entry.version, split_of(folders[0]) if folders else None, None))
    return scans


def _locate(entry: Entry, root: str, named_root: str) -> _Located | None:
    """Return a scan with its folders, or None for a document beside the folders of classes."""
    if not uris.is_below(entry.uri, root):
        raise InputError(
            f"expected a folder of class folders or a manifest ({', '.join(MANIFESTS)}), got {named_root}: labels come "
            "from folders, so name the folder above, or save the labels as CSV in UTF-8"
        )
    *folders, name = uris.relative(entry.uri, root).split("/")
    split = split_of(folders[0]) if folders else None
    depth = 2 if split else 1
    if len(folders) >= depth:
        _check_utf8(entry, folders[depth - 1])
        return _Located(entry, split, tuple(folders[:depth]), tuple(folders[depth:]))
    if is_document(name):
        return None
    folder = uris.join(root, *folders)
    remedy = "move it into the folder of its class, or out of there if it is not a scan"
    raise InputError(f"a scan, {name}, lies directly in {folder}: {EXPECTED}; {remedy}")


def _check_utf8(entry: Entry, label: str) -> None:
    try:
        label.encode()
    except UnicodeEncodeError as err:
        folder = entry.uri.rpartition("/")[0]
        raise InputError(f"the class folder {folder} has a name that is not UTF-8: rename it") from err


def _check_splits(root: str, scans: Sequence[_Located]) -> None:
    """Raise InputError for folders beside splits, and for a split name where a class is expected."""
    for path in sorted({scan.class_folder for scan in scans}):
        if looks_like_split(path[-1]):
            remedy = f"rename it to {SPLIT_NAMES}, or to its class"
            if len(path) > 1:
                remedy = "move its folders to where they belong, or rename it to its class"
            folder = uris.join(root, *path)
            raise InputError(
                f"the folder {folder} has the name of a split where a class is expected: {remedy}, or list the scans "
                "in a manifest"
            )
    splits = sorted({scan.class_folder[0] for scan in scans if scan.split})
    beside = sorted({scan.label for scan in scans if not scan.split})
    if splits and beside:
        raise InputError(
            f"{root} has split folders ({', '.join(splits)}) and class folders side by side: move "
            f"{uris.join(root, beside[0])} into one of the splits, or out of {root}, or rename it to {SPLIT_NAMES} "
            "if it is a split"
        )


def _check_more_than_one(root: str, scans: Sequence[_Located]) -> None:
    """Raise InputError for a single class, naming a folder below that may have been meant."""
    if not scans or len({scan.label for scan in scans}) > 1:
        return
    inner = _first_branching({(*scan.class_folder, *scan.subfolders) for scan in scans})
    hint = f"; if the classes are the folders in {uris.join(root, *inner)}, name that folder" if inner else ""
    raise InputError(f"expected scans of two classes or more in {root}, found only {scans[0].label}: {EXPECTED}{hint}")


def _first_branching(folders: set[tuple[str, ...]]) -> list[str]:
    """Return the outermost folder that has several folders or a split in it, if each folder above it has only one."""
    path: list[str] = []
    while all(len(folder) > len(path) for folder in folders):
        names = {folder[len(path)] for folder in folders}
        if len(names) > 1 or (path and split_of(min(names))):
            return path
        path.append(min(names))
    return []


def _check_nested(root: str, scans: Sequence[_Located]) -> None:
    """Raise InputError for a split or another class inside the folder of a class: mostly a copy of the data.

    Where classes are numbers, a number inside one is taken for a patient or a series.
    """
    classes = {same_class(scan.label) for scan in scans}
    suspects: dict[tuple[str, ...], set[str]] = {}
    for class_folder, subfolders in {(scan.class_folder, scan.subfolders) for scan in scans}:
        label = class_folder[-1]
        others = {name for name in classes - {same_class(label)} if not (name.isdigit() and label.isdigit())}
        for depth, name in enumerate(subfolders):
            splits = ("training", "test") if depth else ("training", "validation", "test")
            if same_class(name) in others or split_of(name) in splits:
                suspects.setdefault(class_folder, set()).add(name)
    if suspects:
        path = min(suspects)
        names = ", ".join(sorted(suspects[path])[:4])
        raise InputError(
            f"the class folder {uris.join(root, *path)} contains folders with the names of splits or other classes "
            f"({names}): move it out of {root} if it is a copy of the data, otherwise move or rename them; or list the "
            "scans in a manifest"
        )


def _check_kinds(root: str, scans: Sequence[_Located]) -> None:
    """Raise InputError for images beside their annotations, and for a class that has documents only."""
    paths = {scan.label.casefold(): scan.class_folder for scan in scans}
    images, annotations = _IMAGES & paths.keys(), _ANNOTATIONS & paths.keys()
    if images and annotations:
        pair = [uris.join(root, *paths[min(names)]) for names in (images, annotations)]
        raise InputError(
            f"{' and '.join(pair)} look like images and their annotations, not like classes: {EXPECTED}, or a manifest "
            "with uri and label"
        )
    with_scans = {scan.class_folder for scan in scans if not is_document(scan.entry.uri.rpartition("/")[2])}
    for path in sorted({scan.class_folder for scan in scans} - with_scans):
        folder = uris.join(root, *path)
        raise InputError(f"the class folder {folder} contains documents only, no scans: move it out of {root}")


def _check_none_is_empty(root: str, filled: Iterable[Sequence[str]], covers: Callable[[str], bool]) -> None:
    """Raise InputError for the folder of a class or a split that has no scans and is not excluded."""
    known = {tuple(folders[:depth]) for folders in filled for depth in (1, 2)}
    for top in uris.folders(root):
        classes = [(top, name) for name in uris.folders(uris.join(root, top))] if split_of(top) else []
        for path in [(top,), *classes]:
            folder = uris.join(root, *path)
            if path not in known and covers(uris.join(folder, "scan")):
                raise InputError(f"a label without scans: {folder} has none; add scans or remove the folder")
