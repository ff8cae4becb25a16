"""Bulk classification of brain-MRI scans on Ray: train, evaluate, score, every night again.

A research and triage tool, not a medical device. Names are loaded when first used, so that importing this is quick:

    from mribatch import ScoreConfig, score
    score(ScoreConfig(model="models/brain-mri-v1", input=("scans",), output="predictions"))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mribatch.config import (
        BaselinesConfig,
        CompactConfig,
        EvaluateConfig,
        NightlyConfig,
        PromoteConfig,
        ScoreConfig,
        TrainConfig,
    )
    from mribatch.errors import MribatchError
    from mribatch.runs.baselines import compare
    from mribatch.runs.compact import compact
    from mribatch.runs.evaluate import evaluate
    from mribatch.runs.nightly import nightly
    from mribatch.runs.predictions import read_predictions
    from mribatch.runs.promote import promote
    from mribatch.runs.score import score
    from mribatch.runs.train import train

__version__ = "0.1.0"  # here, not only in what is installed: a cluster runs the uploaded sources

__all__ = [
    "BaselinesConfig",
    "CompactConfig",
    "EvaluateConfig",
    "MribatchError",
    "NightlyConfig",
    "PromoteConfig",
    "ScoreConfig",
    "TrainConfig",
    "compact",
    "compare",
    "evaluate",
    "nightly",
    "promote",
    "read_predictions",
    "score",
    "train",
]

_HOMES = {
    "BaselinesConfig": "mribatch.config",
    "CompactConfig": "mribatch.config",
    "EvaluateConfig": "mribatch.config",
    "NightlyConfig": "mribatch.config",
    "PromoteConfig": "mribatch.config",
    "MribatchError": "mribatch.errors",
    "ScoreConfig": "mribatch.config",
    "TrainConfig": "mribatch.config",
    "compact": "mribatch.runs.compact",
    "compare": "mribatch.runs.baselines",
    "evaluate": "mribatch.runs.evaluate",
    "nightly": "mribatch.runs.nightly",
    "promote": "mribatch.runs.promote",
    "read_predictions": "mribatch.runs.predictions",
    "score": "mribatch.runs.score",
    "train": "mribatch.runs.train",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
