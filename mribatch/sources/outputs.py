"""Recognize the files of a listing that this package has written, by the marks of its folders. Pure: works on paths.

An output may lie among the scans, because it was written there, is linked from there, or remains from an earlier run.
Its parts, reports and images are not scans. Only files that commands write are recognized, and never everything in a
folder that may also contain scans.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

__all__ = ["OwnOutputs"]

_RUN = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"


class _OwnFolder(NamedTuple):
    """A folder whose whole content is ours, if it has this name and a file of this name directly in it."""

    name: re.Pattern[str]
    file: re.Pattern[str]
    mark: str  # of the folder above it, see `_Kind`


_OWN_FOLDERS = tuple(
    _OwnFolder(re.compile(name, re.DOTALL), re.compile(file, re.DOTALL), mark)
    for name, file, mark in (
        (r"model=.+", r"part-.*\.parquet", "model=/"),
        (r"_runs", rf".+\.lock-[0-9]+|{_RUN}\.(json|night|told)|seen", "_runs/"),
        (r"_series", r"series\.parquet", "_series/"),
        (r"_studies", r"studies\.parquet", "_studies/"),
        (r"_promotions", rf"{_RUN}\.json", "_promotions/"),
        (_RUN, r"nightly\.json", "_nights/"),
        (r"checkpoint_.+", r"state\.json|.+\.weights\.h5", "checkpoint_/"),
    )
)


class _Kind(NamedTuple):
    """A folder with our files among others.

    Two of its marks, or the only one, identify it: names of files, or of folders (with a /).
    """

    marks: frozenset[str]
    files: re.Pattern[str]


_FIGURES = r"(confusion_matrix|precision_recall|roc|reliability|scans|training_curves)\.png"
_KINDS = tuple(
    _Kind(frozenset(marks.split()), re.compile(files, re.DOTALL))
    for marks, files in {
        "metrics.json classification_report.txt report.html patients.json patients.html predictions/": (
            rf"metrics\.json|patients\.(json|html)|clusters\.parquet|classification_report\.txt|report\.html|{_FIGURES}"
        ),
        "model.json weights.h5 classifier.skops MODEL_CARD.md": (
            r"model\.json|(weights|backbone)\.h5|classifier\.skops|referral\.npz|MODEL_CARD\.md|curves\.png|"
            r"(history|training_scans)\.parquet"
        ),
        "CURRENT _promotions/ model.json/": r"CURRENT",
        "comparison.parquet comparison.md comparison.html comparison.lock/": (
            r"comparison\.(parquet|md|html)|clusters\.parquet|accuracy\.png|confusion_.+\.png"
        ),
        "audit.json audit.html pairs.parquet suspects.parquet": (
            r"audit\.(json|html)|(pairs|clusters|suspects)\.parquet"
        ),
        "inspection.parquet": r"inspection\.parquet",
        "acceptance.json acceptance.html": r"acceptance\.(json|html)",
        "explanations.html explanations.parquet": r"explanations\.(html|parquet)|overlay-[0-9]{4}\.png",
        "nightly.json nightly.html": r"nightly\.(json|html)",
        "checkpoint_manager_snapshot.json checkpoint_/": r"checkpoint_manager_snapshot\.json|clusters\.parquet",
    }.items()
)
_OF_A_COMPARISON = _Kind(frozenset(("answers", "work")), re.compile(r".+-[0-9]+\.parquet", re.DOTALL))
_MARKS = frozenset().union(*(kind.marks for kind in _KINDS))


class OwnOutputs:
    """Our own outputs among the files of a listing. Paths have / between names."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._own: set[str] = set()  # folders whose whole content is ours
        self._marks: defaultdict[str, set[str]] = defaultdict(set)  # which of _MARKS each folder contains
        self._is_inside: dict[str, bool] = {}
        self._kinds: dict[str, tuple[_Kind, ...]] = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            if name in _MARKS:
                self._marks[folder].add(name)
                if name == "model.json":
                    self._marks[_parent(folder)].add("model.json/")
            own = _own_folder(_name(folder))
            if own and own.file.fullmatch(name):
                self._add(folder, name, own.mark)

    @property
    def folders(self) -> int:
        """The number of folders that contain our files, not counting folders inside them."""
        homes = {_home(folder) for folder in self._own}
        homes.update(folder for folder in list(self._marks) if self._kinds_of(folder))
        return sum(not any(above in homes for above in _above(home)) for home in homes)

    def hold(self, path: str) -> bool:
        """Return whether this package has written the file."""
        if not self._marks:
            return False  # no output at all, as in most archives
        folder, _, name = path.rpartition("/")
        if folder not in self._kinds:
            self._kinds[folder] = self._kinds_of(folder)
            self._is_inside[folder] = folder in self._own or any(above in self._own for above in _above(folder))
        return self._is_inside[folder] or any(kind.files.fullmatch(name) for kind in self._kinds[folder])

    def _add(self, folder: str, name: str, mark: str) -> None:
        home = _home(folder)
        self._own.add(folder)
        self._marks[home].add(mark)
        if _name(home) == "predictions":
            self._marks[_parent(home)].add("predictions/")
        if name.startswith("comparison.lock-"):
            self._marks[home].add("comparison.lock/")

    def _kinds_of(self, folder: str) -> tuple[_Kind, ...]:
        marks = self._marks.get(folder, set())
        kinds = tuple(kind for kind in _KINDS if len(marks & kind.marks) >= min(2, len(kind.marks)))
        if _name(folder) in _OF_A_COMPARISON.marks and "comparison.lock/" in self._marks.get(_parent(folder), set()):
            kinds += (_OF_A_COMPARISON,)
        return kinds


@lru_cache(maxsize=1024)
def _own_folder(name: str) -> _OwnFolder | None:
    return next((folder for folder in _OWN_FOLDERS if folder.name.fullmatch(name)), None)


def _home(folder: str) -> str:
    """Return the output that one of our folders belongs to."""
    above = _parent(folder)
    return _parent(above) if _name(above) == "_nights" else above


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _above(path: str) -> Iterable[str]:
    while path:
        path = _parent(path)
        yield path
