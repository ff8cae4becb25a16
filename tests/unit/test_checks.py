"""What configs promise to Python users: types are checked before anything starts, and natural spellings are taken."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mribatch.errors import ConfigError
from mribatch.settings.compare import BaselinesConfig
from mribatch.settings.evaluate import EvaluateConfig, PromoteConfig
from mribatch.settings.score import CompactConfig, NightlyConfig, ScoreConfig
from mribatch.settings.train import TrainConfig

REQUIRED: dict[type, dict[str, Any]] = {
    TrainConfig: {"data": "d", "output": "o"},
    ScoreConfig: {"model": "m", "input": ("i",), "output": "o"},
    NightlyConfig: {"model": "m", "input": ("i",), "output": "o"},
    PromoteConfig: {"models": "m", "candidate": "c", "data": "d", "output": "o"},
    CompactConfig: {"output": "o"},
    EvaluateConfig: {"model": "m", "data": "d", "output": "o"},
    BaselinesConfig: {"data": "d", "output": "o"},
}


def make(config: type, **settings: Any) -> Any:
    return config(**REQUIRED[config] | settings)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("samples", ("samples",)),
        (Path("a") / "b", ("a/b",)),
        (["a", Path("b")], ("a", "b")),
        (("s3://bucket/x",), ("s3://bucket/x",)),
        (iter(["a", "b"]), ("a", "b")),
    ],
)
def test_one_input_is_taken_as_one_and_paths_as_text(given: Any, taken: tuple[str, ...]) -> None:
    assert make(ScoreConfig, input=given).input == taken
    assert make(NightlyConfig, input=taken, output=Path("out")).output == "out"


def test_equal_settings_are_equal_however_they_are_spelled() -> None:
    plain = make(TrainConfig, epoch_sides=(96, 128), rotation_deg=5.0, storage="x", seed=3)
    other = make(TrainConfig, epoch_sides=[np.int64(96), 128], rotation_deg=5, storage=Path("x"), seed=np.int32(3))
    assert plain == other
    assert plain.fingerprint() == other.fingerprint()
    assert make(BaselinesConfig, models="svm").models == ("svm",)


@pytest.mark.parametrize("config", list(REQUIRED), ids=lambda config: config.__name__)
def test_every_config_checks_its_types(config: type) -> None:
    with pytest.raises(ConfigError, match=r"^output must be a text, got 3 \(int\)$"):
        make(config, output=3)
    with pytest.raises(ConfigError, match=r"^output must be a text, got None \(NoneType\)$"):
        make(config, output=None)


@pytest.mark.parametrize(
    ("config", "settings", "sentence"),
    [
        (ScoreConfig, {"batch_size": "32"}, "batch_size must be a whole number, got '32' (str)"),
        (ScoreConfig, {"batch_size": 32.0}, "batch_size must be a whole number, got 32.0 (float)"),
        (ScoreConfig, {"batch_size": True}, "batch_size must be a whole number, got True (bool)"),
        (ScoreConfig, {"limit": "10"}, "limit must be a whole number, got '10' (str)"),
        (ScoreConfig, {"max_reject_rate": "5%"}, "max_reject_rate must be a number, got '5%' (str)"),
        (ScoreConfig, {"max_reject_rate": False}, "max_reject_rate must be a number, got False (bool)"),
        (ScoreConfig, {"input": [1]}, "input must be a text, got 1 (int)"),
        (ScoreConfig, {"input": b"scans"}, "input must be a text, got b'scans' (bytes)"),
        (ScoreConfig, {"input": {"a": 1}}, "input must be a text, got {'a': 1} (dict)"),
        (ScoreConfig, {"input": Path("s3://bucket/x")}, "input must be a str for s3://…, got 's3:/bucket/x'"),
        (ScoreConfig, {"lease_s": math.inf}, "--lease-s must be a finite number, got inf"),
        (ScoreConfig, {"scan_timeout_s": math.nan}, "--scan-timeout-s must be a finite number, got nan"),
        (NightlyConfig, {"full": "no"}, "full must be True or False, got 'no' (str)"),
        (NightlyConfig, {"max_drift": math.inf}, "--max-drift must be a finite number, got inf"),
        (NightlyConfig, {"deadline": 6}, "deadline must be a text, got 6 (int)"),
        (
            TrainConfig,
            {"backbone": "Xception"},
            "one of xception, resnet50v2, cnn, got 'Xception' (str): did you mean xcep",
        ),
        (TrainConfig, {"backbone": 1}, "backbone must be one of xception, resnet50v2, cnn, got 1 (int)"),
        (TrainConfig, {"workers": "2"}, "workers must be auto or a whole number, got '2' (str)"),
        (TrainConfig, {"workers": "Auto"}, "did you mean auto?"),
        (TrainConfig, {"epoch_sides": ("96",)}, "epoch_sides must be a whole number, got '96' (str)"),
        (BaselinesConfig, {"models": ["svm", "random-forest"]}, "did you mean random_forest?"),
        (CompactConfig, {"keep_days": 1.5}, "keep_days must be a whole number, got 1.5 (float)"),
        (PromoteConfig, {"candidate": 2}, "candidate must be a text, got 2 (int)"),
    ],
)
def test_a_wrong_type_is_told_in_one_sentence(config: type, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(config, **settings)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        make(ScoreConfig, batch_size="9" * 10_000)
    assert len(str(caught.value)) < 150
