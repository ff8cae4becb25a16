"""Settings of `baselines`, the comparison of models."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from mribatch.settings.base import BATCH_SCANS, Settings, check, check_range
from mribatch.settings.flags import Flag
from mribatch.settings.train import MAX_SIDE_PX, MIN_SIDE_PX, Backbone, TrainConfig

__all__ = ["BASELINES", "Baseline", "BaselinesConfig"]

Baseline = Literal[
    "svm",
    "random_forest",
    "decision_tree",
    "logistic_regression",
    "knn",
    "gaussian_nb",
    "mlp",
    "frozen_svm",
    "frozen_logistic",
    "cnn",
    "resnet50v2",
    "xception",
]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)

_CNN_EPOCHS = 4  # times those of the other deep models: it is small and is trained from scratch


class TrainingOfBaselines(TrainConfig):
    """A training run that is part of a comparison. Its messages name the flags of the comparison."""

    def _flag(self, name: str) -> str | None:
        renamed = {
            "backbone_weights": f"--{self.backbone}-weights",
            "image_side": "--deep-image-side",
            "epochs": "--deep-epochs",
            "run_name": "--output",
            "storage": "--output",
        }
        kept = ("data", "groups", "output", "batch_size", "precision", "seed", "max_reject_rate")
        return renamed.get(name) or (super()._flag(name) if name in kept else None)


@dataclass(frozen=True, kw_only=True)
class BaselinesConfig(Settings):
    """Compare the paper's models, and a few more, on labelled scans: repeated splits, a table, tests and a page."""

    data: Annotated[str, Flag("Input", "URI")]
    """Labelled scans, laid out as for training; splits in the data are not used. A local path or s3://…"""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to --data and may use *, ?, [a-z] and **.
    May be given several times."""

    groups: Annotated[str | None, Flag("Input", "URI", "near copies are looked for")] = None
    """clusters.parquet that `mribatch audit` wrote for these scans. Near copies, and the scans of a patient, are kept on one
    side of each split."""

    other_source: Annotated[str | None, Flag("Input", "URI", "not measured")] = None
    """Labelled scans from another source, laid out as for training, to try the models of the first split on."""

    output: Annotated[str, Flag("Output", "URI")]
    """Folder for comparison.parquet, .md and .html, the figures and the models: a local path or s3://…"""

    classes: Annotated[tuple[str, ...], Flag("Input", "CLASS", "all classes in the data")] = ()
    """Classes to tell apart. Of two classes, the last is the positive one."""

    models: Annotated[tuple[Baseline, ...], Flag("Comparison", "MODEL", "all of them")] = BASELINES
    """Models to compare."""

    image_side: Annotated[int, Flag("Comparison", "PIXELS")] = 200
    """Side of the square images that the classical models get."""

    repeats: Annotated[int, Flag("Comparison", "N")] = 5
    """Number of random splits; every classical model is fitted once per split."""

    test_fraction: Annotated[float, Flag("Comparison", "SHARE")] = 0.2
    """Share of the scans held out for testing in each split."""

    paper_protocol: Annotated[bool, Flag("Comparison")] = False
    """Split scan by scan, as the paper did, so that near copies may be on both sides. The table then shows the accuracy on
    all test scans, as published, and on those without a near copy or patient among the training scans."""

    xception_weights: Annotated[str, Flag("Training", "imagenet|FILE|none")] = "imagenet"
    """Initial weights of Xception, for training and for frozen features."""

    resnet50v2_weights: Annotated[str, Flag("Training", "imagenet|FILE|none")] = "imagenet"
    """Initial weights of ResNet50V2."""

    deep_repeats: Annotated[int, Flag("Training", "N")] = 1
    """Number of the splits on which cnn, resnet50v2 and xception are trained."""

    deep_epochs: Annotated[int, Flag("Training", "N")] = 3
    """Passes of resnet50v2 and xception over the training scans. cnn, which is trained from scratch, gets four times as
    many."""

    deep_image_side: Annotated[int, Flag("Training", "PIXELS")] = 128
    """Side of the square images that resnet50v2 and xception get; cnn always gets 96 pixels."""

    precision: Annotated[Literal["float32", "mixed_bfloat16"], Flag("Training")] = "float32"
    """Arithmetic of training cnn, resnet50v2 and xception."""

    batch_size: Annotated[int, Flag("Machine", "SCANS")] = 32
    """Scans per training step and per forward pass."""

    seed: Annotated[int, Flag("Comparison", "N")] = 0
    """Seed of the splits, the folds and everything random in a model."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Do not start the comparison if more than this share (0 to 1) of the scans is unreadable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.classes) != 1, "--classes needs two classes or more, or none for all")
        check(len(set(self.classes)) == len(self.classes), f"--classes names a class twice: {' '.join(self.classes)}")
        check(len(self.models) > 0, "--models needs at least one model")
        check(len(set(self.models)) == len(self.models), f"--models names a model twice: {' '.join(self.models)}")
        check_range(self, "batch_size", least=1, most=BATCH_SCANS)
        check_range(self, "seed", least=0)
        check_range(self, "repeats", least=1, most=100)
        check_range(self, "test_fraction", above=0, below=1)
        check_range(self, "deep_repeats", least=1, most=self.repeats)
        check_range(self, "deep_epochs", least=1, most=2500)
        check_range(self, "max_reject_rate", least=0, most=1)
        has_frozen = any(name.startswith("frozen") for name in self.models)
        check_range(self, "image_side", least=MIN_SIDE_PX["xception"] if has_frozen else 16, most=512)
        deep = [MIN_SIDE_PX[name] for name in ("resnet50v2", "xception") if name in self.models]
        check_range(self, "deep_image_side", least=max(deep, default=1), most=MAX_SIDE_PX)
        for backbone in get_args(Backbone):
            if backbone in self.models:
                self.training(backbone, data="…", output="…")  # raises ConfigError for settings it cannot have

    @property
    def unused(self) -> list[str]:
        """The flags that were given although none of the models uses them."""
        chosen, deep = {*self.models}, {*get_args(Backbone)}
        uses = {
            "deep_repeats": bool(chosen & deep),
            "deep_epochs": bool(chosen & deep),
            "precision": bool(chosen & deep),
            "deep_image_side": bool(chosen & {"xception", "resnet50v2"}),
            "resnet50v2_weights": "resnet50v2" in chosen,
            "xception_weights": bool(chosen & {"xception", "frozen_svm", "frozen_logistic"}),
            "image_side": not chosen <= deep,
        }
        return self.changed(*(name for name, used in uses.items() if not used))

    def training(self, backbone: Backbone, *, data: str, output: str, **more: Any) -> TrainConfig:
        """Return the settings for training one of the deep models on the labelled scans `data`, into `output`."""
        weights = {"cnn": "none", "xception": self.xception_weights, "resnet50v2": self.resnet50v2_weights}
        is_cnn = backbone == "cnn"
        return TrainingOfBaselines(
            data=data,
            output=output,
            backbone=backbone,
            backbone_weights=weights[backbone],
            image_side=None if is_cnn else self.deep_image_side,
            epochs=self.deep_epochs * (_CNN_EPOCHS if is_cnn else 1),
            batch_size=self.batch_size,
            precision=self.precision,
            patience=1000,
            keep="last",
            seed=self.seed,
            max_reject_rate=self.max_reject_rate,
            **more,
        )
