"""Define the protocol of the engines that compute a model: pixels in, probabilities, logits and features out."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mribatch.statistics.referral import Features

__all__ = ["Engine", "Outputs"]


class Outputs(NamedTuple):
    """The outputs of a model for N scans, float32."""

    probabilities: NDArray[np.float32]
    """(N, labels), rows summing to 1."""

    logits: NDArray[np.float32]
    """(N, labels): the probabilities before the softmax."""

    features: NDArray[np.float32]
    """(N, D): the input of the model's head, such as the pooled output of a backbone."""

    layers: Features | None = None
    """What referral looks at, where the engine was asked for it."""


class Engine(Protocol):
    """A loaded model that computes on this machine."""

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Compute a batch of scans, (N, side, side, 3) uint8 RGB, N ≥ 0."""
        ...
