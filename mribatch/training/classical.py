"""Classical models: scikit-learn pipelines on `features`, their tuning, and their way to a file and back.

No Ray; who is compared with whom is not said here.
"""

import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import skops.io
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from mribatch.errors import InputError
from mribatch.models.features import Floats

__all__ = ["RECIPES", "Fitted", "Leading", "Recipe", "Span", "components", "fit", "memory_bytes", "on_pixels", "stored"]  # fmt: skip

FOLDS = 3
_VARIANCE = (0.80, 0.95)  # what the principal components may explain; each further one slows all models down
# beyond what skops trusts by itself: parts of the models below; none of them runs what a file says
_ENOUGH = 50  # scans of each class, for early stopping to hold a tenth of a fold's out
_NOTHING = 1e-7  # of the largest eigenvalue: float32 tells no smaller one from 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model before it has seen anything: the name that tables show, what it sees, its steps and what is tuned."""

    title: str
    features: Literal["pixels", "backbone"]
    steps: Callable[[int], list[tuple[str, Any]]]
    tuned: Mapping[str, tuple[Any, ...]]
    has_probabilities: bool = True


def _of_pixels(title: str, model: Callable[[int], Any], *, scaled: bool = False, has_probabilities: bool = True,
               **tuned: tuple[Any, ...]) -> Recipe:  # fmt: skip
    """Principal components of the grey pixels, scaled if the model wants that, and the model."""
    scaler = [("scale", StandardScaler())] if scaled else []
    return Recipe(
        title=title, features="pixels", has_probabilities=has_probabilities,
        steps=lambda seed: [*_components(), *scaler, ("model", model(seed))],
        tuned={"keep__variance": _VARIANCE, **{f"model__{name}": values for name, values in tuned.items()}},
    )  # fmt: skip


def _components() -> list[tuple[str, Any]]:
    return [("pca", PCA(_VARIANCE[-1], svd_solver="full")), ("keep", Leading())]


def _of_backbone(
    title: str, model: Callable[[int], Any], *, has_probabilities: bool = True, **tuned: tuple[Any, ...]
) -> Recipe:
    """The features of a frozen backbone, scaled, and the model."""
    return Recipe(
        title=title, features="backbone", has_probabilities=has_probabilities,
        steps=lambda seed: [("scale", StandardScaler()), ("model", model(seed))],
        tuned={f"model__{name}": values for name, values in tuned.items()},
    )  # fmt: skip


def _svm(_seed: int) -> SVC:
    return SVC(kernel="rbf")


def _logistic(seed: int) -> LogisticRegression:
    return LogisticRegression(max_iter=2000, random_state=seed)


def _forest(seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(n_estimators=100, criterion="gini", random_state=seed)


def _perceptron(seed: int) -> MLPClassifier:
    return MLPClassifier((100,), early_stopping=True, random_state=seed)


RECIPES: Mapping[str, Recipe] = {
    "svm": _of_pixels("SVM (RBF)", _svm, C=(1.0, 10.0), has_probabilities=False),
    "random_forest": _of_pixels("Random forest (Gini)", _forest),
    "decision_tree": _of_pixels(
        "Decision tree", lambda seed: DecisionTreeClassifier(random_state=seed), min_samples_leaf=(1, 5)
    ),
    "logistic_regression": _of_pixels("Logistic regression", _logistic, scaled=True, C=(0.01, 1.0)),
    "knn": _of_pixels("k-nearest neighbours", lambda _: KNeighborsClassifier(algorithm="brute"), n_neighbors=(1, 3)),
    "gaussian_nb": _of_pixels("Gaussian naive Bayes", lambda _: GaussianNB()),
    "mlp": _of_pixels("ANN (MLP)", _perceptron, scaled=True),
    "frozen_svm": _of_backbone("Frozen Xception + SVM", _svm, C=(1.0, 10.0), has_probabilities=False),
    "frozen_logistic": _of_backbone("Frozen Xception + logistic regression", _logistic, C=(0.001, 0.01, 0.1)),
}
"""The classical models by the names that flags and files have."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A model that has learnt: what was chosen for it by cross-validation, and the seconds that all of this took."""

    pipeline: Pipeline
    chosen: dict[str, Any]
    seconds: float


class Leading(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The first principal components, as many as explain a share of the variance, of those that explain the most allowed.

    So that folds need one decomposition, whatever share is tried.
    """

    def __init__(self, variance: float = _VARIANCE[-1]) -> None:
        self.variance = variance

    def fit(self, components: Floats, _classes: Any = None) -> "Leading":
        explained = np.cumsum(components.var(axis=0, dtype=np.float64))
        wanted = explained[-1] * self.variance / _VARIANCE[-1]
        self.kept_ = min(int(np.searchsorted(explained, wanted * (1 - 1e-9))) + 1, len(explained))
        return self

    def transform(self, components: Floats) -> Floats:
        return components[:, : self.kept_]


class Span:
    """Coordinates in the space that the training scans span: as many as there are scans, where pixels are far more.

    All distances and angles between training scans are kept, and all that a principal component can see of any other
    scan: the components found here are those of the pixels, in a tenth of the time. Nothing is learnt from other scans.
    """

    def __init__(self, products: NDArray[np.float64]) -> None:
        """products: `features.products` of the training scans, (N, N). Raises InputError where all scans are equal."""
        self._means = products.mean(axis=0)
        values, vectors = eigh(self._centred(products), driver="evd")
        if values[-1] <= _NOTHING * np.abs(products).max():
            raise InputError(
                f"all {len(products)} training scans look the same: there is nothing to tell them apart by"
            )
        seen = values > values[-1] * _NOTHING
        self.axes: Floats = (vectors[:, seen] / np.sqrt(values[seen])).astype(np.float32)
        self.training: Floats = (vectors[:, seen] * np.sqrt(values[seen])).astype(np.float32)
        """The coordinates of the training scans, (N, ≤ N)."""

    def coordinates(self, products: NDArray[np.float64]) -> Floats:
        """`features.products` of other scans with the training scans, (M, N) → (M, ≤ N) float32."""
        found: Floats = np.asarray(self._centred(products) @ self.axes, np.float32)
        return found

    def _centred(self, products: NDArray[np.float64]) -> NDArray[np.float64]:
        """Products of scans less the mean of the training scans."""
        centred: NDArray[np.float64] = (
            products - self._means - products.mean(axis=1, keepdims=True) + self._means.mean()
        )
        return centred


def on_pixels(fitted: Pipeline, span: Span, mean: Floats, centred: Floats) -> Pipeline:
    """A pipeline that was fitted on a span's coordinates, for `scaled` pixels: the same predictions, by scikit-learn alone.

    mean, centred: `features.centred` of the scans of the span, (pixels,) and (N, pixels).
    """
    whole = Pipeline([(name, deepcopy(step)) for name, step in fitted.steps if name != "keep"])
    pca, kept = whole["pca"], fitted["keep"].kept_
    pca.mean_ = pca.mean_ @ span.axes.T @ centred + mean
    pca.components_ = pca.components_[:kept] @ span.axes.T @ centred
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_"):
        setattr(pca, name, getattr(pca, name)[:kept])
    pca.n_components_, pca.n_features_in_ = kept, len(mean)
    return whole


def memory_bytes(scans: int, pixels: int) -> int:
    """What a span of so many training scans, what is fitted on it, and its way to so many pixels take at most."""
    return 4 * scans * pixels * 2 + 8 * scans**2 * 5


def fit(
    name: str, features: Floats, classes: NDArray[np.int64], groups: NDArray[np.int64], seed: int, cache: str
) -> Fitted:
    """Tune a recipe by cross-validation within these scans, then fit it to all of them.

    features (N, D) float32, classes (N,), groups (N,): scans of one group never stand on both sides of a fold. What
    the first steps of a pipeline give is kept in the folder `cache` for the next recipe that has them.
    """
    begun, recipe = time.monotonic(), RECIPES[name]
    folds = list(_folds(features, classes, groups, seed))
    pipeline = Pipeline(recipe.steps(seed), memory=cache)
    if np.bincount(classes).min() < _ENOUGH and "model__early_stopping" in pipeline.get_params():
        pipeline.set_params(model__early_stopping=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is cross-validated as it is
        chosen = _tuned(pipeline, recipe.tuned, features, classes, folds)
        best = clone(pipeline).set_params(**chosen)
        if not recipe.has_probabilities:
            best.set_params(model=CalibratedClassifierCV(best["model"], cv=folds, ensemble=False))
        best.fit(features, classes)
    return Fitted(pipeline=best.set_params(memory=None), chosen=chosen, seconds=time.monotonic() - begun)


def components(features: Floats, classes: NDArray[np.int64], groups: NDArray[np.int64], seed: int, cache: str) -> None:
    """Fill the cache with the principal components that the recipes on pixels will ask for."""
    pipeline = Pipeline([*_components(), ("model", DummyClassifier())], memory=cache)
    _tuned(pipeline, {}, features, classes, list(_folds(features, classes, groups, seed)))
    clone(pipeline).fit(features, classes)


def _tuned(
    pipeline: Pipeline,
    grid: Mapping[str, tuple[Any, ...]],
    features: Floats,
    classes: NDArray[np.int64],
    folds: list[Any],
) -> dict[str, Any]:
    search = GridSearchCV(pipeline, {name: list(values) for name, values in grid.items()}, cv=folds, refit=False)
    return dict(search.fit(features, classes).best_params_)


def _folds(
    features: Floats, classes: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Three folds, or as many as the rarest class has different scans. Raises InputError where it has but one."""
    rarest = min(len(np.unique(groups[classes == each])) for each in np.unique(classes))
    if rarest < 2:
        raise InputError("a class has only one scan to learn from (copies count once), and cross-validation needs two: "
                         "add scans or leave the class out with --classes")  # fmt: skip
    folds = StratifiedGroupKFold(min(FOLDS, rarest), shuffle=True, random_state=seed)
    return iter(folds.split(features, classes, groups))


# A classical model on disk, and from there to probabilities


def stored(pipeline: Pipeline) -> bytes:
    """A fitted pipeline in the format of skops: types and arrays, no code. Principal components do not compress."""
    data: bytes = skops.io.dumps(pipeline, compression=zipfile.ZIP_STORED)
    return data
