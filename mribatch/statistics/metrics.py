"""Compute metrics, confidence intervals and significance tests from labels and probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student
from sklearn import metrics as sk

from mribatch.errors import InputError

__all__ = [
    "CALIBRATION_BINS",
    "CalibrationBins",
    "Scores",
    "calibration_bins",
    "classification_report",
    "expected_calibration_error",
    "holm",
    "mcnemar",
    "measure",
    "repeated_interval",
    "wilson_interval",
    "worst_first",
]

LOSS_EPSILON = (
    1e-7  # as in Keras, so that losses compare with those of training; probability 0 of the true class costs 16.1
)
SUM_TOLERANCE = 0.005  # a float16 softmax over a dozen classes stays within it, logits and percentages do not
CALIBRATION_BINS = 15  # Guo et al. 2017, so that the error compares with published ones


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """The probabilities of a model for labelled scans; row i is scan i.

    labels: K distinct class names in the model's order, K ≥ 2.
    truth: (N,) int64, the true class of each scan as an index into `labels`, N ≥ 1.
    probabilities: (N, K) float64 in 0…1, rows sum to 1.

    Raises InputError if these do not match.
    """

    labels: tuple[str, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise InputError(f"expected two or more different class names, got {list(self.labels)}")
        _check_truth(self.truth, len(self.labels))
        _check_probabilities(self.probabilities, (len(self.truth), len(self.labels)))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64, the most probable class; the first of equally probable ones."""
        predicted: NDArray[np.int64] = np.argmax(self.probabilities, axis=1)
        return predicted

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(N,) float64, the probability of the predicted class."""
        confidence: NDArray[np.float64] = np.max(self.probabilities, axis=1)
        return confidence

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) bool, whether the predicted class is the true class."""
        correct: NDArray[np.bool_] = self.predicted == self.truth
        return correct

    @property
    def truth_probability(self) -> NDArray[np.float64]:
        """(N,) float64, the probability of the true class."""
        return self.probabilities[np.arange(len(self.truth)), self.truth]

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K) int64, numbers of scans; rows are true classes, columns predicted classes."""
        counts = np.zeros((len(self.labels), len(self.labels)), np.int64)
        np.add.at(counts, (self.truth, self.predicted), 1)
        return counts


class CalibrationBins(NamedTuple):
    """Scans, mean confidence and accuracy in equal-width bins (a, b] of confidence; means without scans are NaN."""

    scans: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def measure(scores: Scores) -> dict[str, Any]:
    """Return all metrics of an evaluation, ready for JSON: Python types only, and None instead of NaN.

    A ratio without a denominator (the precision of a class never predicted, the recall of a class without scans) is 0
    and counts as 0 in the macro averages. The ROC-AUC of a class with no scans, or with all of them, is None and is left
    out of `roc_auc_macro_ovr`, the unweighted mean of the one-vs-rest areas. `balanced_accuracy` is the mean recall of the
    classes with scans. `loss` is the mean categorical cross-entropy in nats, with probabilities clipped at 1e-7. The rows
    of the confusion matrix are true classes.
    """
    labels, right = scores.labels, int(scores.correct.sum())
    areas = [_roc_auc(scores, k) for k in range(len(labels))]
    defined = [area for area in areas if area is not None]
    per_class = _per_class(scores)
    return {
        "scans": len(scores.truth),
        "loss": float(-np.log(np.clip(scores.truth_probability, LOSS_EPSILON, 1.0)).mean()),
        "accuracy": right / len(scores.truth),
        "accuracy_95": list(wilson_interval(right, len(scores.truth))),
        "balanced_accuracy": float(np.mean([row["recall"] for row in per_class if row["support"]])),
        "mean_confidence": float(scores.confidence.mean()),
        "per_class": {
            label: {**row, "roc_auc": area} for label, row, area in zip(labels, per_class, areas, strict=True)
        },
        "macro": _average(scores, "macro"),
        "weighted": _average(scores, "weighted"),
        "roc_auc_macro_ovr": float(np.mean(defined)) if defined else None,
        "expected_calibration_error": expected_calibration_error(scores.confidence, scores.correct),
        "confusion_matrix": {"labels": list(labels), "counts": scores.confusion.tolist()},
    }


def classification_report(scores: Scores) -> str:
    """Return a text table of precision, recall, F1 and support per class and averaged; 0 for a division by zero."""
    return str(
        sk.classification_report(
            scores.truth,
            scores.predicted,
            labels=range(len(scores.labels)),
            target_names=scores.labels,
            digits=4,
            zero_division=0,
        )
    )


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927), both ends in 0…1.

    Unlike the normal approximation it keeps its coverage near 0 and 1, where accuracies are. It is (0, 1) for a total of
    0. Raises InputError for impossible counts.
    """
    if not 0 <= successes <= total:
        raise InputError(f"expected 0 ≤ successes ≤ total, got {successes} of {total}")
    if total == 0:
        return 0.0, 1.0
    ends = binomtest(successes, total).proportion_ci(confidence, method="wilson")
    return float(ends.low), float(ends.high)


def repeated_interval(accuracies: Sequence[float], *, train: int, test: int) -> tuple[float, float]:
    """Return the 95% interval of a model's mean accuracy over repeated splits into `train` and `test` scans.

    This is the corrected resampled t interval (Nadeau and Bengio, Machine Learning 52, 2003), because splits share scans
    and their plain variance is too small. It is never narrower than Wilson's interval for one test side, which is returned
    for a single split. Raises InputError without any accuracy.
    """
    if not len(accuracies) or train < 1 or test < 1:
        raise InputError(f"expected accuracies and scans on both sides, got {len(accuracies)}, {train} and {test}")
    mean, count = float(np.mean(accuracies)), len(accuracies)
    low, high = wilson_interval(round(mean * test), test)
    if count == 1:
        return low, high
    half = student.ppf(0.975, count - 1) * (np.var(accuracies, ddof=1) * (1 / count + test / train)) ** 0.5
    return max(0.0, min(low, mean - half)), min(1.0, max(high, mean + half))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order (Holm 1979, Scand. J. Statistics 6:65)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar 1947, Psychometrika 12:153).

    only_first, only_second: numbers of scans that only the first and only the second of two models classifies correctly.
    Without a difference between the models, both numbers have the same expectation.
    """
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def calibration_bins(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> CalibrationBins:
    """Return the calibration bins of (N,) confidences in 0…1 and (N,) bools, true for a correct answer."""
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise InputError(f"expected one confidence per answer, got shapes {confidence.shape} and {correct.shape}")
    bin_of = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    scans = np.bincount(bin_of, minlength=bins)
    divisor = np.where(scans > 0, scans, np.nan)
    return CalibrationBins(
        scans=scans,
        confidence=np.bincount(bin_of, confidence, bins) / divisor,
        accuracy=np.bincount(bin_of, correct.astype(float), bins) / divisor,
    )


def expected_calibration_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> float:
    """Return the mean of |accuracy − confidence| over equal-width bins, weighted by their scans; 0…1, 0 is best.

    confidence: (N,) float64; correct: (N,) bool. Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks,
    ICML 2017.
    """
    if not len(confidence):
        raise InputError("expected at least one scan to measure calibration on, got none")
    table = calibration_bins(confidence, correct, bins)
    return float(np.nansum(np.abs(table.accuracy - table.confidence) * table.scans) / len(confidence))


def worst_first(scores: Scores, limit: int) -> list[int]:
    """Return the rows of at most `limit` scans: mistakes by probability of the true class, then correct ones, both rising.

    Ties keep their order, so equal scores always give the same list.
    """
    order = np.lexsort((scores.truth_probability, scores.correct))
    return [int(row) for row in order[: max(limit, 0)]]


def _per_class(scores: Scores) -> list[dict[str, float | int]]:
    table = sk.precision_recall_fscore_support(
        scores.truth, scores.predicted, labels=range(len(scores.labels)), zero_division=0
    )
    return [
        {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for p, r, f, n in zip(*table, strict=True)
    ]


def _average(scores: Scores, kind: str) -> dict[str, float]:
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        scores.truth, scores.predicted, labels=range(len(scores.labels)), average=kind, zero_division=0
    )
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1)}


def _roc_auc(scores: Scores, k: int) -> float | None:
    positive = scores.truth == k
    if positive.all() or not positive.any():
        return None
    return float(sk.roc_auc_score(positive, scores.probabilities[:, k]))


def _check_truth(truth: NDArray[np.int64], classes: int) -> None:
    if truth.ndim != 1 or truth.dtype.kind not in "iu":
        raise InputError(f"expected truth as (N,) class indexes, got shape {truth.shape} of {truth.dtype}")
    if not len(truth):
        raise InputError("expected at least one labelled scan with a prediction, got none")
    if truth.min() < 0 or truth.max() >= classes:
        raise InputError(f"expected class indexes 0 to {classes - 1}, got {truth.min()} to {truth.max()}")


def _check_probabilities(probabilities: NDArray[np.float64], shape: tuple[int, int]) -> None:
    if probabilities.shape != shape:
        raise InputError(f"expected probabilities of shape {shape} (scans, classes), got {probabilities.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1 + SUM_TOLERANCE)).all():  # false for NaN, too
        raise InputError("expected probabilities between 0 and 1, got others: pass the softmax, not logits")
    off = float(np.abs(probabilities.sum(axis=1) - 1).max())
    if off > SUM_TOLERANCE:
        raise InputError(f"expected each scan's probabilities to sum to 1, got a row that is off by {off:.3g}")
