"""Settings of `train`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mribatch.settings.base import RUN_NAME, Globs, MaybeNumber, MaybeUri, Settings, Uri, check, check_share

__all__ = [
    "Backbone",
    "TrainConfig",
]

Backbone = Literal["xception", "resnet50v2", "cnn"]


MIN_SIDE_PX = {"xception": 71, "resnet50v2": 32, "cnn": 32}  # below, the last feature map is empty
_IMAGE_SIDE_PX = {"xception": 299, "resnet50v2": 224, "cnn": 96}  # what each was designed for; cnn: for speed
_LEARNING_RATE = {"xception": 1e-3, "resnet50v2": 1e-3, "cnn": 3e-3}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Fine-tune a classifier on labelled scans and write a model directory."""

    data: Uri
    """Labelled scans: ROOT/<class>/…, ROOT/Training|Validation|Testing/<class>/…, or a manifest (CSV, TSV or Parquet
    with the columns uri, label and, if wanted, split and patient_id). Local path or s3://…"""

    exclude: Globs = ()
    """Leave out of --data what this glob matches, such as 'cache/**': relative to --data, with *, ?, [a-z] and **."""

    output: Uri
    """The model directory to write. Local path or s3://…"""

    backbone: Backbone = "xception"
    """The network under the head. cnn is small and trains from nothing."""

    backbone_weights: Annotated[str | None, tyro.conf.arg(metavar="imagenet|FILE|none")] = None
    """imagenet (downloaded by Keras), a weights FILE (for machines without internet), or none. Default: imagenet;
    none for cnn, which has no others."""

    start_from: MaybeUri = None
    """A model directory of the same backbone and labels to start from; replaces --backbone-weights."""

    image_side: MaybeNumber = None
    """Side of the square images the network sees, in pixels. Default: 299 for xception, 224 for resnet50v2,
    96 for cnn."""

    epoch_sides: tuple[int, ...] = ()
    """Sides, in pixels, for the epochs in order; the last one goes on. Small first saves time. Default: image-side."""

    epochs: int = 10
    """Passes over the training scans."""

    batch_size: int = 32
    """Scans per worker and step; the global batch is this times the workers."""

    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """What the network computes in while it trains; mixed_bfloat16 is faster on GPUs and on CPUs that know bfloat16."""

    learning_rate: Annotated[float | None, tyro.conf.arg(metavar="RATE")] = None
    """Adamax's peak rate, after a short warm-up and before a cosine decay to 0. Default: 1e-3; 3e-3 for cnn, which
    starts from nothing."""

    rotation_deg: float = 0.0
    """Each training scan is turned by up to so many degrees, either way, beside the paper's brightness and flip."""

    zoom: float = 0.0
    """Each training scan is enlarged or shrunk by up to this share."""

    average: float = 0.0
    """Momentum of a moving average of the weights, step by step, such as 0.995; the average is then what is validated
    and kept. 0: the weights themselves."""

    patience: int = 3
    """Epochs without a lower validation loss after which training stops early."""

    keep: Literal["best", "last"] = "best"
    """Whose weights become the model: those of the epoch with the lowest validation loss, or of the last epoch, where
    the schedule has come to rest and the validation scans are too few to choose."""

    validation_fraction: float = 0.1
    """Share of the training scans kept for validation where the data names no validation split."""

    paper_protocol: bool = False
    """Keep the published folders and halve Testing into validation and test, copies and all, as the paper did."""

    workers: Annotated[Literal["auto"] | int, tyro.conf.arg(metavar="auto|N")] = "auto"
    """Training workers; auto: one per GPU, else one per node."""

    storage: MaybeUri = None
    """Where checkpoints go; local path or s3://… (shared by all nodes). Default: OUTPUT/../_training."""

    run_name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A run with the name of an earlier one goes on where that one was. Default: from the settings."""

    seed: int = 0
    """Decides the split, the first weights, the order of scans and the augmentation."""

    max_reject_rate: float = 0.05
    """Training stops before it starts when a larger share of the scans is unreadable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        smallest = MIN_SIDE_PX[self.backbone]
        if self.backbone_weights is None and self.start_from is None:
            object.__setattr__(self, "backbone_weights", "none" if self.backbone == "cnn" else "imagenet")
        if self.image_side is None:
            object.__setattr__(self, "image_side", _IMAGE_SIDE_PX[self.backbone])
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", _LEARNING_RATE[self.backbone])
        check(
            (self.backbone, self.backbone_weights) != ("cnn", "imagenet"),
            "there are no ImageNet weights for cnn: pass --backbone-weights none or a file",
        )
        for side in self.sides:
            check(smallest <= side <= 2048, f"image sides for {self.backbone} lie in {smallest}…2048 px, got {side}")
        check(1 <= self.epochs <= 10_000, f"--epochs must be 1 or more, got {self.epochs}")
        check(
            len(self.epoch_sides) <= self.epochs,
            f"--epoch-sides names {len(self.epoch_sides)} epochs, but --epochs is {self.epochs}: name fewer, or train longer",
        )
        check(
            not (self.paper_protocol and self.changed("validation_fraction")),
            "--validation-fraction is not used with --paper-protocol, which halves Testing: leave one of them out",
        )
        check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        check(0 < self.peak_rate < 10, f"--learning-rate must lie in 0…10, got {self.learning_rate}")
        check(0 <= self.rotation_deg <= 180, f"--rotation-deg must lie in 0…180, got {self.rotation_deg}")
        check(0 <= self.zoom < 1, f"--zoom must lie in 0…1, got {self.zoom}")
        check(0 <= self.average < 1, f"--average must lie in 0…1, got {self.average}")
        check(self.patience >= 1, f"--patience must be 1 or more, got {self.patience}")
        check(
            0 < self.validation_fraction < 1, f"--validation-fraction must lie in 0…1, got {self.validation_fraction}"
        )
        check(self.workers == "auto" or self.workers >= 1, f"--workers must be auto or 1 and more, got {self.workers}")
        check_share("--max-reject-rate", self.max_reject_rate)
        if self.run_name is not None:
            check(
                bool(RUN_NAME.fullmatch(self.run_name)),
                f"--run-name takes letters, digits, '.', '_' and '-', got {self.run_name!r}",
            )

    def side_of_epoch(self, epoch: int) -> int:
        """The image side, in pixels, at which epoch 0, 1, … trains."""
        sides = self.epoch_sides or self.sides
        return sides[min(epoch, len(sides) - 1)]

    @property
    def peak_rate(self) -> float:
        """The learning rate, filled."""
        assert self.learning_rate is not None  # __post_init__ filled it
        return self.learning_rate

    @property
    def sides(self) -> tuple[int, ...]:
        """All image sides in use, in pixels; the model's own comes first."""
        assert self.image_side is not None  # __post_init__ filled it
        return (self.image_side, *self.epoch_sides)
