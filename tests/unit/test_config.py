"""What the configs promise: wrong settings end before anything starts, and a command line gives a config back."""

import dataclasses
import math
import shlex
from typing import Any

import pytest

from mribatch.commands.arguments import parsed
from mribatch.errors import ConfigError
from mribatch.settings.compare import BaselinesConfig
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.score import ScoreConfig
from mribatch.settings.train import TrainConfig


def train(**settings: Any) -> TrainConfig:
    return TrainConfig(**{"data": "scans", "output": "model"} | settings)


def score(**settings: Any) -> ScoreConfig:
    return ScoreConfig(**{"model": "model", "input": ("scans",), "output": "out"} | settings)


def evaluate(**settings: Any) -> EvaluateConfig:
    return EvaluateConfig(**{"model": "model", "data": "scans", "output": "out"} | settings)


@pytest.mark.parametrize(
    ("backbone", "weights", "side_px"),
    [("xception", "imagenet", 299), ("resnet50v2", "imagenet", 224), ("cnn", "none", 96)],
)
def test_a_backbone_brings_its_weights_and_side(backbone: str, weights: str, side_px: int) -> None:
    config = train(backbone=backbone)
    assert (config.backbone_weights, config.image_side, config.sides) == (weights, side_px, (side_px,))


def test_a_start_from_another_model_records_no_backbone_weights_that_were_not_given() -> None:
    assert train(start_from="model").backbone_weights is None
    assert "--backbone-weights" not in train(start_from="model").command("jobs/train.py")


def test_what_is_given_is_kept() -> None:
    config = train(backbone_weights="weights.h5", image_side=224, epoch_sides=(96, 160))
    assert (config.backbone_weights, config.image_side) == ("weights.h5", 224)
    assert config.sides == (224, 96, 160)


def test_epochs_take_their_sides_in_order_and_the_last_one_goes_on() -> None:
    config = train(image_side=224, epoch_sides=(96, 160))
    assert [config.side_of_epoch(epoch) for epoch in range(4)] == [96, 160, 160, 160]
    assert [train(image_side=224).side_of_epoch(epoch) for epoch in (0, 9)] == [224, 224]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backbone": "cnn", "backbone_weights": "imagenet"}, "no ImageNet weights for cnn"),
        ({"image_side": 70}, "71…2048 px, got 70"),
        ({"backbone": "cnn", "image_side": 31}, "32…2048 px, got 31"),
        ({"image_side": 4096}, "got 4096"),
        ({"epoch_sides": (96, 0)}, "got 0"),
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": 0}, "--batch-size"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": -1e-3}, "--learning-rate"),
        ({"learning_rate": math.nan}, "--learning-rate"),
        ({"learning_rate": math.inf}, "--learning-rate"),
        ({"augment": "strong", "zoom": 0.1}, "--zoom are for --augment paper"),
        ({"augment": "weak"}, "augment must be one of paper, strong"),
        ({"lesion_boxes": "boxes.csv"}, "--lesion-boxes is for --augment strong"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"patience": 0}, "--patience"),
        ({"validation_fraction": 0.0}, "--validation-fraction"),
        ({"validation_fraction": 1.0}, "--validation-fraction"),
        ({"workers": 0}, "--workers"),
        ({"max_reject_rate": 1.5}, "--max-reject-rate"),
        ({"max_reject_rate": math.nan}, "--max-reject-rate"),
        ({"run_name": "a b"}, "--run-name"),
        ({"run_name": "../x"}, "--run-name"),
        ({"run_name": ""}, "--run-name"),
        ({"epochs": 2, "epoch_sides": (96, 128, 160)}, "--epoch-sides names 3 epochs, but --epochs is 2"),
        (
            {"paper_protocol": True, "validation_fraction": 0.2},
            "--validation-fraction is not used with --paper-protocol",
        ),
    ],
)
def test_a_training_that_cannot_be_is_refused_with_flag_and_value(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        train(**settings)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"input": ()}, "--input"),
        ({"batch_size": 0}, "--batch-size"),
        ({"limit": 0}, "--limit"),
        ({"model": ""}, "--model is empty: give a value, or leave it out"),
        ({"input": ("scans", "")}, "--input is empty"),
        ({"series_match": ""}, "--series-match is empty"),
        ({"part_rows": 0}, "--part-rows"),
        ({"scan_timeout_s": 0.5}, "--scan-timeout-s must be at least 1, got 0.5"),
        ({"lease_s": 0.5}, "--lease-s"),
        ({"lease_s": math.nan}, "--lease-s"),
        ({"max_reject_rate": -0.1}, "--max-reject-rate"),
        ({"exclude": ("",)}, "--exclude is a glob relative to the input, got ''"),
        ({"exclude": ("/data/x",)}, "--exclude is a glob relative"),
        ({"exclude": ("s3://bucket/x",)}, "--exclude is a glob relative"),
        ({"exclude": ("ok", "../x")}, "got '../x'"),
    ],
)
def test_a_scoring_that_cannot_be_is_refused_with_flag_and_value(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        score(**settings)


@pytest.mark.parametrize(
    ("settings", "sentence"), [({"batch_size": 0}, "--batch-size"), ({"max_reject_rate": 2.0}, "--max-reject-rate")]
)
def test_an_evaluation_that_cannot_be_is_refused_with_flag_and_value(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        evaluate(**settings)


@pytest.mark.parametrize(
    ("models", "used"),
    [
        (("svm",), {"--image-side"}),
        (("frozen_svm",), {"--image-side", "--xception-weights"}),
        (("cnn",), {"--deep-repeats", "--deep-epochs", "--precision"}),
        (
            ("resnet50v2",),
            {"--deep-repeats", "--deep-epochs", "--precision", "--deep-image-side", "--resnet50v2-weights"},
        ),
        (
            ("svm", "xception", "resnet50v2"),
            {
                "--deep-repeats",
                "--deep-epochs",
                "--precision",
                "--deep-image-side",
                "--resnet50v2-weights",
                "--xception-weights",
                "--image-side",
            },
        ),
    ],
)
def test_a_comparison_knows_the_flags_that_none_of_its_models_uses(models: Any, used: set[str]) -> None:
    given: dict[str, Any] = {
        "deep_repeats": 2,
        "deep_epochs": 9,
        "precision": "mixed_bfloat16",
        "deep_image_side": 96,
        "resnet50v2_weights": "none",
        "xception_weights": "none",
        "image_side": 96,
    }
    config = BaselinesConfig(data="scans", output="out", models=models, **given)
    assert set(config.unused) == {f"--{name.replace('_', '-')}" for name in given} - used
    assert BaselinesConfig(data="scans", output="out", models=models).unused == []


def test_the_ends_of_each_range_are_allowed() -> None:
    train(image_side=71, epochs=1, batch_size=1, patience=1, workers=1, max_reject_rate=0.0, run_name="a")
    train(image_side=2048, max_reject_rate=1.0, run_name="A-1_b.c")
    score(batch_size=1, limit=1, part_rows=1, lease_s=1.0, max_reject_rate=1.0)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        train().epochs = 3  # type: ignore[misc]


def test_equal_settings_have_equal_fingerprints_and_each_setting_counts() -> None:
    assert train().fingerprint() == train(image_side=299).fingerprint()
    assert len(train().fingerprint()) == 12
    others = [train(), train(seed=1), train(epochs=11), train(epoch_sides=(96,)), train(data="other"), train(workers=1)]
    assert len({config.fingerprint() for config in others}) == len(others)


def test_who_pays_for_requests_changes_no_fingerprint() -> None:
    """A training goes on from its checkpoints with the flag as without."""
    assert train(requester_pays=True).fingerprint() == train().fingerprint()


@pytest.mark.parametrize(
    "config",
    [
        train(),
        train(requester_pays=True),
        train(data="a folder/it's", workers=3, epoch_sides=(96, 128), paper_protocol=True, seed=7, learning_rate=1e-4),
        train(backbone="cnn", storage="s3://bucket/x", run_name="night", precision="mixed_bfloat16"),
        train(start_from="models/first", epochs=2, epoch_sides=(96, 128)),
        score(input=("a b", "c*", "s3://bucket/x"), limit=5, max_reject_rate=0.0),
        evaluate(batch_size=8),
        evaluate(exclude=("Testing/**", "a b/*.tmp")),
        score(exclude=("**/cache",), batch_size=8),
    ],
    ids=lambda config: type(config).__name__,
)
def test_the_command_of_a_config_gives_that_config_back(config: TrainConfig | ScoreConfig | EvaluateConfig) -> None:
    python, script, *flags = shlex.split(config.command("jobs/it.py"))
    assert (python, script) == ("python", "jobs/it.py")
    assert parsed(type(config), flags, "it") == config


@pytest.mark.parametrize(
    "words",
    [
        ("--input", "a", "b", "--input", "c"),
        ("--input", "a", "--batch-size", "8", "--input", "b", "c"),
        ("--input=a", "--input", "b", "--exclude", "x", "--exclude=y", "--input=c"),
    ],
)
def test_a_flag_of_several_values_may_be_repeated_and_loses_none(words: tuple[str, ...]) -> None:
    config = parsed(ScoreConfig, ["--model", "m", *words, "--output", "o"], "it")
    assert (config.model, config.input, config.output) == ("m", ("a", "b", "c"), "o")


def test_a_config_is_ready_for_json() -> None:
    assert score(input=("a", "b")).as_dict()["input"] == ["a", "b"]
