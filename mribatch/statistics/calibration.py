"""Fit a temperature to logits, and measure how far confidences are from the shares of right answers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import InputError

__all__ = [
    "ADAPTIVE_BINS",
    "Bin",
    "NoiseFloor",
    "adaptive_calibration_error",
    "brier_score",
    "calibrated",
    "cross_fitted",
    "fit_temperature",
    "negative_log_likelihood",
    "noise_floor",
    "reliability_table",
]

ADAPTIVE_BINS = 15
_BOUNDS = (-3.0, 3.0)  # of the logarithm: temperatures 0.05 to 20
_DECIMALS = 4  # so that the digest does not depend on the last bits

_PRIOR = 0.5  # scans (Jeffreys)

Floats = NDArray[np.floating]


class Bin(NamedTuple):
    """A bin of a reliability table: its number of scans, their mean confidence and their share of right answers."""

    scans: int
    confidence: float
    accuracy: float


class NoiseFloor(NamedTuple):
    """The calibration error that perfectly calibrated confidences would show with as many scans, by chance."""

    mean: float
    high: float  # 95% quantile


def calibrated(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """Return the probabilities, (N, K) float64, of (N, K) logits divided by a temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    # SciPy's softmax, bit for bit; a predictor does without SciPy, and starts earlier
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def negative_log_likelihood(logits: Floats, truth: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Return the mean cross-entropy, in nats, of (N, K) logits at a temperature against (N,) class indexes."""
    from scipy.special import log_softmax

    _check(len(logits), len(truth))
    shares = log_softmax(np.asarray(logits, np.float64) / temperature, axis=1)
    return float(-shares[np.arange(len(truth)), truth].mean())


def fit_temperature(logits: Floats, truth: NDArray[np.int64]) -> float:
    """Return the temperature with the lowest negative log-likelihood, rounded to four decimals.

    Half a scan of unknown class is counted, too, at the mean of all scans: without it, scans without a mistake would have
    the temperature 0. logits: (N, K); truth: (N,) class indexes. Raises InputError for no scans, or scans of one class. Guo, Pleiss, Sun,
    Weinberger: On Calibration of Modern Neural Networks, ICML 2017.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    _check(len(logits), len(truth))
    if len(np.unique(truth)) < 2:
        raise InputError("expected scans of two or more classes to calibrate on, got one: add scans of the others")

    def loss(log: float) -> float:
        shares = log_softmax(np.asarray(logits, np.float64) / np.exp(log), axis=1)
        return float(-shares[np.arange(len(truth)), truth].sum() - _PRIOR * shares.mean())

    best = minimize_scalar(loss, bounds=_BOUNDS, method="bounded")
    return round(float(np.exp(best.x)), _DECIMALS)


def cross_fitted(logits: Floats, truth: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return probabilities, (N, K), of which each half is calibrated with the temperature of the other half.

    groups: (N,) numbers; scans of one group are in one half. Raises InputError for a half of one class.
    """
    odd = np.unique(groups, return_inverse=True)[1] % 2 == 1
    shares = np.empty(logits.shape, np.float64)
    for half in (odd, ~odd):
        shares[half] = calibrated(logits[half], fit_temperature(logits[~half], truth[~half]))
    return shares


def reliability_table(confidence: Floats, correct: NDArray[np.bool_], bins: int = ADAPTIVE_BINS) -> list[Bin]:
    """Return bins of equally many scans, of rising confidence. confidence: (N,) in 0…1; correct: (N,) bool."""
    _check(len(confidence), len(correct))
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return [Bin(len(part), float(confidence[part].mean()), float(correct[part].mean())) for part in parts]


def adaptive_calibration_error(confidence: Floats, correct: NDArray[np.bool_], bins: int = ADAPTIVE_BINS) -> float:
    """Return the mean of |accuracy - confidence| over bins of equally many scans; 0…1, 0 is best.

    confidence, correct: as for `reliability_table`. Nixon, Dusenberry, Zhang, Jerfel, Tran: Measuring Calibration in Deep
    Learning, CVPR Workshops 2019.
    """
    table = reliability_table(confidence, correct, bins)
    return sum(part.scans * abs(part.accuracy - part.confidence) for part in table) / len(confidence)


def noise_floor(confidence: Floats, bins: int = ADAPTIVE_BINS, *, draws: int = 1000, seed: int = 0) -> NoiseFloor:
    """Return the adaptive calibration error of answers that are right as often as their confidence says, by bootstrap."""
    rng = np.random.default_rng(seed)
    drawn = (rng.random(len(confidence)) < confidence for _ in range(draws))
    errors = [adaptive_calibration_error(confidence, correct, bins) for correct in drawn]
    return NoiseFloor(float(np.mean(errors)), float(np.quantile(errors, 0.95)))


def brier_score(probabilities: Floats, truth: NDArray[np.int64]) -> float:
    """Return the mean squared distance of (N, K) probabilities from the truth, summed over classes; 0…2, 0 is best."""
    _check(len(probabilities), len(truth))
    return float(np.square(probabilities - np.eye(probabilities.shape[1])[truth]).sum(axis=1).mean())


def _check(scans: int, answers: int) -> None:
    if not scans or scans != answers:
        raise InputError(f"expected one answer per scan, and scans, got {scans} scans and {answers} answers")
