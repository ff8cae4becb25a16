"""Near copies are found whatever was done to them, and nothing else is; made pictures, no files."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mribatch.errors import InputError
from mribatch.statistics.leakage import LINKED, leaks, two_labels
from mribatch.statistics.near_copies import KINDS, Copies, clusters, near_copies
from mribatch.statistics.thumbnails import aligned
from tests.pictures import ALTERATIONS, head, thumbnail

PATIENTS = 60


def names(count: int) -> list[str]:
    return [f"{number:04d}" for number in range(count)]


def kinds_by_pair(copies: Copies) -> dict[tuple[int, int], str]:
    pairs = zip(copies.first.tolist(), copies.second.tolist(), copies.kind.tolist(), strict=True)
    return {(first, second): KINDS[kind] for first, second, kind in pairs}


@pytest.fixture(scope="module")
def originals() -> list[NDArray[np.uint8]]:
    return [thumbnail(head(patient)) for patient in range(PATIENTS)]


@pytest.fixture(scope="module")
def planted(originals: list[NDArray[np.uint8]]) -> dict[str, Copies]:
    """The near copies among the originals and one altered copy of each, by what was done to the copies."""
    altered = {
        name: [thumbnail(alter(head(patient))) for patient in range(PATIENTS)] for name, alter in ALTERATIONS.items()
    }
    return {name: near_copies(np.stack([*originals, *copies]), names(2 * PATIENTS)) for name, copies in altered.items()}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_a_planted_copy_is_found_and_its_kind_told(planted: dict[str, Copies], name: str) -> None:
    kinds = kinds_by_pair(planted[name])
    expected = "mirrored" if name in ("mirrored", "upside down", "half turn", "cropped and mirrored") else "altered"
    right = sum(kinds.get((patient, PATIENTS + patient)) == expected for patient in range(PATIENTS))
    assert right >= 0.98 * PATIENTS
    unrelated = [pair for pair in kinds if pair[1] - pair[0] != PATIENTS]
    assert unrelated == [], "pictures of two patients are no copies"


def test_made_neighbouring_slices_are_told_from_copies() -> None:
    """The made slices are far apart, and three quarters of them pair with nothing. Real ones are harder to tell."""
    slices = [thumbnail(head(patient, 1.3 * number)) for patient in range(PATIENTS) for number in range(2)]
    kinds = kinds_by_pair(near_copies(np.stack(slices), names(len(slices))))
    assert {second - first for first, second in kinds} == {1}
    assert len(kinds) >= PATIENTS / 4
    assert list(kinds.values()).count("neighbour") >= 0.95 * len(kinds)


def test_equal_pixels_are_copies_and_n_of_them_are_n_minus_1_pairs(originals: list[NDArray[np.uint8]]) -> None:
    pictures = np.stack([originals[0], originals[1], originals[0], originals[0]])
    copies = near_copies(pictures, ["a", "b", "a", "a"])
    assert kinds_by_pair(copies) == {(0, 2): "copy", (0, 3): "copy"}
    assert clusters(4, copies.first, copies.second).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_few_scans_and_black_ones_are_no_trouble(count: int) -> None:
    copies = near_copies(np.zeros((count, 64, 64), np.uint8), names(count))
    assert len(copies.first) == 0, "pictures without anything on them are like nothing"


def test_many_scans_are_searched_by_cells_and_copies_are_found_all_the_same(
    originals: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mribatch.statistics.near_copies.SMALL", 32)
    altered = [thumbnail(ALTERATIONS["cropped and mirrored"](head(patient))) for patient in range(PATIENTS)]
    copies = near_copies(np.stack([*originals, *altered]), names(2 * PATIENTS))
    assert len(kinds_by_pair(copies)) >= 0.98 * PATIENTS


def test_the_same_seed_gives_the_same_pairs_and_a_wrong_shape_is_refused(originals: list[NDArray[np.uint8]]) -> None:
    pictures = np.stack([*originals, *(picture[:, ::-1] for picture in originals)])
    one, other = (near_copies(pictures, names(len(pictures)), seed=3) for _ in range(2))
    assert np.array_equal(one.correlation, other.correlation)
    with pytest.raises(InputError, match="expected 3 thumbnails"):
        near_copies(pictures, names(3))


def pairs(*rows: tuple[int, int, str]) -> Copies:
    first, second, kinds = zip(*rows, strict=True)
    return Copies(
        first=np.array(first, np.int64),
        second=np.array(second, np.int64),
        correlation=np.full(len(rows), 0.95, np.float32),
        orientation=np.zeros(len(rows), np.int8),
        kind=np.array([KINDS.index(kind) for kind in kinds], np.int8),
    )


def test_a_leak_counts_each_scan_once_by_its_closest_training_scan() -> None:
    splits = ["training", None, "test", "test", "test", "test", "validation"]
    contents = ["a", "b", "a", "c", "d", "e", "f"]
    copies = pairs((0, 2, "copy"), (1, 3, "mirrored"), (0, 3, "neighbour"), (3, 4, "altered"))
    test, validation = leaks(splits, contents, clusters(7, copies.first, copies.second), copies)
    assert (test.split, test.scans, test.leaking, test.rows.tolist()) == ("test", 4, 3, [2, 3, 4])
    assert test.by_kind == {"copy": 1, "mirrored": 1, "altered": 0, "neighbour": 0, LINKED: 1}
    assert (validation.split, validation.leaking) == ("validation", 0)
    assert leaks([None] * 7, contents, np.arange(7), copies) == [], "without splits there is nothing to leak"


def test_pairs_under_two_labels_come_with_the_closest_kinds_first() -> None:
    copies = pairs((0, 1, "neighbour"), (1, 2, "copy"), (2, 3, "altered"), (0, 3, "mirrored"))
    assert two_labels(np.array([0, 1, 0, 0]), copies).tolist() == [1, 0]


def test_pairs_that_do_not_even_agree_roughly_are_not_aligned_further() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64)).astype(np.uint8)
    fitted = aligned(noise[0], noise[1], np.zeros(3, np.float32))
    assert (fitted.correlation < 0.5).all()
