"""Altered scans: the same alteration for the same seed, stronger with its strength, and no wider than a scan."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mribatch.scans.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from tests.pictures import head


@pytest.fixture(scope="module")
def scan() -> NDArray[np.uint8]:
    return np.asarray(head(1).convert("RGB").resize((96, 96)))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_alteration_can_be_repeated_and_grows_with_its_strength(scan: NDArray[np.uint8], kind: str) -> None:
    before = scan.copy()
    altered = [corrupted(scan, kind, strength, seed=7) for strength in STRENGTHS]
    np.testing.assert_array_equal(scan, before)
    changes = [float(np.abs(one.astype(float) - scan).mean()) for one in altered]
    assert 0 < changes[0] < changes[1] < changes[2]
    for strength, one in zip(STRENGTHS, altered, strict=True):
        assert (one.shape, one.dtype) == (scan.shape, np.uint8)
        np.testing.assert_array_equal(one, corrupted(scan, kind, strength, seed=7))
        assert (one[..., 0] == one[..., 1]).mean() > 0.9, "grey stays grey, up to the rounding of JPEG"


def test_noise_is_rician_so_the_dark_background_becomes_brighter_on_average(scan: NDArray[np.uint8]) -> None:
    dark = np.zeros_like(scan)
    noisy = corrupted(dark, "noise", 3, seed=1)
    sigma = 255 * CORRUPTIONS["noise"].values[2]
    assert noisy.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.03), "the mean of a Rayleigh distribution"
    assert (noisy != corrupted(dark, "noise", 3, seed=2)).any()


def test_less_contrast_keeps_the_mean_and_shrinks_the_spread(scan: NDArray[np.uint8]) -> None:
    flat = corrupted(scan, "contrast", 3, seed=0)
    assert flat.mean() == pytest.approx(scan.mean(), abs=0.5)
    assert flat.std() == pytest.approx(0.4 * scan.std(), rel=0.02)
