"""Bulk classification of brain-MRI scans on Ray: train, evaluate, score.

A research and triage tool, not a medical device. Names are loaded when first used, so that importing this is quick:

    from mribatch import ScoreConfig, score
    score(ScoreConfig(model="models/brain-mri-v1", input=("scans",), output="predictions"))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mribatch.config import EvaluateConfig, ScoreConfig, TrainConfig
    from mribatch.errors import MribatchError
    from mribatch.runs.evaluate import evaluate
    from mribatch.runs.score import score
    from mribatch.runs.train import train

__version__ = "0.1.0"  # here, not only in what is installed: a cluster runs the uploaded sources

__all__ = ["EvaluateConfig", "MribatchError", "ScoreConfig", "TrainConfig", "evaluate", "score", "train"]

_HOMES = {
    "EvaluateConfig": "mribatch.config",
    "MribatchError": "mribatch.errors",
    "ScoreConfig": "mribatch.config",
    "TrainConfig": "mribatch.config",
    "evaluate": "mribatch.runs.evaluate",
    "score": "mribatch.runs.score",
    "train": "mribatch.runs.train",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
