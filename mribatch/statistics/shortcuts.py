"""What tells the classes apart without looking at the brain: probes on borders, brightness and file facts. Pure.

A probe is a linear model that sees one poor view of each scan. Where it tells the classes apart, a network can do so as
well, and its accuracy says little about what it knows of the disease.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mribatch.statistics.thumbnails import SIDE_PX, Floats

__all__ = [
    "DARK",
    "FOLDS",
    "Probe",
    "border_ring",
    "fitted",
    "folds",
    "intensities",
    "probe",
    "scored",
    "small_thumbnails",
]

FOLDS = 5
_RING_PX = 2  # of 64, as 8 of 224
_SMALL_PX = 16
_BINS = 32
DARK = 8  # grey levels of 255 up to which a pixel is background
_MOST_SCANS = 20_000  # that a probe learns from and is asked about: its interval is narrow by then


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How well a model told the classes apart, on scans none of whose near copies it was trained on.

    balanced_accuracy: the mean over the classes of the share of scans that it named right. interval: 95%, with each
    cluster of near copies counted as one scan. chance: what guessing reaches.
    """

    name: str
    scans: int
    balanced_accuracy: float
    interval: tuple[float, float]
    chance: float
    recall: Mapping[str, float]

    @property
    def tells(self) -> bool:
        """Whether it is better than chance beyond doubt."""
        return self.interval[0] > self.chance


def border_ring(pictures: NDArray[np.uint8]) -> Floats:
    """Return the outermost two pixels on all sides of (N, 64, 64) thumbnails, (N, 496)."""
    inside = np.zeros((SIDE_PX, SIDE_PX), bool)
    inside[_RING_PX:-_RING_PX, _RING_PX:-_RING_PX] = True
    return pictures[:, ~inside].astype(np.float32)


def small_thumbnails(pictures: NDArray[np.uint8]) -> Floats:
    """Return (N, 64, 64) thumbnails at 16 × 16, (N, 256)."""
    step = SIDE_PX // _SMALL_PX
    blocks = pictures.reshape(-1, _SMALL_PX, step, _SMALL_PX, step)
    small: Floats = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(len(pictures), -1)
    return small


def intensities(pictures: NDArray[np.uint8]) -> Floats:
    """Return the grey histogram, mean, spread, dark share and brightest percentile of each thumbnail, (N, 36)."""
    flat = pictures.reshape(len(pictures), -1)
    levels = flat // (256 // _BINS)
    histogram = np.stack([(levels == level).mean(axis=1) for level in range(_BINS)], axis=1)
    moments = [flat.mean(axis=1), flat.std(axis=1), (flat <= DARK).mean(axis=1), np.percentile(flat, 99, axis=1)]
    return np.column_stack([histogram, *moments]).astype(np.float32)


def folds(
    truth: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return pairs of row numbers, to learn from and to be asked about; no group stands on both sides."""
    count = min(FOLDS, len(set(groups.tolist())))
    splitter = StratifiedGroupKFold(max(count, 2), shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros((len(truth), 1)), truth, groups))


def probe(
    name: str,
    view: NDArray[Any],
    truth: NDArray[np.int64],
    labels: tuple[str, ...],
    groups: NDArray[np.int64],
    seed: int = 0,
) -> Probe:
    """Fit a linear model to a view of the scans, (N, D), and ask it about scans of other groups.

    truth: (N,) indexes into labels. groups: (N,) clusters of near copies. Of very many scans, a sample of groups is used.
    """
    rows = _sample(groups, seed)
    view, truth, groups = view[rows], truth[rows], groups[rows]
    predicted = np.full(len(truth), -1, np.int64)
    for learn, ask in folds(truth, groups, seed):
        if len(set(truth[learn].tolist())) < 2:
            continue
        model = fitted(make_pipeline(StandardScaler(), LogisticRegression(C=0.1)), view[learn], truth[learn])
        predicted[ask] = model.predict(view[ask])
    return scored(name, predicted, truth, labels, groups)


def fitted(model: Any, view: NDArray[Any], truth: NDArray[np.int64]) -> Any:
    """Fit a model of scikit-learn. One that has not quite converged is a little weaker than it could be, and does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(view, truth)


def _sample(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the rows of so many groups, drawn by chance, that they are about _MOST_SCANS."""
    if len(groups) <= _MOST_SCANS:
        return np.arange(len(groups))
    chosen = np.random.default_rng(seed).random(int(groups.max()) + 1) < _MOST_SCANS / len(groups)
    return np.flatnonzero(chosen[groups])


def scored(
    name: str,
    predicted: NDArray[np.int64],
    truth: NDArray[np.int64],
    labels: tuple[str, ...],
    groups: NDArray[np.int64],
) -> Probe:
    """Return what predictions, (N,) indexes into labels, are worth; -1 is always wrong."""
    present = [k for k in range(len(labels)) if (truth == k).any()]
    recall = {k: float((predicted[truth == k] == k).mean()) for k in present}
    independent = {k: len(set(groups[truth == k].tolist())) for k in present}
    mean = float(np.mean([*recall.values()]))
    variance = sum(_smoothed(recall[k], independent[k]) / independent[k] for k in present) / len(present) ** 2
    half = 1.96 * variance**0.5
    return Probe(
        name=name,
        scans=len(truth),
        balanced_accuracy=mean,
        interval=(max(0.0, mean - half), min(1.0, mean + half)),
        chance=1 / len(present),
        recall={labels[k]: share for k, share in recall.items()},
    )


def _smoothed(share: float, count: int) -> float:
    """Return the variance of one answer, with two of each outcome added: 0 of 3 is not never (Agresti and Coull 1998)."""
    likely = (share * count + 2) / (count + 4)
    return likely * (1 - likely)
