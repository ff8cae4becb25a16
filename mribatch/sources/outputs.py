"""Which files of a listing this package has written, by the marks of its own folders. Pure: paths in, answers out.

An output may lie inside the scans, be reached through a link, or be left there by an earlier run: its parts, reports and
pictures are no scans. Only files that the commands write are recognized, never everything in a folder where scans may be
too. Not for use outside this folder.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Outputs"]

_RUN = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"


class _Whole(NamedTuple):
    """A folder that is ours with all it holds: what it is called, and what a file must be called that is directly in it.
    mark: what it says of the folder that holds it, see `_Kind`."""

    name: re.Pattern[str]
    file: re.Pattern[str]
    mark: str


_FOLDERS = tuple(
    _Whole(re.compile(name, re.DOTALL), re.compile(file, re.DOTALL), mark)
    for name, file, mark in (
        (r"model=.+", r"part-.*\.parquet", "model=/"),
        (r"_runs", rf".+\.lock-[0-9]+|{_RUN}\.(json|night|told)|seen", "_runs/"),
        (r"_promotions", rf"{_RUN}\.json", "_promotions/"),
        (_RUN, r"nightly\.json", "_nights/"),
        (r"checkpoint_.+", r"state\.json|.+\.weights\.h5", "checkpoint_/"),
    )
)


class _Kind(NamedTuple):
    """A folder that holds our files beside others. Two of its marks tell it: files, or folders (they end with a /)."""

    marks: frozenset[str]
    files: re.Pattern[str]


_KINDS = tuple(
    _Kind(frozenset(marks.split()), re.compile(files, re.DOTALL))
    for marks, files in (
        ("metrics.json classification_report.txt report.html predictions/",
         r"metrics\.json|classification_report\.txt|report\.html|(confusion_matrix|roc|reliability|scans|training_curves)\.png"),
        ("model.json weights.h5 classifier.skops MODEL_CARD.md",
         r"model\.json|(weights|backbone)\.h5|classifier\.skops|MODEL_CARD\.md|history\.parquet|curves\.png"),
        ("CURRENT _promotions/ model.json/", r"CURRENT"),
        ("comparison.parquet comparison.md comparison.html comparison.lock/",
         r"comparison\.(parquet|md|html)|accuracy\.png|confusion_.+\.png"),
        ("nightly.json nightly.html", r"nightly\.(json|html)"),
        ("checkpoint_manager_snapshot.json checkpoint_/", r"checkpoint_manager_snapshot\.json"),
    )
)  # fmt: skip
_OF_A_COMPARISON = _Kind(frozenset(("answers", "work")), re.compile(r".+-[0-9]+\.parquet", re.DOTALL))
_MARKS = frozenset().union(*(kind.marks for kind in _KINDS))


class Outputs:
    """What the files of a listing tell of our own outputs among them. Paths have / between names."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._whole: set[str] = set()  # folders that are ours with all they hold
        self._marks: defaultdict[str, set[str]] = defaultdict(set)  # what each folder holds of _MARKS
        self._inside: dict[str, bool] = {}
        self._kinds: dict[str, tuple[_Kind, ...]] = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            if name in _MARKS:
                self._marks[folder].add(name)
                if name == "model.json":
                    self._marks[_parent(folder)].add("model.json/")
            whole = _whole(_name(folder))
            if whole and whole.file.fullmatch(name):
                self._add(folder, name, whole.mark)

    @property
    def folders(self) -> int:
        """How many folders hold our files and do not lie in another one that does."""
        homes = {_home(folder) for folder in self._whole}
        homes.update(folder for folder in list(self._marks) if self._kinds_of(folder))
        return sum(not any(above in homes for above in _above(home)) for home in homes)

    def hold(self, path: str) -> bool:
        """Has this package written the file?"""
        if not self._marks:
            return False  # no output at all, as in most archives
        folder, _, name = path.rpartition("/")
        if folder not in self._kinds:
            self._kinds[folder] = self._kinds_of(folder)
        return self._is_inside(folder) or any(kind.files.fullmatch(name) for kind in self._kinds[folder])

    def _add(self, folder: str, name: str, mark: str) -> None:
        home = _home(folder)
        self._whole.add(folder)
        self._marks[home].add(mark)
        if _name(home) == "predictions":
            self._marks[_parent(home)].add("predictions/")
        if name.startswith("comparison.lock-"):
            self._marks[home].add("comparison.lock/")

    def _kinds_of(self, folder: str) -> tuple[_Kind, ...]:
        marks = self._marks.get(folder, set())
        kinds = tuple(kind for kind in _KINDS if len(marks & kind.marks) >= 2)
        if _name(folder) in _OF_A_COMPARISON.marks and "comparison.lock/" in self._marks.get(_parent(folder), set()):
            kinds += (_OF_A_COMPARISON,)
        return kinds

    def _is_inside(self, folder: str) -> bool:
        if folder not in self._inside:
            self._inside[folder] = folder in self._whole or any(above in self._whole for above in _above(folder))
        return self._inside[folder]


@lru_cache(maxsize=1024)
def _whole(folder_name: str) -> _Whole | None:
    return next((whole for whole in _FOLDERS if whole.name.fullmatch(folder_name)), None)


def _home(folder: str) -> str:
    """The output that a folder of ours belongs to."""
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
