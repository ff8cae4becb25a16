"""Probes find a shortcut that was planted, and nothing in noise; wrong labels that were planted are suspected."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mribatch.statistics import label_errors, shortcuts

SCANS = 300
LABELS = ("glioma", "notumor")


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 200, (SCANS, 64, 64)).astype(np.uint8)


@pytest.fixture(scope="module")
def truth() -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, 2, SCANS)


VIEWS = (shortcuts.small_thumbnails, shortcuts.border_ring, shortcuts.intensities)


@pytest.mark.parametrize("view", VIEWS)
def test_a_probe_tells_nothing_from_noise(view, noise: NDArray[np.uint8], truth: NDArray[np.int64]) -> None:  # type: ignore[no-untyped-def]
    probe = shortcuts.probe("noise", view(noise), truth, LABELS, np.arange(SCANS))
    assert not probe.tells
    assert probe.chance == 0.5


def test_a_brighter_border_is_found_by_the_border_probe_alone(
    noise: NDArray[np.uint8], truth: NDArray[np.int64]
) -> None:
    planted = noise.copy()
    planted[truth == 1, 0, :] += 40
    ring = shortcuts.probe("ring", shortcuts.border_ring(planted), truth, LABELS, np.arange(SCANS))
    assert ring.tells
    assert ring.balanced_accuracy > 0.95
    assert set(ring.recall) == set(LABELS)
    inside = planted[:, 2:-2, 2:-2].repeat(2, axis=1)[:, :64].repeat(2, axis=2)[:, :, :64]
    assert not shortcuts.probe("inside", shortcuts.small_thumbnails(inside), truth, LABELS, np.arange(SCANS)).tells


def test_copies_of_one_scan_count_as_one_and_never_stand_on_both_sides(truth: NDArray[np.int64]) -> None:
    groups = np.arange(SCANS) // 10
    labels = truth[groups]
    names = np.random.default_rng(2).normal(size=(SCANS, 8))[groups]  # tells the group, and so the label, by heart
    probe = shortcuts.probe("by heart", names, labels, LABELS, groups)
    assert not probe.tells
    low, high = probe.interval
    assert high - low > 0.25, "30 groups, not 300 scans"


def test_half_of_as_many_suspects_as_were_flipped_are_flipped(truth: NDArray[np.int64]) -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(SCANS, 10)).astype(np.float32) + 2.0 * truth[:, None]
    flipped = rng.choice(SCANS, 15, replace=False)
    given = truth.copy()
    given[flipped] = 1 - given[flipped]
    probabilities = label_errors.out_of_fold(features, given, 2, np.arange(SCANS))
    suspects = label_errors.suspects(probabilities, given, np.arange(SCANS))
    assert len(set(suspects.rows[:15].tolist()) & set(flipped.tolist())) >= 8
    assert (suspects.other > suspects.own).all()


def test_a_scan_whose_near_copies_are_labelled_otherwise_is_suspect() -> None:
    given, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1])
    undecided = np.full((6, 2), 0.5, np.float32)
    suspects = label_errors.suspects(undecided, given, groups)
    assert suspects.rows.tolist() == [3]
    assert suspects.suggested.tolist() == [0]
    none = label_errors.suspects(np.eye(2, dtype=np.float32)[given], given, np.arange(6))
    assert none.rows.size == 0


def test_thumbnails_become_features_whose_mean_square_length_is_one_for_each_view(noise: NDArray[np.uint8]) -> None:
    features = label_errors.thumbnail_features(noise)
    assert features.shape == (SCANS, 200)
    np.testing.assert_allclose((features**2).sum(axis=1).mean(), 2, rtol=1e-3)
