"""Measure how far an evaluation's confidences can be believed, and what its referrals catch."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch.models.format import Model
from mribatch.schema import Referral
from mribatch.statistics import calibration
from mribatch.statistics.metrics import Scores

__all__ = ["trust_numbers"]


def trust_numbers(scores: Scores, rows: pa.Table, model: Model) -> dict[str, Any]:
    """Return the numbers `calibration` and `referral` (None for a model without) as JSON. rows: the scans of `scores`."""
    confidence = scores.probabilities.max(axis=1)
    measured = _calibration(scores.probabilities, scores.truth)
    return {
        "calibration": {
            "temperature": model.temperature,
            **measured,
            "before": None if model.temperature is None else _calibration(_uncalibrated(scores, model), scores.truth),
            "noise_floor": calibration.noise_floor(confidence)._asdict(),
            "reliability": [part._asdict() for part in calibration.reliability_table(confidence, scores.correct)],
        },
        "referral": _referral(scores, rows) if model.has_referral else None,
    }


def _calibration(shares: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, float]:
    correct = shares.argmax(axis=1) == truth
    return {
        "adaptive_calibration_error": calibration.adaptive_calibration_error(shares.max(axis=1), correct),
        "brier": calibration.brier_score(shares, truth),
    }


def _uncalibrated(scores: Scores, model: Model) -> NDArray[np.float64]:
    """Return the probabilities at temperature 1, up to the rounding of those in the rows."""
    logits = np.log(scores.probabilities.clip(np.finfo(np.float32).tiny))
    return calibration.calibrated(logits, 1 / (model.temperature or 1.0))


def _referral(scores: Scores, rows: pa.Table) -> dict[str, Any]:
    review = np.asarray(pc.equal(rows["referral"], Referral.REVIEW).fill_null(False).to_pylist(), bool)
    wrong = ~scores.correct
    reasons = rows["referral_reason"].drop_null().value_counts().to_pylist()
    return {
        "review": int(review.sum()),
        "share": float(review.mean()),
        "by_reason": {count["values"]: count["counts"] for count in reasons},
        "wrong": int(wrong.sum()),
        "wrong_in_review": int((wrong & review).sum()),
        "accuracy_of_auto": float(scores.correct[~review].mean()) if (~review).any() else None,
    }
