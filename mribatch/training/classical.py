"""Define, tune, fit and store classical models: scikit-learn pipelines on the arrays of `models.features`."""

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

__all__ = [
    "CLASSICAL_MODELS",
    "ClassicalModel",
    "Fitted",
    "Leading",
    "Span",
    "components",
    "fit",
    "memory_bytes",
    "on_pixels",
    "stored",
]

FOLDS = 3
_VARIANCE = (0.80, 0.95)  # shares that the principal components may explain; each further share slows all models down
_EARLY_STOPPING_SCANS = 50  # of each class, so that a tenth of a fold is enough to decide when to stop
_NEGLIGIBLE = 1e-7  # share of the largest eigenvalue; float32 cannot tell smaller ones from 0


@dataclass(frozen=True, kw_only=True)
class ClassicalModel:
    """A model that is not fitted yet: its title, its features, its pipeline steps and its grid of parameters.

    steps: from a seed. has_probabilities: False for a model whose scores must be calibrated to become probabilities.
    """

    title: str
    features: Literal["pixels", "backbone"]
    steps: Callable[[int], list[tuple[str, Any]]]
    grid: Mapping[str, tuple[Any, ...]]
    has_probabilities: bool = True


def _on_components(
    title: str,
    model: Callable[[int], Any],
    *,
    scale: bool = False,
    has_probabilities: bool = True,
    **grid: tuple[Any, ...],
) -> ClassicalModel:
    """Return a model on the principal components of the grey pixels, scaled on request."""
    scaler = [("scale", StandardScaler())] if scale else []
    return ClassicalModel(
        title=title,
        features="pixels",
        has_probabilities=has_probabilities,
        steps=lambda seed: [*_components(), *scaler, ("model", model(seed))],
        grid={"keep__variance": _VARIANCE, **{f"model__{name}": values for name, values in grid.items()}},
    )


def _components() -> list[tuple[str, Any]]:
    return [("pca", PCA(_VARIANCE[-1], svd_solver="full")), ("keep", Leading())]


def _on_backbone(
    title: str, model: Callable[[int], Any], *, has_probabilities: bool = True, **grid: tuple[Any, ...]
) -> ClassicalModel:
    """Return a model on the scaled features of a frozen backbone."""
    return ClassicalModel(
        title=title,
        features="backbone",
        has_probabilities=has_probabilities,
        steps=lambda seed: [("scale", StandardScaler()), ("model", model(seed))],
        grid={f"model__{name}": values for name, values in grid.items()},
    )


def _svm(_seed: int) -> SVC:
    return SVC(kernel="rbf")


def _logistic(seed: int) -> LogisticRegression:
    return LogisticRegression(max_iter=2000, random_state=seed)


CLASSICAL_MODELS: Mapping[str, ClassicalModel] = {
    "svm": _on_components("SVM (RBF)", _svm, C=(1.0, 10.0), has_probabilities=False),
    "random_forest": _on_components(
        "Random forest (Gini)",
        lambda seed: RandomForestClassifier(n_estimators=100, criterion="gini", random_state=seed),
    ),
    "decision_tree": _on_components(
        "Decision tree", lambda seed: DecisionTreeClassifier(random_state=seed), min_samples_leaf=(1, 5)
    ),
    "logistic_regression": _on_components("Logistic regression", _logistic, scale=True, C=(0.01, 1.0)),
    "knn": _on_components(
        "k-nearest neighbours", lambda _: KNeighborsClassifier(algorithm="brute"), n_neighbors=(1, 3)
    ),
    "gaussian_nb": _on_components("Gaussian naive Bayes", lambda _: GaussianNB()),
    "mlp": _on_components(
        "ANN (MLP)", lambda seed: MLPClassifier((100,), early_stopping=True, random_state=seed), scale=True
    ),
    "frozen_svm": _on_backbone("Frozen Xception + SVM", _svm, C=(1.0, 10.0), has_probabilities=False),
    "frozen_logistic": _on_backbone("Frozen Xception + logistic regression", _logistic, C=(0.001, 0.01, 0.1)),
}
"""The classical models by the names that flags and files use."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted model. chosen: the parameters that cross-validation chose; seconds: time for tuning and fitting."""

    pipeline: Pipeline
    chosen: dict[str, Any]
    seconds: float


class Leading(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Keep the first principal components, as many as explain a share of the variance.

    The decomposition before it explains the largest share allowed, so folds need one decomposition for all shares tried.
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
    """PCA by the Gram matrix: N scans span at most N dimensions, far fewer than pixels, so components are computed there.

    The coordinates keep all distances and angles between training scans, and the projection of any other scan on their
    principal components: these are the components of the pixels, in a tenth of the time. Only training scans are used.
    """

    def __init__(self, products: NDArray[np.float64]) -> None:
        """Compute the axes from `features.products` of the training scans, (N, N).

        Raises InputError if all scans are the same.
        """
        self._means = products.mean(axis=0)
        values, vectors = eigh(self._centred(products), driver="evd")
        if values[-1] <= _NEGLIGIBLE * np.abs(products).max():
            raise InputError(f"all {len(products)} training scans look the same: there is nothing to learn from them")
        kept = values > values[-1] * _NEGLIGIBLE
        self.axes: Floats = (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)
        self.training: Floats = (vectors[:, kept] * np.sqrt(values[kept])).astype(np.float32)
        """The coordinates of the training scans, (N, ≤ N)."""

    def coordinates(self, products: NDArray[np.float64]) -> Floats:
        """Return (M, ≤ N) float32 coordinates from `features.products` of M other scans with the training scans, (M, N)."""
        coordinates: Floats = np.asarray(self._centred(products) @ self.axes, np.float32)
        return coordinates

    def _centred(self, products: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the products of scans after subtracting the mean of the training scans from each scan."""
        centred: NDArray[np.float64] = (
            products - self._means - products.mean(axis=1, keepdims=True) + self._means.mean()
        )
        return centred


def on_pixels(fitted: Pipeline, span: Span, mean: Floats, centred: Floats) -> Pipeline:
    """Return a pipeline for `features.unit_scaled` pixels with the predictions of one fitted on a span's coordinates.

    It needs scikit-learn only. mean, centred: `features.centred` of the scans of the span, (pixels,) and (N, pixels).
    """
    pipeline = Pipeline([(name, deepcopy(step)) for name, step in fitted.steps if name != "keep"])
    pca, kept = pipeline["pca"], fitted["keep"].kept_
    pca.mean_ = pca.mean_ @ span.axes.T @ centred + mean
    pca.components_ = pca.components_[:kept] @ span.axes.T @ centred
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_"):
        setattr(pca, name, getattr(pca, name)[:kept])
    pca.n_components_, pca.n_features_in_ = kept, len(mean)
    return pipeline


def memory_bytes(scans: int, pixels: int) -> int:
    """Return an upper bound, in bytes, for fitting on `scans` training scans and mapping the result to `pixels` pixels."""
    return 4 * scans * pixels * 2 + 8 * scans**2 * 5


def fit(
    name: str, features: Floats, classes: NDArray[np.int64], groups: NDArray[np.int64], seed: int, cache: str
) -> Fitted:
    """Tune a classical model by cross-validation on these scans, then fit it to all of them.

    features (N, D) float32, classes (N,), groups (N,): scans of a group are never on both sides of a fold. The folder
    `cache` keeps the output of a pipeline's first steps for the next model that has the same steps.
    """
    start, model = time.monotonic(), CLASSICAL_MODELS[name]
    folds = list(_folds(features, classes, groups, seed))
    pipeline = Pipeline(model.steps(seed), memory=cache)
    if np.bincount(classes).min() < _EARLY_STOPPING_SCANS and "model__early_stopping" in pipeline.get_params():
        pipeline.set_params(model__early_stopping=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # cross-validation judges the model as it is
        chosen = _tuned(pipeline, model.grid, features, classes, folds)
        best = clone(pipeline).set_params(**chosen)
        if not model.has_probabilities:
            best.set_params(model=CalibratedClassifierCV(best["model"], cv=folds, ensemble=False))
        best.fit(features, classes)
    return Fitted(pipeline=best.set_params(memory=None), chosen=chosen, seconds=time.monotonic() - start)


def components(features: Floats, classes: NDArray[np.int64], groups: NDArray[np.int64], seed: int, cache: str) -> None:
    """Fill the cache with the principal components that the models on pixels will need."""
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
    """Return FOLDS folds, or as many as the rarest class has groups. Raises InputError if that is one."""
    rarest = min(len(np.unique(groups[classes == number])) for number in np.unique(classes))
    if rarest < 2:
        raise InputError(
            "a class has only one scan to learn from (copies count once), but cross-validation needs two: add scans or "
            "leave the class out with --classes"
        )
    folds = StratifiedGroupKFold(min(FOLDS, rarest), shuffle=True, random_state=seed)
    return iter(folds.split(features, classes, groups))


def stored(pipeline: Pipeline) -> bytes:
    """Return a fitted pipeline in the format of skops: types and arrays, no code. Not compressed, which would gain little."""
    data: bytes = skops.io.dumps(pipeline, compression=zipfile.ZIP_STORED)
    return data
