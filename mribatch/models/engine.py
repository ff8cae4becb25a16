"""Define the protocol of the engines that compute a model, and choose one: pixels in, probabilities, logits, features out."""

import os
from glob import glob
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import ConfigError
from mribatch.models.format import Model
from mribatch.statistics.referral import Features

__all__ = ["Choice", "Engine", "Name", "Outputs", "chosen", "library", "sees_a_gpu", "takes_gpus"]

Choice = Literal["auto", "openvino", "tensorflow"]
Name = Literal["openvino", "tensorflow", "scikit-learn"]


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


def chosen(wanted: Choice | Name, model: Model, *, on_gpu: bool) -> Name:
    """Return the engine that computes a model: the wanted one, or the best one for this kind of machine.

    Raises ConfigError for one that is not installed or cannot compute the model.
    """
    if model.is_classical:
        if wanted in ("openvino", "tensorflow"):
            raise ConfigError(
                f"--engine {wanted} computes networks, the {model.kind} in {model.uri} is computed by scikit-learn: leave "
                "--engine out"
            )
        return "scikit-learn"
    if model.precision != "f32" and wanted == "tensorflow":
        raise ConfigError(
            f"--engine tensorflow computes in float32, and the model in {model.uri} has {model.precision} precision, which is "
            "computed by OpenVINO: leave --engine out, or score with the model that it was exported from"
        )
    is_installed = library("openvino") is not None
    if model.precision != "f32" and not is_installed:
        raise ConfigError(
            f"the model in {model.uri} has {model.precision} precision and needs the package openvino, which is not installed "
            "here: install the packages in requirements.lock, or score with the model that it was exported from"
        )
    if wanted == "openvino" and not is_installed:
        raise ConfigError(
            "--engine openvino needs the package openvino, which is not installed here: install the packages in "
            "requirements.lock, or score with --engine tensorflow"
        )
    if wanted == "auto":
        on_cpu = not on_gpu or model.precision != "f32"
        return "openvino" if is_installed and on_cpu else "tensorflow"
    return wanted


def takes_gpus(wanted: Choice | Name, model: Model) -> bool:
    """Return whether GPUs, where there are any, may compute a model. OpenVINO computes on CPUs, and reduced precision too."""
    return wanted != "openvino" and model.precision == "f32"


def library(engine: Name) -> str | None:
    """Return the installed version of an engine's library; None if there is none."""
    try:
        return version(engine)
    except PackageNotFoundError:
        return None


def sees_a_gpu() -> bool:
    """Return whether this process may use an NVIDIA GPU, as CUDA_VISIBLE_DEVICES says or else the machine's devices."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return visible not in ("", "-1", "NoDevFiles")
    return bool(glob("/dev/nvidia[0-9]*"))
