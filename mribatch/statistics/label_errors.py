"""Which labels are likely wrong: confident learning on predictions for scans that the predictor has not seen. Pure.

The counting rule is that of Northcutt, Jiang and Chuang (Confident Learning, JAIR 70, 2021): a scan is suspect if its
probability of another class is at least what scans of that class have on average.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mribatch.statistics import thumbnails
from mribatch.statistics.shortcuts import fitted, folds
from mribatch.statistics.thumbnails import Floats

__all__ = ["Suspects", "components", "out_of_fold", "suspects", "thumbnail_features"]

_COMPONENTS = 100
_LANDMARKS = 1000  # of the kernel
_MOST_SCANS = 20_000  # that a fold's model learns from
_BLOCK = 4096
_DISTANCES = 1000  # scans whose distances set the width of the kernel
_SHARPNESS = 2.0  # of the kernel, against the median distance


class Suspects(NamedTuple):
    """Scans whose label is likely wrong, the most likely ones first."""

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    """The class that they look like, an index."""
    own: Floats
    """The probability of the class that they are labelled as."""
    other: Floats
    """The probability of the suggested class."""


def thumbnail_features(pictures: NDArray[np.uint8], seed: int = 0) -> Floats:
    """Return the main components of (N, 64, 64) thumbnails and of their local contrast, (N, up to 200) float32."""
    grey = _in_blocks(pictures, lambda block: _half(block) / 255)
    contrast = _in_blocks(pictures, thumbnails.descriptors)
    return np.hstack([components(grey, seed), components(contrast, seed)])


def components(values: NDArray[Any], seed: int = 0) -> Floats:
    """Return the main components of (N, D) values, scaled so that the scans' mean square length is 1."""
    sample = np.sort(np.random.default_rng(seed).permutation(len(values))[:_MOST_SCANS])
    mean = values[sample].mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = values[sample] - mean
    _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    axes = vectors[:, ::-1][:, :_COMPONENTS].astype(np.float32)
    projected: Floats = (values - mean).astype(np.float32) @ axes
    scaled: Floats = projected / max(float(np.sqrt((projected**2).sum(axis=1).mean())), 1e-6)
    return scaled


def _half(block: NDArray[np.uint8]) -> Floats:
    side = block.shape[1] // 2
    half: Floats = block.reshape(-1, side, 2, side, 2).mean(axis=(2, 4), dtype=np.float32)
    return half


def _in_blocks(pictures: NDArray[np.uint8], view: Any) -> Floats:
    """Return a view of all thumbnails as float16 rows, made block by block."""
    parts = [view(pictures[at : at + _BLOCK]).astype(np.float16) for at in range(0, len(pictures), _BLOCK)]
    flat: Floats = np.concatenate(parts).reshape(len(pictures), -1)
    return flat


def out_of_fold(
    features: Floats, labels: NDArray[np.int64], classes: int, groups: NDArray[np.int64], seed: int = 0
) -> Floats:
    """Return the probability of each class for each scan, (N, classes), from a model that saw none of its group.

    The model is a logistic regression on an approximated radial kernel of the features, (N, D).
    """
    rng = np.random.default_rng(seed)
    probabilities = np.full((len(labels), classes), 1 / classes, np.float32)
    for learn, ask in folds(labels, groups, seed):
        learn = np.sort(rng.permutation(learn)[:_MOST_SCANS])
        if len(set(labels[learn].tolist())) < 2:
            continue
        landmarks = min(_LANDMARKS, len(learn))
        kernel = Nystroem(gamma=_gamma(features[learn], rng), n_components=landmarks, random_state=seed)
        model = fitted(make_pipeline(kernel, LogisticRegression(C=3.0)), features[learn], labels[learn])
        probabilities[ask] = 0
        for at in range(0, len(ask), _BLOCK):
            block = ask[at : at + _BLOCK]
            probabilities[block[:, None], model.classes_] = model.predict_proba(features[block])
    return probabilities


def _gamma(features: Floats, rng: np.random.Generator) -> float:
    one, other = (features[rng.integers(0, len(features), _DISTANCES)] for _ in range(2))
    median = float(np.median(((one - other) ** 2).sum(axis=1)))
    return _SHARPNESS / max(median, 1e-6)


def suspects(probabilities: Floats, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> Suspects:
    """Return the scans whose label is likely wrong, from out-of-fold probabilities (N, classes) and given labels (N,).

    Near copies show one thing: the probabilities of a scan are averaged with those of its group, and the labels of the
    others in it count as answers, too.
    """
    shared = _shared(probabilities, labels, groups)
    rows = np.arange(len(labels))
    own = shared[rows, labels]
    others = shared.copy()
    others[rows, labels] = -1
    suggested = others.argmax(axis=1)
    other = others[rows, suggested]
    typical = np.array(
        [shared[labels == k, k].mean() if (labels == k).any() else 1 for k in range(probabilities.shape[1])]
    )
    wrong = np.flatnonzero((other > own) & (other >= typical[suggested]))
    order = wrong[np.argsort(own[wrong] - other[wrong], kind="stable")]
    return Suspects(order, suggested[order], own[order], other[order])


def _shared(probabilities: Floats, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> Floats:
    """Return the mean, over a scan's group, of all probabilities and of the labels of the others."""
    count = int(groups.max()) + 1 if len(groups) else 0
    answers = np.eye(probabilities.shape[1], dtype=np.float32)[labels]
    total = np.zeros((count, probabilities.shape[1]), np.float32)
    np.add.at(total, groups, probabilities + answers)
    size = np.bincount(groups, minlength=count)[groups]
    shared: Floats = ((total[groups] - answers) / (2 * size - 1)[:, None]).astype(np.float32)
    return shared
