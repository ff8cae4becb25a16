"""The scikit-learn engine: load a stored classical model and compute probabilities with it."""

import zipfile

import numpy as np
import sklearn
import skops.io
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from skops.io.exceptions import UntrustedTypesFoundException

from mribatch.errors import ModelError
from mribatch.models import directory, features
from mribatch.models.engine import Outputs
from mribatch.models.features import Floats
from mribatch.models.format import Model

__all__ = ["ClassicalEngine", "probabilities"]

_TRUSTED = [  # parts of our models that skops does not trust by default; none of them runs what a file says
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
]


class ClassicalEngine:
    """A stored classical model as an `Engine`.

    Raises ModelError for a file with types that are not trusted, or of another version of scikit-learn.
    """

    def __init__(self, model: Model) -> None:
        fitted_with = str(model.facts["libraries"]["scikit-learn"])
        if fitted_with.split(".")[:2] != sklearn.__version__.split(".")[:2]:
            raise ModelError(
                f"the model in {model.uri} was fitted with scikit-learn {fitted_with}, installed is {sklearn.__version__}: "
                "install that version, or fit the model again with `mribatch baselines`"
            )
        self._labels = len(model.labels)
        self._pipeline = _load_pipeline(model)
        self._backbone = None
        if model.has_network:
            weights = directory.read_file(model, "features")
            self._backbone = features.FrozenBackbone(weights, model.image_spec.side_px)

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        inputs = features.unit_scaled(features.grey(pixels)) if self._backbone is None else self._backbone(pixels)
        shares = probabilities(self._pipeline, inputs, self._labels)
        return Outputs(shares, np.log(np.maximum(shares, np.finfo(np.float32).tiny)), inputs)


def probabilities(pipeline: Pipeline, inputs: Floats, classes: int) -> Floats:
    """Return (N, classes) float32 for (N, D) float32 features; 0 for classes that the pipeline was not fitted on."""
    shares = np.zeros((len(inputs), classes), np.float32)
    if len(inputs):
        shares[:, pipeline.classes_] = pipeline.predict_proba(inputs)
    return shares


def _load_pipeline(model: Model) -> Pipeline:
    data = directory.read_file(model, "weights")
    try:
        return skops.io.loads(data, trusted=_TRUSTED)
    except UntrustedTypesFoundException as err:
        foreign = sorted(set(skops.io.get_untrusted_types(data=data)) - set(_TRUSTED))
        raise ModelError(
            f"the classifier in {model.uri} contains types that are not trusted ({', '.join(foreign)}): it was not written "
            "by `mribatch baselines`; do not use it"
        ) from err
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError) as err:
        raise ModelError(
            f"the classifier in {model.uri} cannot be read ({type(err).__name__}): fit it again with `mribatch baselines`"
        ) from err
