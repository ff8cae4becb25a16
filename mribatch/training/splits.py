"""Split labelled scans into training, validation and test sides, so that copies and patients stay on one side."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mribatch.errors import InputError

__all__ = [
    "Holdout",
    "Leak",
    "TrainingSplit",
    "by_content",
    "conflicts",
    "content_groups",
    "holdout",
    "leaks",
    "of_paper",
    "published_leaks",
]


@dataclass(frozen=True, kw_only=True)
class TrainingSplit:
    """Sorted row numbers of a surveyed table, per side. set_aside: number of copies that were left out."""

    train: list[int]
    validation: list[int]
    test: list[int]
    set_aside: int

    def sides(self) -> dict[str, list[int]]:
        """Return the rows of each side, those that are used first at the front."""
        return {"training": self.train, "validation": self.validation, "test": self.test}


def by_content(table: pa.Table, *, validation_fraction: float, seed: int, keep_leaks: bool = False) -> TrainingSplit:
    """Split a table with the columns label, split, patient_id and pixels_sha256 and, optionally, cluster.

    Scans of one group (see `content_groups`) are never on two sides. Scans that the data assigns to a test or validation
    split stay there, unless their group is also on an earlier side (training, then validation): those are set aside.
    keep_leaks: keep them where the data assigns them. If the data names no validation split, groups of training scans are
    drawn for it, class by class, by their hashes and the seed: file names and order do not matter, and adding scans moves
    few others to another side. Raises InputError if a class would have no training or no validation scan.
    """
    groups = content_groups(table)
    labels, assigned = table["label"].to_pylist(), table["split"].to_pylist()
    drawn = set() if "validation" in assigned else _drawn(table, groups, validation_fraction, seed)
    training = _of_split(groups, assigned, "training") | _of_split(groups, assigned, None)
    taken = {"validation": training, "test": training | _of_split(groups, assigned, "validation")}
    sides: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    set_aside = 0
    for row, (group, split) in enumerate(zip(groups, assigned, strict=True)):
        if split not in ("test", "validation"):
            sides["validation" if group in drawn else "train"].append(row)
        elif group in taken[split] and not keep_leaks:
            set_aside += 1
        else:
            sides[split].append(row)
    return _checked(TrainingSplit(**sides, set_aside=set_aside), labels)


def of_paper(table: pa.Table, *, seed: int) -> TrainingSplit:
    """Return the paper's split: Training for training, Testing halved into validation and test, stratified by class.

    Copies stay where they are. Raises InputError for data without the folders Training and Testing, or with others.
    """
    assigned = table["split"].to_pylist()
    if not {"training", "test"} <= set(assigned):
        raise InputError(
            "the paper's protocol needs ROOT/Training/<class>/… and ROOT/Testing/<class>/…: leave --paper-protocol out for "
            "other data"
        )
    others = sum(split not in ("training", "test") for split in assigned)
    if others:
        raise InputError(
            f"the paper's protocol has training and test scans only, but {others} scans are of another split or of none: "
            "leave --paper-protocol out, or remove them"
        )
    labels = table["label"].to_pylist()
    train = [row for row, split in enumerate(assigned) if split == "training"]
    validation: list[int] = []
    rng = np.random.default_rng(seed)
    testing = [row for row, split in enumerate(assigned) if split == "test"]
    for label in sorted(set(labels)):
        rows = [row for row in testing if labels[row] == label]
        validation += sorted(rng.permutation(rows)[: len(rows) // 2].tolist())
    test = sorted(set(testing) - set(validation))
    return _checked(TrainingSplit(train=train, validation=sorted(validation), test=test, set_aside=0), labels)


class Holdout(NamedTuple):
    """Sorted row numbers of a surveyed table, per side."""

    train: list[int]
    test: list[int]


def holdout(table: pa.Table, *, test_fraction: float, seed: int, copies_straddle: bool = False) -> Holdout:
    """Hold out a share of each class, drawn as `by_content` draws validation scans; ignores the splits of the data.

    copies_straddle: draw scan by scan instead, so that copies may be on both sides, as is often published. Raises
    InputError if a class has no scan on one of the sides.
    """
    labels = table["label"].to_pylist()
    if copies_straddle:
        test = set[int]()
        for label in sorted(set(labels)):
            rows = [row for row, own in enumerate(labels) if own == label]
            shuffled = np.random.default_rng([seed, len(rows)]).permutation(rows).tolist()
            test.update(shuffled[: max(1, round(len(rows) * test_fraction))])
    else:
        unsplit = table.set_column(table.schema.get_field_index("split"), "split", pa.nulls(len(labels), pa.string()))
        groups = content_groups(table)
        drawn = _drawn(unsplit, groups, test_fraction, seed)
        test = {row for row, group in enumerate(groups) if group in drawn}
    sides = Holdout([row for row in range(len(labels)) if row not in test], sorted(test))
    for name, rows in sides._asdict().items():
        _check_side(name, rows, labels)
    return sides


def _of_split(groups: Sequence[int], assigned: Sequence[str | None], wanted: str | None) -> set[int]:
    return {group for group, split in zip(groups, assigned, strict=True) if split == wanted}


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Scans of a side whose group is on an earlier side, too, each with one of its group there, by row numbers."""

    side: str
    scans: int
    pairs: list[tuple[int, int]]


def published_leaks(table: pa.Table) -> list[Leak]:
    """Return what leaks between the splits that the data names; scans without a split train."""
    sides: dict[str, list[int]] = {"training": [], "validation": [], "test": []}
    for row, split in enumerate(table["split"].to_pylist()):
        sides[split or "training"].append(row)
    return leaks(content_groups(table), sides)


def leaks(groups: Sequence[int], sides: Mapping[str, Sequence[int]]) -> list[Leak]:
    """Return what leaks into each side from those before it, only sides with leaks. groups: a number for each row."""
    earlier: dict[int, int] = {}
    leaking = []
    for side, rows in sides.items():
        pairs = [(row, earlier[groups[row]]) for row in rows if groups[row] in earlier]
        if pairs:
            leaking.append(Leak(side=side, scans=len(rows), pairs=pairs))
        for row in rows:
            earlier.setdefault(groups[row], row)
    return leaking


_SAME = ("pixels_sha256", "content_sha256", "cluster", "patient_id")
"""Columns in which equal values make two scans one group. Null equals nothing."""


def content_groups(table: pa.Table) -> list[int]:
    """Return a group number per row: rows of the same pixels, bytes, cluster of near copies or patient, also through others.

    Columns that the table lacks are ignored.
    """
    parent = list(range(table.num_rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column in (name for name in _SAME if name in table.column_names):
        first: dict[str | int, int] = {}
        for row, value in enumerate(table[column].to_pylist()):
            if value is not None:
                parent[root(row)] = root(first.setdefault(value, row))
    return [root(row) for row in range(table.num_rows)]


def _drawn(table: pa.Table, groups: Sequence[int], fraction: float, seed: int) -> set[int]:
    """Return the groups to draw: of each class, those with the lowest hashes that fit into its share."""
    labels, content = table["label"].to_pylist(), table["pixels_sha256"].to_pylist()
    rows = [row for row, split in enumerate(table["split"].to_pylist()) if split != "test"]
    size = Counter(groups[row] for row in rows)
    name = {groups[row]: content[row] for row in sorted(rows, key=content.__getitem__, reverse=True)}  # lowest hash
    drawn: set[int] = set()
    for label in sorted({labels[row] for row in rows}):
        own = {groups[row] for row in rows if labels[row] == label}
        ranked = sorted(own, key=lambda group: hashlib.sha256(f"{seed}/{name[group]}".encode()).hexdigest())
        wanted, got = max(1, round(sum(size[group] for group in own) * fraction)), 0
        for group in ranked:
            if got + size[group] <= wanted:
                drawn.add(group)
                got += size[group]
        if not got:  # all groups are larger than the share: the smallest comes closest
            drawn.add(min(ranked, key=size.__getitem__))
    return drawn


def _checked(split: TrainingSplit, labels: Sequence[str]) -> TrainingSplit:
    _check_side("train", split.train, labels)
    _check_side("validation", split.validation, labels)
    return split


def _check_side(side: str, rows: Sequence[int], labels: Sequence[str]) -> None:
    absent = sorted(set(labels) - {labels[row] for row in rows})
    if absent:
        raise InputError(
            f"no scans of {', '.join(absent)} are left for {side}: each class needs several different scans (near "
            "copies, and the scans of a patient, count once); add scans or remove the class"
        )


def conflicts(table: pa.Table) -> int:
    """Return how many different images have more than one label."""
    pairs = table.group_by("pixels_sha256").aggregate([("label", "count_distinct")])
    return int(pc.sum(pc.greater(pairs["label_count_distinct"], 1)).as_py() or 0)
