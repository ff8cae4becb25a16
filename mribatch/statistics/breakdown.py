"""Break an evaluation down: by class against the rest, by threshold, by patient and by subgroup."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sk

from mribatch.errors import InputError
from mribatch.statistics.acceptance import Proportion, rates, rates_of
from mribatch.statistics.metrics import Scores

__all__ = ["FEW", "SMALL", "THRESHOLDS", "class_rates", "operating_points", "patients", "subgroups"]

THRESHOLDS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)

SMALL = 5
"""Values with fewer scans are pooled: so few say nothing of a scanner, and may point at a person."""

FEW = "other values"
"""Stands for the pooled values of a subgroup."""

_MOST_VALUES = 12  # a column with more names scans or people, not groups


def class_rates(scores: Scores) -> dict[str, dict[str, Any]]:
    """Return sensitivity, specificity and predictive values of each class, ready for JSON, with Wilson intervals."""
    return {label: _as_dict(row) for label, row in rates(scores).items()}


def operating_points(scores: Scores) -> dict[str, dict[str, Any]]:
    """Return for each class its average precision, and its rates if scans at or above a probability are called it.

    `average_precision` is None for a class with no scans or with all of them.
    """
    return {label: _points(scores, k) for k, label in enumerate(scores.labels)}


def _points(scores: Scores, k: int) -> dict[str, Any]:
    actual, probability = scores.truth == k, scores.probabilities[:, k]
    is_mixed = bool(actual.any() and not actual.all())
    return {
        "average_precision": float(sk.average_precision_score(actual, probability)) if is_mixed else None,
        "thresholds": [
            {
                "threshold": threshold,
                "called": int((probability >= threshold).sum()),
                **_as_dict(rates_of(actual, probability >= threshold)),
            }
            for threshold in THRESHOLDS
        ],
    }


def _as_dict(row: Any) -> dict[str, Any]:
    return {name: proportion.as_dict() for name, proportion in row._asdict().items()}


def patients(scores: Scores, patient_ids: Sequence[str | None]) -> dict[str, Any] | None:
    """Return how many patients are classified right, as a whole and by class; None if no scan has a patient.

    A patient's class is the one of greatest mean probability over its scans. Patients with scans of several classes are
    counted as `mixed` and left out. Raises InputError if there is not one patient, or None, for each scan.
    """
    if len(patient_ids) != len(scores.truth):
        raise InputError(f"expected a patient for each of {len(scores.truth)} scans, got {len(patient_ids)}")
    scans_of: dict[str, list[int]] = defaultdict(list)
    for scan, patient in enumerate(patient_ids):
        if patient is not None:
            scans_of[patient].append(scan)
    if not scans_of:
        return None
    pure = [scans for scans in scans_of.values() if len({*scores.truth[scans].tolist()}) == 1]
    truth = np.array([scores.truth[scans[0]] for scans in pure], np.int64)
    right = np.array([scores.probabilities[scans].mean(axis=0).argmax() for scans in pure], np.int64) == truth
    of_class = {
        label: Proportion(int(right[truth == k].sum()), int((truth == k).sum()))
        for k, label in enumerate(scores.labels)
    }
    return {
        "patients": len(pure),
        "mixed": len(scans_of) - len(pure),
        "scans": sum(map(len, pure)),
        "scans_without": len(patient_ids) - sum(map(len, scans_of.values())),
        "right": Proportion(int(right.sum()), len(pure)).as_dict(),
        "per_class": {label: proportion.as_dict() for label, proportion in of_class.items()},
    }


def subgroups(scores: Scores, columns: Mapping[str, Sequence[str | None]]) -> dict[str, dict[str, Any]]:
    """Return the accuracy on the scans with each value of some columns, with Wilson intervals, the most frequent first.

    columns: for each name a value, or None, for each scan. Columns with a single value or more than 12 are left out. Values
    with fewer than SMALL scans are pooled as FEW, and scans without one are left out.
    """
    groups = {name: _groups(values) for name, values in columns.items()}
    return {name: _accuracies(scores, *grouped) for name, grouped in groups.items() if grouped is not None}


def _groups(values: Sequence[str | None]) -> tuple[list[str | None], Counter[str]] | None:
    """Return the group of each scan and the number of scans of each; None for a column that makes no groups."""
    counts = Counter(value for value in values if value is not None)
    if not 2 <= len(counts) <= _MOST_VALUES:
        return None
    groups = [FEW if value is not None and counts[value] < SMALL else value for value in values]
    return groups, Counter(group for group in groups if group is not None)


def _accuracies(scores: Scores, groups: Sequence[str | None], counts: Counter[str]) -> dict[str, Any]:
    right = Counter(group for group, is_right in zip(groups, scores.correct, strict=True) if is_right)
    ordered = sorted(counts, key=lambda name: (name == FEW, -counts[name], name))
    return {name: Proportion(right[name], counts[name]).as_dict() for name in ordered}
