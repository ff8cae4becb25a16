"""Bulk classification of brain-MRI scans on Ray: train, evaluate, score, every night again.

A research and triage tool, not a medical device. Names are loaded when first used, so that importing this is quick:

    from mribatch import ScoreConfig, score
    score(ScoreConfig(model="models/brain-mri-v2", input=("scans",), output="predictions"))
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mribatch.version import __version__

if TYPE_CHECKING:
    from mribatch.commands.accept import accept
    from mribatch.commands.adapt import adapt
    from mribatch.commands.audit import audit
    from mribatch.commands.calibrate import calibrate
    from mribatch.commands.compact import compact
    from mribatch.commands.compare import compare
    from mribatch.commands.evaluate import evaluate
    from mribatch.commands.explain import explain
    from mribatch.commands.export import export
    from mribatch.commands.nightly import nightly
    from mribatch.commands.promote import promote
    from mribatch.commands.read_predictions import read_predictions
    from mribatch.commands.score import score
    from mribatch.commands.studies import studies
    from mribatch.commands.train import train
    from mribatch.errors import MribatchError
    from mribatch.settings.audit import AuditConfig
    from mribatch.settings.calibrate import CalibrateConfig
    from mribatch.settings.compare import BaselinesConfig
    from mribatch.settings.evaluate import EvaluateConfig, PromoteConfig
    from mribatch.settings.explain import ExplainConfig
    from mribatch.settings.export import ExportConfig
    from mribatch.settings.score import CompactConfig, NightlyConfig, ScoreConfig
    from mribatch.settings.site import AcceptConfig, AdaptConfig
    from mribatch.settings.studies import StudiesConfig
    from mribatch.settings.train import TrainConfig


__all__ = [
    "AcceptConfig",
    "AdaptConfig",
    "AuditConfig",
    "BaselinesConfig",
    "CalibrateConfig",
    "CompactConfig",
    "EvaluateConfig",
    "ExplainConfig",
    "ExportConfig",
    "MribatchError",
    "NightlyConfig",
    "PromoteConfig",
    "ScoreConfig",
    "StudiesConfig",
    "TrainConfig",
    "__version__",
    "accept",
    "adapt",
    "audit",
    "calibrate",
    "compact",
    "compare",
    "evaluate",
    "explain",
    "export",
    "nightly",
    "promote",
    "read_predictions",
    "score",
    "studies",
    "train",
]

_HOMES = {
    "AcceptConfig": "mribatch.settings.site",
    "AdaptConfig": "mribatch.settings.site",
    "AuditConfig": "mribatch.settings.audit",
    "BaselinesConfig": "mribatch.settings.compare",
    "CalibrateConfig": "mribatch.settings.calibrate",
    "CompactConfig": "mribatch.settings.score",
    "EvaluateConfig": "mribatch.settings.evaluate",
    "NightlyConfig": "mribatch.settings.score",
    "PromoteConfig": "mribatch.settings.evaluate",
    "ExplainConfig": "mribatch.settings.explain",
    "ExportConfig": "mribatch.settings.export",
    "MribatchError": "mribatch.errors",
    "ScoreConfig": "mribatch.settings.score",
    "StudiesConfig": "mribatch.settings.studies",
    "TrainConfig": "mribatch.settings.train",
    "accept": "mribatch.commands.accept",
    "adapt": "mribatch.commands.adapt",
    "audit": "mribatch.commands.audit",
    "calibrate": "mribatch.commands.calibrate",
    "compact": "mribatch.commands.compact",
    "compare": "mribatch.commands.compare",
    "evaluate": "mribatch.commands.evaluate",
    "explain": "mribatch.commands.explain",
    "export": "mribatch.commands.export",
    "nightly": "mribatch.commands.nightly",
    "promote": "mribatch.commands.promote",
    "read_predictions": "mribatch.commands.read_predictions",
    "score": "mribatch.commands.score",
    "studies": "mribatch.commands.studies",
    "train": "mribatch.commands.train",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
