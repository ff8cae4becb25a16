"""Settings of `baselines`, the comparison of models."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import tyro

from mribatch.settings.base import Globs, Settings, Uri, check, check_share
from mribatch.settings.train import MIN_SIDE_PX, Backbone, TrainConfig

__all__ = ["BASELINES", "Baseline", "BaselinesConfig"]


Baseline = Literal["svm", "random_forest", "decision_tree", "logistic_regression", "knn", "gaussian_nb", "mlp", "frozen_svm",
                   "frozen_logistic", "cnn", "resnet50v2", "xception"]  # fmt: skip


BASELINES: tuple[Baseline, ...] = get_args(Baseline)


_CNN_EPOCHS = 4  # times those of the other deep models: it is small and starts from nothing


class TrainingOfBaselines(TrainConfig):
    """A training that is part of a comparison. Its messages name the flags of that command, which has no others."""

    def _flag(self, name: str) -> str | None:
        own = {"backbone_weights": f"--{self.backbone}-weights", "image_side": "--deep-image-side", "epochs": "--deep-epochs",
               "run_name": "--output", "storage": "--output"}  # fmt: skip
        kept = ("data", "output", "batch_size", "precision", "seed", "max_reject_rate")
        return own.get(name) or (super()._flag(name) if name in kept else None)


@dataclass(frozen=True, kw_only=True)
class BaselinesConfig(Settings):
    """Compare the paper's models, and a few more, on labelled scans: repeated splits, tables, tests, a page."""

    data: Uri
    """Labelled scans, as for training; their splits are not used. Local path or s3://…"""

    exclude: Globs = ()
    """Leave out of --data what this glob matches, such as 'cache/**': relative to --data, with *, ?, [a-z] and **."""

    output: Uri
    """The folder for comparison.parquet, .md and .html, the figures, and the models. Local path or s3://…"""

    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS CLASS …")] = ()
    """The classes to tell apart; of two, the last is the positive one. Default: all that the data has."""

    models: tuple[Baseline, ...] = BASELINES
    """Which models take part."""

    image_side: int = 200
    """Side of the square images that the classical models see, in pixels."""

    repeats: int = 5
    """How often the scans are split anew, and every model fitted."""

    test_fraction: float = 0.2
    """Share of the scans of each split that nothing is learnt from."""

    paper_protocol: bool = False
    """Split scan by scan, so that copies of one image stand on both sides, as the paper did. The table then also
    tells the accuracy on scans without a copy."""

    xception_weights: Annotated[str, tyro.conf.arg(metavar="imagenet|FILE|none")] = "imagenet"
    """The weights that the frozen and the trained Xception begin with."""

    resnet50v2_weights: Annotated[str, tyro.conf.arg(metavar="imagenet|FILE|none")] = "imagenet"
    """The weights that ResNet50V2 begins with."""

    deep_repeats: int = 1
    """How many of the splits the cnn, ResNet50V2 and Xception are trained on."""

    deep_epochs: int = 3
    """Their budget: passes over the training scans; four times as many for the cnn, which is small and starts from nothing."""

    deep_image_side: int = 128
    """Side of the square images that ResNet50V2 and Xception see, in pixels; the cnn has its own 96."""

    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """What they compute in while they train."""

    batch_size: int = 32
    """Scans per step and forward pass."""

    seed: int = 0
    """Decides the splits, the folds, and all that is random in a model."""

    max_reject_rate: float = 0.05
    """The comparison does not begin when a larger share of the scans is unreadable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.classes) != 1, "--classes needs two classes or more, or none for all")
        check(len(set(self.classes)) == len(self.classes), f"--classes names a class twice: {' '.join(self.classes)}")
        check(len(self.models) > 0, "--models needs one model at least")
        check(len(set(self.models)) == len(self.models), f"--models names a model twice: {' '.join(self.models)}")
        check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        check(self.seed >= 0, f"--seed must be 0 or more, got {self.seed}")
        check(16 <= self.image_side <= 512, f"--image-side must be 16…512, got {self.image_side}")
        check(1 <= self.repeats <= 100, f"--repeats must be 1…100, got {self.repeats}")
        check(0 < self.test_fraction < 1, f"--test-fraction must lie in 0…1, got {self.test_fraction}")
        check(
            1 <= self.deep_repeats <= self.repeats,
            f"--deep-repeats must lie in 1…{self.repeats}, as --repeats says, got {self.deep_repeats}",
        )
        check(1 <= self.deep_epochs <= 2500, f"--deep-epochs must be 1…2500, got {self.deep_epochs}")
        deep = [MIN_SIDE_PX[name] for name in ("resnet50v2", "xception") if name in self.models]
        smallest = max(deep, default=1)
        check(
            smallest <= self.deep_image_side <= 2048,
            f"--deep-image-side must be {smallest}…2048 for these models, got {self.deep_image_side}",
        )
        check_share("--max-reject-rate", self.max_reject_rate)
        if any(name.startswith("frozen") for name in self.models):
            smallest = MIN_SIDE_PX["xception"]
            check(self.image_side >= smallest, f"--image-side for the frozen Xception is {smallest} or more")
        for backbone in get_args(Backbone):
            if backbone in self.models:
                self.training(backbone, data="…", output="…")  # what it asks for must be possible

    @property
    def unused(self) -> list[str]:
        """The flags that were given, but that concern none of the models."""
        names = []
        if not {*self.models} & {*get_args(Backbone)}:
            names += ["deep_repeats", "deep_epochs", "precision"]
        if not {*self.models} & {"xception", "resnet50v2"}:
            names += ["deep_image_side"]
        if "resnet50v2" not in self.models:
            names += ["resnet50v2_weights"]
        if not any(name == "xception" or name.startswith("frozen") for name in self.models):
            names += ["xception_weights"]
        if {*self.models} <= {*get_args(Backbone)}:
            names += ["image_side"]
        return self.changed(*names)

    def training(self, backbone: Backbone, *, data: str, output: str, **more: Any) -> TrainConfig:
        """How one of the deep models is trained, on the labelled scans `data`, into `output`."""
        small = backbone == "cnn"
        weights = {"cnn": "none", "xception": self.xception_weights, "resnet50v2": self.resnet50v2_weights}
        return TrainingOfBaselines(
            data=data, output=output, backbone=backbone, backbone_weights=weights[backbone],
            image_side=None if small else self.deep_image_side, epochs=self.deep_epochs * (_CNN_EPOCHS if small else 1),
            batch_size=self.batch_size, precision=self.precision, patience=1000, keep="last", seed=self.seed,
            max_reject_rate=self.max_reject_rate, **more,
        )  # fmt: skip
