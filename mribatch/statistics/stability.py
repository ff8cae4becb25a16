"""Compare a model's answers for scans as they are and for the same scans altered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import InputError
from mribatch.statistics.acceptance import balanced_accuracy

__all__ = ["Answers", "Truth", "stability"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a model answers for N scans. referred: whether each is referred to a person; None for a model that refers nothing.

    predicted: (N,) int64, numbers of labels. confidence: (N,) float64. referred: (N,) bool.
    """

    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    referred: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The true classes (N,), the ones that count in balanced accuracy, and the number of the healthy class, if any."""

    classes: NDArray[np.int64]
    counted: Sequence[int]
    healthy: int | None = None


def stability(plain: Answers, altered: Answers, truth: Truth | None = None) -> dict[str, Any]:
    """Return how altered scans change the answers, ready for JSON. Row k of all arguments is the same scan.

    `loss` is the fall of balanced accuracy, `missed` the share of scans of other classes that are called healthy. These are
    None without labels. Raises InputError for no scans or different numbers of them.
    """
    scans = len(plain.predicted)
    if not scans or scans != len(altered.predicted):
        raise InputError(f"expected the same scans twice, got {scans} and {len(altered.predicted)}")
    numbers: dict[str, Any] = {
        "scans": scans,
        "same_answer": float((plain.predicted == altered.predicted).mean()),
        "mean_confidence": float(altered.confidence.mean()),
        "referred": None if altered.referred is None else float(altered.referred.mean()),
    }
    return numbers | _against(truth, plain, altered)


def _against(truth: Truth | None, plain: Answers, altered: Answers) -> dict[str, float | None]:
    if truth is None:
        return {"balanced_accuracy": None, "loss": None, "missed": None}
    before, after = (balanced_accuracy(truth.classes, one.predicted, truth.counted) for one in (plain, altered))
    ill = truth.classes != truth.healthy
    has_ill = truth.healthy is not None and ill.any()
    return {
        "balanced_accuracy": after,
        "loss": None if before is None or after is None else before - after,
        "missed": float((altered.predicted[ill] == truth.healthy).mean()) if has_ill else None,
    }
