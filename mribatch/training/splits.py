"""Which scans train, validate and test. By content and patient: copies never stand on two sides. Pure."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mribatch.errors import InputError

__all__ = ["Holdout", "Split", "by_content", "conflicts", "content_groups", "holdout", "of_paper"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Row numbers of a surveyed table, per side, sorted. `set_aside` counts copies left out of a side."""

    train: list[int]
    validation: list[int]
    test: list[int]
    set_aside: int


def by_content(table: pa.Table, *, validation_fraction: float, seed: int) -> Split:
    """Split a table with the columns label, split, patient_id and pixels_sha256.

    Scans that share pixels or a patient are one group, and no group stands on two sides. Where the data names a test
    (or validation) split, its scans stay there, except those whose group also stands on an earlier side (training,
    then validation): these are set aside. Where it names no validation split, whole groups of training scans are drawn
    for it, class by class, by their hashes and the seed: names and order play no part, and when scans are added few
    others change sides. Raises InputError where a class would have no training or no validation scan.
    """
    groups = content_groups(table)
    labels, named = table["label"].to_pylist(), table["split"].to_pylist()
    drawn = set() if "validation" in named else _drawn(table, groups, validation_fraction, seed)
    training = _of_split(groups, named, "training") | _of_split(groups, named, None)
    taken = {"validation": training, "test": training | _of_split(groups, named, "validation")}
    sides: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    aside = 0
    for row, (group, split) in enumerate(zip(groups, named, strict=True)):
        if split not in ("test", "validation"):
            sides["validation" if group in drawn else "train"].append(row)
        elif group in taken[split]:
            aside += 1
        else:
            sides[split].append(row)
    split_rows = Split(**sides, set_aside=aside)
    _check_classes(split_rows, labels)
    return split_rows


def of_paper(table: pa.Table, *, seed: int) -> Split:
    """The paper's own split: Training trains, Testing is halved into validation and test, stratified; copies stay."""
    named = table["split"].to_pylist()
    if not {"training", "test"} <= set(named):
        raise InputError("the paper's protocol needs ROOT/Training/<class>/… and ROOT/Testing/<class>/…: "
                         "leave --paper-protocol out for other data")  # fmt: skip
    others = sum(split not in ("training", "test") for split in named)
    if others:
        raise InputError(f"the paper's protocol knows training and test scans only, but {others} scans are of another split or "
                         "of none: leave --paper-protocol out, or remove them")  # fmt: skip
    labels = table["label"].to_pylist()
    train = [row for row, split in enumerate(named) if split == "training"]
    validation: list[int] = []
    rng = np.random.default_rng(seed)
    testing = [row for row, split in enumerate(named) if split == "test"]
    for label in sorted(set(labels)):
        rows = [row for row in testing if labels[row] == label]
        validation += sorted(rng.permutation(rows)[: len(rows) // 2].tolist())
    test = sorted(set(testing) - set(validation))
    split = Split(train=train, validation=sorted(validation), test=test, set_aside=0)
    _check_classes(split, labels)
    return split


class Holdout(NamedTuple):
    """Row numbers of a surveyed table on both sides, sorted."""

    train: list[int]
    test: list[int]


def holdout(table: pa.Table, *, test_fraction: float, seed: int, copies_straddle: bool = False) -> Holdout:
    """Hold a share of each class out, as `by_content` draws validation scans; the splits of the data are not used.

    copies_straddle draws scan by scan instead, as is often published. Raises InputError where a class has no scan on
    one of the sides.
    """
    labels = table["label"].to_pylist()
    if copies_straddle:
        test = {row for label in sorted(set(labels)) for row in _drawn_plainly(labels, label, test_fraction, seed)}
    else:
        unsplit = table.set_column(table.schema.get_field_index("split"), "split", pa.nulls(len(labels), pa.string()))
        groups = content_groups(table)
        drawn = _drawn(unsplit, groups, test_fraction, seed)
        test = {row for row, group in enumerate(groups) if group in drawn}
    sides = Holdout([row for row in range(len(labels)) if row not in test], sorted(test))
    for name, rows in sides._asdict().items():
        _check_side(name, {labels[row] for row in rows}, labels)
    return sides


def _drawn_plainly(labels: Sequence[str], label: str, fraction: float, seed: int) -> list[int]:
    rows = [row for row, each in enumerate(labels) if each == label]
    drawn: list[int] = (
        np.random.default_rng([seed, len(rows)]).permutation(rows)[: max(1, round(len(rows) * fraction))].tolist()
    )
    return drawn


def _of_split(groups: Sequence[int], named: Sequence[str | None], wanted: str | None) -> set[int]:
    return {group for group, split in zip(groups, named, strict=True) if split == wanted}


def content_groups(table: pa.Table) -> list[int]:
    """A group number per row: rows joined by equal pixels or an equal patient, directly or through others."""
    parent = list(range(table.num_rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column in ("pixels_sha256", "patient_id"):
        first: dict[str, int] = {}
        for row, value in enumerate(table[column].to_pylist()):
            if value is not None:
                parent[root(row)] = root(first.setdefault(value, row))
    return [root(row) for row in range(table.num_rows)]


def _drawn(table: pa.Table, groups: Sequence[int], fraction: float, seed: int) -> set[int]:
    """The groups for validation: of each class, those with the lowest hashes that fit into its share."""
    labels, content = table["label"].to_pylist(), table["pixels_sha256"].to_pylist()
    rows = [row for row, split in enumerate(table["split"].to_pylist()) if split != "test"]
    size = Counter(groups[row] for row in rows)
    name: dict[int, str] = {}
    for row in rows:
        name[groups[row]] = min(content[row], name.get(groups[row], content[row]))
    drawn: set[int] = set()
    for label in sorted({labels[row] for row in rows}):
        own = {groups[row] for row in rows if labels[row] == label}
        ranked = sorted(own, key=lambda group: _rank(name[group], seed))
        wanted, got = max(1, round(sum(size[group] for group in own) * fraction)), 0
        for group in ranked:
            if got + size[group] <= wanted:
                drawn.add(group)
                got += size[group]
        if not got:  # all are larger than the share: the smallest comes nearest
            drawn.add(min(ranked, key=size.__getitem__))
    return drawn


def _rank(content: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{content}".encode()).hexdigest()


def _check_classes(split: Split, labels: Sequence[str]) -> None:
    for side in ("train", "validation"):
        rows: list[int] = getattr(split, side)
        _check_side(side, {labels[row] for row in rows}, labels)


def _check_side(side: str, there: set[str], labels: Sequence[str]) -> None:
    absent = sorted(set(labels) - there)
    if absent:
        raise InputError(f"no scans of {', '.join(absent)} are left for {side}: each class needs several different "
                         "scans (copies count once); add scans or remove the class")  # fmt: skip


def conflicts(table: pa.Table) -> int:
    """How many different images carry more than one label."""
    pairs = table.group_by("pixels_sha256").aggregate([("label", "count_distinct")])
    return int(pc.sum(pc.greater(pairs["label_count_distinct"], 1)).as_py() or 0)
