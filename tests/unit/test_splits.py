"""Splits: no image and no patient is on two sides, and only content and seed decide."""

import random
from collections.abc import Sequence

import pyarrow as pa
import pytest

from mribatch.errors import InputError
from mribatch.training import splits
from mribatch.training.splits import TrainingSplit

Row = tuple[str, str | None, str | None, str]  # label, split, patient_id, pixels_sha256


def table(rows: Sequence[Row]) -> pa.Table:
    names = ("label", "split", "patient_id", "pixels_sha256")
    return pa.table({name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate(names)})


def distinct(label: str, count: int, split: str | None = None) -> list[Row]:
    return [(label, split, None, f"{label}-{split}-{number}") for number in range(count)]


def by_content(rows: Sequence[Row], fraction: float = 0.1, seed: int = 0) -> TrainingSplit:
    return splits.by_content(table(rows), validation_fraction=fraction, seed=seed)


def contents(rows: Sequence[Row], numbers: Sequence[int]) -> set[str]:
    return {rows[number][3] for number in numbers}


PLAIN = distinct("a", 100) + distinct("b", 60)


def test_every_class_gives_its_share_to_validation_and_every_scan_has_one_side() -> None:
    split = by_content(PLAIN)
    assert sorted(split.train + split.validation) == list(range(160))
    assert [PLAIN[row][0] for row in split.validation].count("a") == 10
    assert [PLAIN[row][0] for row in split.validation].count("b") == 6
    assert (split.test, split.set_aside) == ([], 0)


def test_the_seed_matters_and_the_order_does_not() -> None:
    shuffled = random.Random(1).sample(PLAIN, len(PLAIN))
    first = contents(PLAIN, by_content(PLAIN).validation)
    assert contents(shuffled, by_content(shuffled).validation) == first
    assert contents(PLAIN, by_content(PLAIN, seed=1).validation) != first


def test_when_scans_are_added_most_others_keep_their_side() -> None:
    more = PLAIN + [("a", None, None, f"new-{number}") for number in range(10)]
    before, after = contents(PLAIN, by_content(PLAIN).validation), contents(more, by_content(more).validation)
    assert len(before - after) <= 3


def test_copies_of_an_image_are_on_one_side_whatever_their_names_and_labels() -> None:
    rows = (
        PLAIN
        + [("a", None, None, f"a-None-{n}") for n in range(50)]
        + [("a", None, None, f"b-None-{n}") for n in range(9)]
    )
    for seed in range(10):
        split = by_content(rows, seed=seed)
        assert not contents(rows, split.train) & contents(rows, split.validation)


def test_a_patient_is_on_one_side_also_through_a_copy_of_another_patients_scan() -> None:
    rows: list[Row] = [(label, None, f"p{n // 4}", f"{label}{n}") for label in "ab" for n in range(80)]
    rows += [("a", None, "p3", "shared"), ("a", None, "p9", "shared")]
    for seed in range(10):
        split = by_content(rows, seed=seed)
        sides = [{rows[row][2] for row in side} for side in (split.train, split.validation)]
        assert not sides[0] & sides[1]
        assert ("p3" in sides[0]) == ("p9" in sides[0])


def test_scans_without_a_patient_are_not_one_patient() -> None:
    assert len(by_content(PLAIN).validation) == 16


def test_a_named_test_split_stays_except_copies_of_training_scans() -> None:
    rows = (
        distinct("a", 20, "training")
        + distinct("b", 20, "training")
        + distinct("a", 5, "test")
        + distinct("b", 5, "test")
    )
    rows += [("a", "test", None, "a-training-3"), ("b", "test", None, "b-test-0")]
    split = by_content(rows)
    assert split.set_aside == 1
    assert contents(rows, split.test) == {f"{label}-test-{n}" for label in "ab" for n in range(5)}
    assert len(split.test) == 11  # a copy within one side may stay
    assert not contents(rows, split.test) & contents(rows, split.train + split.validation)


def test_a_test_scan_of_a_training_patient_is_set_aside() -> None:
    rows: list[Row] = [*PLAIN, ("a", None, "p1", "x"), ("a", "test", "p1", "y"), ("a", "test", "p2", "z")]
    split = by_content(rows)
    assert (contents(rows, split.test), split.set_aside) == ({"z"}, 1)


def test_a_named_validation_split_stays_and_no_other_is_drawn() -> None:
    rows = distinct("a", 20) + distinct("b", 20) + distinct("a", 4, "validation") + distinct("b", 4, "validation")
    rows += [("a", "validation", None, "a-None-0")]
    split = by_content(rows)
    assert len(split.train) == 40
    assert contents(rows, split.validation) == {f"{label}-validation-{n}" for label in "ab" for n in range(4)}
    assert split.set_aside == 1


def test_no_image_is_in_both_named_validation_and_named_test() -> None:
    rows = distinct("a", 20) + distinct("b", 20) + distinct("a", 4, "validation") + distinct("b", 4, "validation")
    rows += [*distinct("a", 3, "test"), ("a", "test", None, "a-validation-2")]
    split = by_content(rows)
    assert not contents(rows, split.validation) & contents(rows, split.test)
    assert (len(split.validation), len(split.test), split.set_aside) == (8, 3, 1)


def test_a_large_patient_does_not_use_up_the_share() -> None:
    rows: list[Row] = [("a", None, "large", f"l{n}") for n in range(50)] + distinct("a", 50) + distinct("b", 100)
    for seed in range(10):
        assert len(by_content(rows, seed=seed).validation) == 20


def test_if_all_patients_are_larger_than_the_share_the_smallest_is_drawn() -> None:
    rows: list[Row] = [("a", None, f"p{n % 3 if n < 27 else n % 2}", f"x{n}") for n in range(30)] + distinct("b", 30)
    for seed in range(10):
        split = by_content(rows, seed=seed)
        assert {rows[row][2] for row in split.validation if rows[row][0] == "a"} == {"p2"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_class_with_too_few_different_scans_is_named(count: int) -> None:
    copies: list[Row] = [("few", None, None, "same")] * 5 + distinct("few", count - 1)
    if count == 1:
        with pytest.raises(InputError, match="no scans of few are left for train"):
            by_content(PLAIN + copies)
    else:
        assert by_content(PLAIN + copies).validation


def test_a_class_that_only_the_test_split_has_is_named() -> None:
    with pytest.raises(InputError, match="no scans of c are left for train"):
        by_content(PLAIN + distinct("c", 5, "test"))


PAPER = [
    *distinct("a", 10, "training"),
    *distinct("b", 10, "training"),
    *distinct("a", 6, "test"),
    *distinct("b", 9, "test"),
]


def test_the_papers_protocol_halves_testing_class_by_class_and_keeps_copies() -> None:
    rows = [*PAPER, ("a", "test", None, "a-training-0"), ("a", "test", None, "a-training-1")]
    split = splits.of_paper(table(rows), seed=0)
    assert split.train == list(range(20))
    assert sorted(split.validation + split.test) == list(range(20, 37))
    labels = [rows[row][0] for row in split.validation]
    assert (labels.count("a"), labels.count("b"), split.set_aside) == (4, 4, 0)
    assert splits.of_paper(table(rows), seed=0) == split
    assert splits.of_paper(table(rows), seed=1) != split


def test_the_papers_protocol_needs_both_folders() -> None:
    for rows in (PLAIN, distinct("a", 9, "training") + distinct("b", 9, "training")):
        with pytest.raises(InputError, match="paper-protocol"):
            splits.of_paper(table(rows), seed=0)


@pytest.mark.parametrize("split", ["validation", None])
def test_the_papers_protocol_drops_no_scan_of_another_split(split: str | None) -> None:
    with pytest.raises(InputError, match="3 scans are of another split or of none: leave --paper-protocol out"):
        splits.of_paper(table([*PAPER, *distinct("a", 3, split)]), seed=0)


def test_conflicts_counts_images_with_more_than_one_label() -> None:
    rows = [*PLAIN, ("b", None, None, "a-None-1"), ("b", None, None, "a-None-2"), ("a", None, None, "a-None-3")]
    assert splits.conflicts(table(PLAIN)) == 0
    assert splits.conflicts(table(rows)) == 2


def test_a_holdout_takes_a_share_of_each_class_and_no_copy_of_a_training_scan() -> None:
    rows = PLAIN + [("a", "test", None, f"a-None-{n}") for n in range(50)]
    sides = splits.holdout(table(rows), test_fraction=0.2, seed=0)
    assert sorted(sides.train + sides.test) == list(range(210)), "the data's own splits are not used"
    assert not contents(rows, sides.train) & contents(rows, sides.test)
    assert [rows[row][0] for row in sides.test].count("b") == 12
    assert 25 <= [rows[row][0] for row in sides.test].count("a") <= 31
    assert sides != splits.holdout(table(rows), test_fraction=0.2, seed=1)


def test_a_holdout_as_published_is_drawn_scan_by_scan_copies_and_all() -> None:
    rows = PLAIN + [("a", None, None, f"a-None-{n}") for n in range(50)]
    sides = splits.holdout(table(rows), test_fraction=0.2, seed=0, copies_straddle=True)
    assert sorted(sides.train + sides.test) == list(range(210))
    assert [rows[row][0] for row in sides.test].count("a") == 30
    assert contents(rows, sides.train) & contents(rows, sides.test)


@pytest.mark.parametrize("straddle", [False, True])
def test_a_class_of_three_scans_is_on_both_sides_and_a_class_of_one_is_refused(straddle: bool) -> None:
    few = PLAIN + distinct("c", 3)
    sides = splits.holdout(table(few), test_fraction=0.2, seed=0, copies_straddle=straddle)
    assert [few[row][0] for row in sides.test].count("c") == 1
    with pytest.raises(InputError, match="no scans of c are left for train"):
        splits.holdout(table(PLAIN + distinct("c", 1)), test_fraction=0.2, seed=0, copies_straddle=straddle)
