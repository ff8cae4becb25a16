"""Judge statistics of patients, such as the mean probability over their slices: how well each tells the ill from others.

A threshold is chosen on some patients and judged on others (cross-validation), and so is the choice of a statistic.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold

from mribatch.errors import InputError
from mribatch.statistics.acceptance import Proportion

__all__ = ["FOLDS", "Judged", "Separation", "judge"]

FOLDS = 5

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Separation(NamedTuple):
    """How well one rule tells ill patients from the others."""

    sensitivity: Proportion
    specificity: Proportion

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1 (Youden, Cancer 3, 1950)."""
        return float(self.sensitivity.share or 0) + float(self.specificity.share or 0) - 1

    def as_dict(self) -> dict[str, Any]:
        """Return the rates, ready for JSON."""
        rates = {"sensitivity": self.sensitivity, "specificity": self.specificity}
        return {**{name: _as_dict(rate) for name, rate in rates.items()}, "youden": self.youden}


def _as_dict(rate: Proportion) -> dict[str, Any]:
    return {"patients": rate.hits, "of": rate.total, "share": rate.share, "interval_95": list(rate.interval)}


class Judged(NamedTuple):
    """One statistic.

    auroc: area under the ROC curve of all patients; it needs no threshold. threshold: chosen on all patients, and
    infinite if calling nobody ill is best. judged: each patient judged with a threshold chosen on others.
    """

    auroc: float
    threshold: float
    judged: Separation

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        threshold = self.threshold if np.isfinite(self.threshold) else None
        return {"auroc": self.auroc, "threshold": threshold, **self.judged.as_dict()}


class _Choice(NamedTuple):
    youden: float
    threshold: float


def judge(statistics: Mapping[str, Floats], is_ill: Bools, seed: int = 0) -> dict[str, Any]:
    """Return what each statistic is worth, and which one would be chosen, ready for JSON.

    statistics: (N,) values by name; a patient is called ill from a threshold on. is_ill: (N,) the truth. `chosen` is the
    statistic that is best on all patients. `judged` of `choice` judges the choosing itself: each patient by the
    statistic and threshold that were best on other patients. Raises InputError for fewer than two patients on a side.
    """
    folds = min(FOLDS, int(is_ill.sum()), int((~is_ill).sum()))
    if folds < 2:
        raise InputError(f"expected two patients or more on each side, got {int(is_ill.sum())} of {len(is_ill)} ill")
    called = {name: np.zeros(len(is_ill), bool) for name in statistics}
    by_choice, chosen = np.zeros(len(is_ill), bool), Counter[str]()
    for others, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(is_ill, is_ill):
        choices = {name: _choose(values[others], is_ill[others]) for name, values in statistics.items()}
        for name, values in statistics.items():
            called[name][held_out] = values[held_out] >= choices[name].threshold
        best = _best(choices)
        by_choice[held_out] = called[best][held_out]
        chosen[best] += 1
    choices = {name: _choose(values, is_ill) for name, values in statistics.items()}
    judged = {
        name: Judged(float(roc_auc_score(is_ill, values)), choices[name].threshold, _separation(called[name], is_ill))
        for name, values in statistics.items()
    }
    return {
        "patients": {"ill": int(is_ill.sum()), "others": int((~is_ill).sum())},
        "folds": folds,
        "statistics": {name: result.as_dict() for name, result in judged.items()},
        "chosen": _best(choices),
        "choice": {"in_folds": dict(chosen.most_common()), **_separation(by_choice, is_ill).as_dict()},
    }


def _choose(values: Floats, is_ill: Bools) -> _Choice:
    """Return the threshold with the highest Youden index: half way between two values, or infinity for calling none."""
    false, true, thresholds = roc_curve(is_ill, values, drop_intermediate=False)
    best = int(np.argmax(true - false))  # of equally good ones the highest, which calls fewest ill
    below = thresholds[best + 1] if 0 < best < len(thresholds) - 1 else thresholds[best]
    return _Choice(float(true[best] - false[best]), float((thresholds[best] + below) / 2))


def _best(choices: Mapping[str, _Choice]) -> str:
    """Return the statistic with the highest Youden index; of equally good ones the first."""
    return max(choices, key=lambda name: choices[name].youden)


def _separation(called: Bools, is_ill: Bools) -> Separation:
    hits, correct = int((called & is_ill).sum()), int((~called & ~is_ill).sum())
    return Separation(Proportion(hits, int(is_ill.sum())), Proportion(correct, int((~is_ill).sum())))
