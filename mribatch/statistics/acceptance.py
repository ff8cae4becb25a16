"""Judge a model at a site: rates of each class with intervals, stability under corruption, thresholds and a verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import InputError
from mribatch.statistics.metrics import Scores, wilson_interval

__all__ = [
    "Check",
    "Measured",
    "Proportion",
    "Rates",
    "Thresholds",
    "Verdict",
    "balanced_accuracy",
    "checks",
    "rates",
    "rates_of",
    "too_few",
    "verdict",
]

Verdict = Literal["fit for triage here", "not fit", "not enough scans", "not judged: no labels"]

_REACHED = 1e-9  # sums of shares are rounded


class Proportion(NamedTuple):
    """`hits` of `total` scans."""

    hits: int
    total: int

    @property
    def share(self) -> float | None:
        """None for no scans."""
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval (Wilson 1927)."""
        return wilson_interval(self.hits, self.total)

    def as_dict(self) -> dict[str, Any]:
        """Return the proportion, ready for JSON."""
        return {"scans": self.hits, "of": self.total, "share": self.share, "interval_95": list(self.interval)}


class Rates(NamedTuple):
    """What a class's answers are worth, one class against the rest."""

    sensitivity: Proportion
    specificity: Proportion
    positive_predictive_value: Proportion
    negative_predictive_value: Proportion


def rates(scores: Scores) -> dict[str, Rates]:
    """Return the rates of each class, by label."""
    return {label: rates_of(scores.truth == k, scores.predicted == k) for k, label in enumerate(scores.labels)}


def rates_of(actual: NDArray[np.bool_], called: NDArray[np.bool_]) -> Rates:
    """Return the rates of a class. actual, called: (N,), whether each scan is of it, and whether it is called it."""
    hits, rejected = int((actual & called).sum()), int((~actual & ~called).sum())
    return Rates(
        Proportion(hits, int(actual.sum())),
        Proportion(rejected, int((~actual).sum())),
        Proportion(hits, int(called.sum())),
        Proportion(rejected, int((~called).sum())),
    )


def balanced_accuracy(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[int]) -> float | None:
    """Return the mean sensitivity of those of these classes that have scans; None if none has. truth, predicted: (N,)."""
    if truth.shape != predicted.shape:
        raise InputError(f"expected one answer per scan, got shapes {truth.shape} and {predicted.shape}")
    shares = [float((predicted[truth == k] == k).mean()) for k in classes if (truth == k).any()]
    return float(np.mean(shares)) if shares else None


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a model must reach at a site. See `mribatch accept --help`."""

    min_scans: int = 20
    min_sensitivity: float = 0.80
    min_specificity: float = 0.80
    min_balanced_accuracy: float = 0.85
    max_calibration_error: float = 0.10
    max_referral_rate: float = 0.30
    max_corruption_loss: float = 0.10
    max_reject_rate: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured on labelled scans of a site.

    healthy: the class whose sensitivity is not checked, if any. balanced_accuracy: over the classes with enough scans, or
    None. losses: of balanced accuracy by the mildest strength of each corruption. referral_rate: None for a model that
    refers nothing.
    """

    scans: int
    rates: Mapping[str, Rates]
    healthy: str | None
    balanced_accuracy: float | None
    calibration_error: float
    reject_rate: float
    losses: Mapping[str, float] = field(default_factory=dict)
    referral_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """A threshold and what was measured.

    flag: the setting that holds the threshold. limit: the threshold. interval: if given, its lower end is what must reach
    the threshold. is_maximum: the measured value must not exceed the threshold.
    """

    name: str
    flag: str
    value: float
    limit: float
    interval: tuple[float, float] | None = None
    is_maximum: bool = False

    @property
    def holds(self) -> bool:
        """Whether the threshold is kept."""
        if self.is_maximum:
            return self.value <= self.limit + _REACHED
        return (self.interval[0] if self.interval else self.value) >= self.limit - _REACHED

    @property
    def is_undecided(self) -> bool:
        """Whether the threshold is missed only because the interval is wide: more scans may decide it."""
        return not self.holds and self.interval is not None and self.interval[1] >= self.limit


def too_few(measured: Measured, thresholds: Thresholds) -> dict[str, int]:
    """Return the classes that have fewer scans than are needed, with their numbers of scans."""
    counts = {label: row.sensitivity.total for label, row in measured.rates.items()}
    return {label: count for label, count in counts.items() if count < thresholds.min_scans}


def checks(measured: Measured, thresholds: Thresholds) -> list[Check]:
    """Return all checks that so many scans allow. A rate is checked if it is over min_scans scans or more."""
    made = [*_rate_checks(measured, thresholds)]
    limits = [
        ("balanced accuracy", "min_balanced_accuracy", measured.balanced_accuracy),
        ("calibration error", "max_calibration_error", measured.calibration_error),
        ("share of scans referred", "max_referral_rate", measured.referral_rate),
        *((f"loss under mild {kind}", "max_corruption_loss", loss) for kind, loss in measured.losses.items()),
        ("share of scans not scored", "max_reject_rate", measured.reject_rate),
    ]
    if measured.scans >= thresholds.min_scans:
        made += [
            Check(name=name, flag=flag, value=value, limit=getattr(thresholds, flag), is_maximum=flag.startswith("max"))
            for name, flag, value in limits
            if value is not None
        ]
    return made


def _rate_checks(measured: Measured, thresholds: Thresholds) -> Iterator[Check]:
    for name in ("sensitivity", "specificity"):
        flag = f"min_{name}"
        for label, row in measured.rates.items():
            rate: Proportion = getattr(row, name)
            is_checked = name == "specificity" or label != measured.healthy
            if is_checked and rate.share is not None and rate.total >= thresholds.min_scans:
                limit = getattr(thresholds, flag)
                yield Check(name=f"{name} of {label}", flag=flag, value=rate.share, limit=limit, interval=rate.interval)


def verdict(made: Sequence[Check], is_complete: bool) -> Verdict:
    """Return the verdict on labelled scans. is_complete: every class has enough scans, and altered ones were tried."""
    if not all(check.holds for check in made):
        return "not fit"
    return "fit for triage here" if is_complete and made else "not enough scans"
