"""Labels from folders: ROOT/<class>/… or ROOT/<split>/<class>/…, and questions about folders that nobody can mean.

A split folder is called train, training, val, valid, validate, validation, dev, test or testing, in any case. Whatever is
below a class's folder, to any depth, is a scan of that class. Beside the class folders there may be documents (README,
LICENSE, tables, archives: see `_label_names`), which are passed over; any other file there is a scan without a label.
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
from mribatch.sources.listing import listed
from mribatch.stores import uris
from mribatch.stores.uris import Entry

__all__ = ["EXPECTED", "labelled_scans", "named_scans"]

EXPECTED = "expected ROOT/<class>/… or ROOT/Training|Validation|Testing/<class>/…"

_IMAGES = frozenset({"image", "images", "img", "imgs"})
_ANNOTATIONS = frozenset(
    {"annotation", "annotations", "label", "labels", "mask", "masks", "segmentation", "segmentations"}
)


class _Placed(NamedTuple):
    """A scan and the folders from the root to it."""

    entry: Entry
    split: str | None
    above: tuple[str, ...]  # the folder of its split, where it has one, and of its class
    inside: tuple[str, ...]  # folders below that of its class

    @property
    def label(self) -> str:
        return self.above[-1]


def labelled_scans(
    uri: str, classes: Sequence[str] = (), exclude: Sequence[str] = (), outputs: Sequence[str] = ()
) -> list[LabelledScan]:
    """Return the scans below a root with their labels, or those of some classes alone.

    Raises InputError, naming the folder and the change, where folders are not laid out so or one cannot be meant as a class.
    """
    root = uris.absolute(uri)
    listing = listed([root], exclude)
    scans = [scan for scan in (_placed(entry, root, uri) for entry in listing.entries()) if scan is not None]
    scans = of_classes(uri, scans, classes)
    _check_splits(root, scans)
    _check_more_than_one(root, scans)
    _check_nested(root, scans)
    _check_kinds(root, scans)
    if not classes:
        ours = [uris.relative(name, root).split("/")[:-1] for name in listing.own]
        ours += [uris.relative(uris.absolute(folder), root).split("/") for folder in outputs]
        _check_none_is_empty(root, [*(scan.above for scan in scans), *ours], listing.covers)
    return [LabelledScan(*scan.entry[:2], scan.label, scan.split, None) for scan in scans]


def named_scans(uri: str) -> list[tuple[str, str, str | None]]:
    """Return URI, version and split of the scans at a folder, file or glob, whatever they show. Documents are no scans."""
    root, scans = uris.absolute(uri), []
    for entry in listed([uri]).entries():
        *folders, name = uris.relative(entry.uri, root).split("/") if uris.is_below(entry.uri, root) else [entry.uri]
        if not is_document(name):
            scans.append((entry.uri, entry.version, split_of(folders[0]) if folders else None))
    return scans


def _placed(entry: Entry, root: str, told: str) -> _Placed | None:
    """Return where a scan stands, or None for a document beside the folders of classes."""
    if not uris.is_below(entry.uri, root):
        raise InputError(f"expected a folder of class folders or a manifest ({', '.join(MANIFESTS)}), got {told}: labels come "
                         "from folders, so name the one above them, or save the labels as CSV in UTF-8")  # fmt: skip
    *folders, name = uris.relative(entry.uri, root).split("/")
    split = split_of(folders[0]) if folders else None
    depth = 2 if split else 1
    if len(folders) >= depth:
        _check_utf8(entry, folders[depth - 1])
        return _Placed(entry, split, tuple(folders[:depth]), tuple(folders[depth:]))
    if is_document(name):
        return None
    raise InputError(f"a scan, {name}, stands directly in {uris.join(root, *folders)}: {EXPECTED}; "
                     "move it into the folder of its class, or out of there if it is no scan")  # fmt: skip


def _check_utf8(entry: Entry, label: str) -> None:
    try:
        label.encode()
    except UnicodeEncodeError as err:
        folder = entry.uri.rpartition("/")[0]
        raise InputError(f"the class folder {folder} has a name that is not UTF-8: rename it") from err


def _check_splits(root: str, scans: Sequence[_Placed]) -> None:
    """Raise InputError for folders beside splits, and for what is called like a split where a class is expected."""
    for folder in sorted({scan.above for scan in scans}):
        if looks_like_split(folder[-1]):
            raise InputError(f"the folder {uris.join(root, *folder)} is called like a split, but stands where a class is "
                             f"expected: {_change(folder)}, or list the scans in a manifest")  # fmt: skip
    splits = sorted({scan.above[0] for scan in scans if scan.split})
    beside = sorted({scan.label for scan in scans if not scan.split})
    if splits and beside:
        raise InputError(f"{root} has split folders ({', '.join(splits)}) and class folders side by side: move "
                         f"{uris.join(root, beside[0])} into one of the splits, or out of {root}, or rename it to "
                         f"{SPLIT_NAMES} if it is a split")  # fmt: skip


def _change(folder: Sequence[str]) -> str:
    if len(folder) == 1:
        return f"rename it to {SPLIT_NAMES}, or to its class"
    return "move its folders to where they belong, or rename it to its class"


def _check_more_than_one(root: str, scans: Sequence[_Placed]) -> None:
    """Raise InputError for a single class, naming the folder within that may have been meant."""
    if not scans or len({scan.label for scan in scans}) > 1:
        return
    inner = _inner({(*scan.above, *scan.inside) for scan in scans})
    hint = f"; if the classes are the folders in {uris.join(root, *inner)}, name that one" if inner else ""
    raise InputError(f"expected scans of two classes or more in {root}, found only {scans[0].label}: {EXPECTED}{hint}")


def _inner(folders: set[tuple[str, ...]]) -> list[str]:
    """Return the first folder with several folders or a split in it, outermost first, where one wraps the others."""
    path: list[str] = []
    while all(len(folder) > len(path) for folder in folders):
        names = {folder[len(path)] for folder in folders}
        if len(names) > 1 or (path and split_of(min(names))):
            return path
        path.append(min(names))
    return []


def _check_nested(root: str, scans: Sequence[_Placed]) -> None:
    """Raise InputError for folders inside a class that are called like splits or other classes: a copy of the data, mostly.

    Where classes are numbers, a number inside one is taken for a patient or a series.
    """
    classes = {same_class(scan.label) for scan in scans}
    inside: dict[tuple[str, ...], set[str]] = {}
    for above, folders in {(scan.above, scan.inside) for scan in scans}:
        others = {name for name in classes - {same_class(above[-1])} if not (name.isdigit() and above[-1].isdigit())}
        hits = {
            name for depth, name in enumerate(folders) if same_class(name) in others or _is_nested_split(name, depth)
        }
        if hits:
            inside.setdefault(above, set()).update(hits)
    if inside:
        folder = min(inside)
        hits_shown = ", ".join(sorted(inside[folder])[:4])
        raise InputError(f"the class folder {uris.join(root, *folder)} has folders inside that are called like splits or other "
                         f"classes ({hits_shown}): move it out of {root} if it is a copy of the data, else move or rename those; or "
                         "list the scans in a manifest")  # fmt: skip


def _is_nested_split(name: str, depth: int) -> bool:
    return split_of(name) in (("training", "validation", "test") if depth == 0 else ("training", "test"))


def _check_kinds(root: str, scans: Sequence[_Placed]) -> None:
    """Raise InputError for pictures beside their annotations, and for a class of documents alone."""
    names = {scan.label.casefold(): scan.above for scan in scans}
    images, annotations = _IMAGES & names.keys(), _ANNOTATIONS & names.keys()
    if images and annotations:
        pair = [uris.join(root, *names[min(found)]) for found in (images, annotations)]
        raise InputError(f"{' and '.join(pair)} look like pictures and their annotations, not like classes: {EXPECTED}, or a "
                         "manifest with uri and label")  # fmt: skip
    with_scans = {scan.above for scan in scans if not is_document(scan.entry.uri.rpartition("/")[2])}
    for folder in sorted({scan.above for scan in scans} - with_scans):
        raise InputError(
            f"the class folder {uris.join(root, *folder)} holds documents only, no scan: move it out of {root}"
        )


def _check_none_is_empty(root: str, filled: Iterable[Sequence[str]], covers: Callable[[str], bool]) -> None:
    """Raise InputError for the folder of a class, or of a split, that has no scan in it and is not left out."""
    known = {tuple(folders[:depth]) for folders in filled for depth in (1, 2)}
    for top in uris.folders(root):
        classes = [(top, name) for name in uris.folders(uris.join(root, top))] if split_of(top) else []
        for folder in [(top,), *classes]:
            if folder not in known and covers(uris.join(root, *folder, "scan")):
                raise InputError(f"a label without scans: the folder {uris.join(root, *folder)} has none; "
                                 "add scans or remove the folder")  # fmt: skip
