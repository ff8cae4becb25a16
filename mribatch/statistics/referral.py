"""Decide which scans a person should look at, from the features and the confidence of a network.

Three scores, each with a threshold of its own: a quantile of validation scans, chosen for a total share of referrals.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import InputError

__all__ = ["REASONS", "Detector", "Features", "Reason", "Verdicts", "detector", "fit_detector", "with_thresholds"]

_COMPONENTS = 160  # principal components of the intermediate layer; head CTs among the scans take up the first ones
_NEIGHBOURS = 320  # training scans that are kept; 128 half-precision numbers each take 80 KB
_NEAREST = 3  # the distance to the third one does not hang on a single odd scan
_SHARES = np.array([4.0, 1.0, 1.0])  # of the referrals; a picture that is no scan of the brain is the worst to believe
_STEPS = 60  # of the bisection
_ROUNDING = 1.001  # so that a scan whose score is the threshold stays below it in any batch and on any machine

Floats = NDArray[np.floating]


class Reason(StrEnum):
    FOREIGN = "foreign"  # does not look like a scan of the training set's kind
    UNLIKE_TRAINING = "unlike_training"  # no training scan is near it
    UNSURE = "unsure"  # no class is probable enough


REASONS = (Reason.FOREIGN, Reason.UNLIKE_TRAINING, Reason.UNSURE)
"""The reason that each column of `Detector.scores` stands for."""


class Features(NamedTuple):
    """What a network computes on its way to N answers: (N, D) of an intermediate layer, (N, P) of the last hidden one."""

    intermediate: NDArray[np.float32]
    penultimate: NDArray[np.float32]


class Verdicts(NamedTuple):
    """Arrays of N: the distance from training scans (above 1: for review), and a Reason or None for each scan."""

    ood_score: NDArray[np.float32]
    reasons: NDArray[np.object_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """The arrays that decide. Half precision where it changes no score by more than a thousandth.

    center, scale: (D,) float32; components: (K, D) float16; neighbours: (M, P) float16 of length 1.
    thresholds: (3,) float64, in the order of REASONS.
    """

    center: Floats
    scale: Floats
    components: Floats
    neighbours: Floats
    thresholds: Floats

    def arrays(self) -> dict[str, Floats]:
        """Return the arrays by name, to be stored."""
        return asdict(self)

    def scores(self, features: Features, confidence: Floats) -> NDArray[np.float64]:
        """Return (N, 3): larger is stranger, 0 or more. confidence: (N,), calibrated."""
        standard = (features.intermediate.astype(np.float64) - self.center) / self.scale
        parts = self.components.astype(np.float64)
        residual = np.sqrt(np.square(standard - standard @ parts.T @ parts).mean(axis=1))
        near = _unit_rows(features.penultimate.astype(np.float64)) @ self.neighbours.astype(np.float64).T
        distance = 1 - np.sort(near, axis=1)[:, -min(_NEAREST, near.shape[1])]
        return np.stack([residual, distance.clip(0), 1 - np.asarray(confidence, np.float64)], axis=1)

    def verdicts(self, features: Features, confidence: Floats) -> Verdicts:
        """Return what is to be done with N scans; the first of REASONS that applies is given."""
        ratios = self.scores(features, confidence) / self.thresholds
        over = ratios > 1
        first = np.array([*REASONS, None], object)[np.where(over.any(axis=1), over.argmax(axis=1), len(REASONS))]
        return Verdicts(ratios[:, :-1].max(axis=1).astype(np.float32), first)


def detector(arrays: Mapping[str, Any]) -> Detector:
    """Return the detector of stored arrays. Raises InputError for arrays that are missing, or not numbers."""
    names = list(Detector.__dataclass_fields__)
    lacking = [name for name in names if name not in arrays or arrays[name].dtype.kind != "f"]
    if lacking:
        raise InputError(
            f"expected the arrays {', '.join(names)} of a referral, {', '.join(lacking)} are missing or not floats"
        )
    return Detector(**{name: arrays[name] for name in names})


def fit_detector(reference: Features, seed: int = 0) -> Detector:
    """Return a detector, without thresholds, of training scans.

    reference: of N training scans. Raises InputError for fewer than 20 training scans.
    """
    if len(reference.intermediate) < 20:
        raise InputError(
            f"expected 20 or more training scans to compare with, got {len(reference.intermediate)}: add some"
        )
    from sklearn.decomposition import PCA  # a predictor does without, and a second earlier

    center, scale = _center_and_scale(reference.intermediate)
    standard = (reference.intermediate - center) / scale
    count = min(_COMPONENTS, len(standard) // 4, standard.shape[1] - 1)  # more would describe single scans
    components = PCA(count, random_state=seed).fit(standard).components_
    kept = np.random.default_rng(seed).permutation(len(standard))[:_NEIGHBOURS]
    return Detector(
        center=center,
        scale=scale,
        components=components.astype(np.float16),
        neighbours=_unit_rows(reference.penultimate[kept]).astype(np.float16),
        thresholds=np.full(len(REASONS), np.inf),
    )


def with_thresholds(fitted: Detector, features: Features, confidence: Floats, share: float) -> Detector:
    """Return the detector with thresholds that refer at most this share of these validation scans.

    Each score refers a part of them, the foreign one four times as many as each other. Raises InputError for a share outside
    0…1.
    """
    if not 0 < share < 1:
        raise InputError(f"expected a share of referrals between 0 and 1, got {share}")
    scores = fitted.scores(features, confidence)
    low, high = 0.0, share / _SHARES.max()
    for _ in range(_STEPS):
        middle = (low + high) / 2
        referred = (scores > _quantiles(scores, 1 - middle * _SHARES)).any(axis=1).mean()
        low, high = (low, middle) if referred > share else (middle, high)
    thresholds = _quantiles(scores, 1 - low * _SHARES)
    return replace(fitted, thresholds=np.maximum(thresholds * _ROUNDING, np.finfo(np.float32).tiny))


def _quantiles(scores: Floats, levels: Floats) -> Floats:
    """Return a quantile of each column, (3,)."""
    columns = [np.quantile(column, level, method="higher") for column, level in zip(scores.T, levels, strict=True)]
    return np.asarray(columns, np.float64)


def _center_and_scale(values: Floats) -> tuple[Floats, Floats]:
    spread = values.std(axis=0)
    typical = float(np.median(spread[spread > 0])) if (spread > 0).any() else 1.0
    floor = 0.1 * typical  # an almost constant number must not outweigh all others
    return values.mean(axis=0).astype(np.float32), np.maximum(spread, floor).astype(np.float32)


def _unit_rows(vectors: Floats) -> Floats:
    """Return (N, D) vectors with length 1; those of length 0 stay as they are."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return vectors / np.where(lengths == 0, 1, lengths)[:, np.newaxis]
