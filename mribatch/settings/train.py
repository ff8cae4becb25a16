"""Settings of `train`."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mribatch.settings.base import BATCH_SCANS, RUN_NAME, Settings, check, check_range
from mribatch.settings.flags import Flag

__all__ = ["MAX_SIDE_PX", "MIN_SIDE_PX", "Backbone", "TrainConfig"]

Backbone = Literal["xception", "resnet50v2", "cnn"]

MIN_SIDE_PX = {"xception": 71, "resnet50v2": 32, "cnn": 32}  # below, the last feature map is empty
MAX_SIDE_PX = 2048
_IMAGE_SIDE_PX = {"xception": 299, "resnet50v2": 224, "cnn": 96}  # what each was designed for; cnn: for speed
_LEARNING_RATE = {"xception": 1e-3, "resnet50v2": 1e-3, "cnn": 3e-3}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Fine-tune a classifier on labelled scans and write a model directory."""

    data: Annotated[str, Flag("Input", "URI")]
    """Labelled scans: ROOT/<class>/…, ROOT/Training|Validation|Testing/<class>/…, or a manifest (CSV, TSV or Parquet with
    the columns uri and label and, optionally, split and patient_id). A local path or s3://…"""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to --data and may use *, ?, [a-z] and **.
    May be given several times."""

    groups: Annotated[str | None, Flag("Input", "URI", "near copies are looked for")] = None
    """clusters.parquet that `mribatch audit` wrote for these scans. Near copies, and the scans of a patient, are kept on one
    side of the split."""

    allow_leaks: Annotated[bool, Flag("Input")] = False
    """Train although validation or test scans of the data are near copies of earlier scans, or of the same patients. The
    model's card then says that its figures leak."""

    output: Annotated[str, Flag("Output", "URI")]
    """Model directory to write: a local path or s3://…"""

    backbone: Annotated[Backbone, Flag("Model")] = "xception"
    """Network below the classification head. cnn is small and is trained from scratch."""

    backbone_weights: Annotated[str | None, Flag("Model", "imagenet|FILE|none", "imagenet, or none for cnn")] = None
    """Initial weights: imagenet (downloaded by Keras), a weights FILE (for machines without internet access), or none.
    There are no ImageNet weights for cnn."""

    start_from: Annotated[str | None, Flag("Model", "URI", "not used")] = None
    """Model directory to start from, with the same backbone and labels; replaces --backbone-weights."""

    image_side: Annotated[int | None, Flag("Model", "PIXELS", "299 for xception, 224 for resnet50v2, 96 for cnn")] = (
        None
    )
    """Side of the square images that the network gets."""

    epoch_sides: Annotated[tuple[int, ...], Flag("Training", "PIXELS", "--image-side in every epoch")] = ()
    """Image sides for the first epochs, in order; the last one is kept for the remaining epochs. Small images first save
    time."""

    epochs: Annotated[int, Flag("Training", "N")] = 10
    """Passes over the training scans."""

    batch_size: Annotated[int, Flag("Training", "SCANS")] = 32
    """Scans per worker and step. The global batch is this number times the number of workers."""

    precision: Annotated[Literal["float32", "mixed_bfloat16"], Flag("Training")] = "float32"
    """Arithmetic of training. mixed_bfloat16 is faster on GPUs, and on CPUs that support bfloat16."""

    learning_rate: Annotated[float | None, Flag("Training", "RATE", "0.001, or 0.003 for cnn")] = None
    """Peak learning rate of Adamax, after a short warm-up and before a cosine decay to 0."""

    augment: Annotated[Literal["paper", "strong"], Flag("Training")] = "paper"
    """Random changes of each training scan. paper: brightness and flip. strong: also grey curves, shading, contrast,
    inversion, blur, noise, JPEG, another head size, place, tilt and background. With it, brightness, border and head size
    say nothing of the class. Scans become grey."""

    lesion_boxes: Annotated[str | None, Flag("Training", "URI", "not used")] = None
    """CSV with the columns scan, x0, y0, x1, y1: the lesion's box in training scans, in shares of width and height; scan is
    a path below --data. An eighth of these scans are then shown with their lesion painted out, as scans of class
    --no-tumour. For --augment strong."""

    no_tumour: Annotated[str, Flag("Training", "CLASS")] = "notumor"
    """Class of scans without a tumour, for --lesion-boxes."""

    label_smoothing: Annotated[float, Flag("Training", "SHARE")] = 0.0
    """Share of each label that is spread evenly over all classes, for example 0.1. It keeps the network from confidence
    that its training scans do not support."""

    rotation_deg: Annotated[float, Flag("Training", "DEGREES")] = 0.0
    """Rotate each training scan by a random angle of up to this many degrees, in addition to the paper's brightness
    change and flip."""

    zoom: Annotated[float, Flag("Training", "SHARE")] = 0.0
    """Enlarge or shrink each training scan by a random share of up to this much, for example 0.1."""

    average: Annotated[float, Flag("Training", "MOMENTUM")] = 0.0
    """Momentum of a moving average of the weights over the training steps, for example 0.995. The averaged weights are
    then validated and saved. 0 turns averaging off."""

    patience: Annotated[int, Flag("Training", "EPOCHS")] = 3
    """Stop early after this many epochs without a lower validation loss."""

    keep: Annotated[Literal["best", "last"], Flag("Training")] = "best"
    """Weights to save: best, those of the epoch with the lowest validation loss, or last, those of the last epoch. last
    suits a short schedule that runs to its end when there are too few validation scans to choose by."""

    validation_fraction: Annotated[float, Flag("Training", "SHARE")] = 0.1
    """Share of the training scans to validate on, if the data has no validation split. It is drawn class by class; near
    copies and patients stay together."""

    paper_protocol: Annotated[bool, Flag("Training")] = False
    """Use the published folders as the paper did: half of Testing for validation, half for the test. Near copies may then
    be on both sides, so the figures mostly measure how well slices are recognized."""

    workers: Annotated[Literal["auto"] | int, Flag("Machine", "auto|N")] = "auto"
    """Number of training workers. auto uses one per GPU, or one per node if there is no GPU."""

    storage: Annotated[str | None, Flag("Output", "URI", "OUTPUT/../_training")] = None
    """Folder for checkpoints, shared by all nodes: a local path or s3://…"""

    run_name: Annotated[str | None, Flag("Output", "NAME", "derived from the settings")] = None
    """Name of the training run. A run with the name of an earlier one resumes it from its last checkpoint."""

    seed: Annotated[int, Flag("Training", "N")] = 0
    """Seed of the split, the initial weights, the order of the scans and the augmentation."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Do not start training if more than this share (0 to 1) of the scans is unreadable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fill_in_defaults()
        self._check_network()
        self._check_schedule()
        check_range(self, "max_reject_rate", least=0, most=1)
        if self.workers != "auto":
            check_range(self, "workers", least=1)
        is_name = self.run_name is None or RUN_NAME.fullmatch(self.run_name) is not None
        check(is_name, f"--run-name may contain letters, digits, '.', '_' and '-', got {self.run_name!r}")

    def _fill_in_defaults(self) -> None:
        defaults: dict[str, Any] = {
            "image_side": _IMAGE_SIDE_PX[self.backbone],
            "learning_rate": _LEARNING_RATE[self.backbone],
        }
        if self.start_from is None:
            defaults["backbone_weights"] = "none" if self.backbone == "cnn" else "imagenet"
        for name, default in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)

    def _check_network(self) -> None:
        check(
            (self.backbone, self.backbone_weights) != ("cnn", "imagenet"),
            "there are no ImageNet weights for cnn: pass --backbone-weights none or a file",
        )
        smallest = MIN_SIDE_PX[self.backbone]
        for side in self.sides:
            fits = smallest <= side <= MAX_SIDE_PX
            check(fits, f"image sides for {self.backbone} must be {smallest}…{MAX_SIDE_PX} px, got {side}")

    def _check_schedule(self) -> None:
        check_range(self, "epochs", least=1, most=10_000)
        check(
            len(self.epoch_sides) <= self.epochs,
            f"--epoch-sides names {len(self.epoch_sides)} epochs, but --epochs is {self.epochs}: name fewer, or train longer",
        )
        check(
            not (self.paper_protocol and self.changed("validation_fraction")),
            "--validation-fraction is not used with --paper-protocol, which halves Testing: leave one of them out",
        )
        check_range(self, "batch_size", least=1, most=BATCH_SCANS)
        check_range(self, "learning_rate", above=0, below=10)
        check_range(self, "rotation_deg", least=0, most=180)
        check_range(self, "zoom", least=0, below=1)
        check(
            self.augment == "paper" or not self.changed("rotation_deg", "zoom"),
            "--rotation-deg and --zoom are for --augment paper; strong tilts and zooms each scan anyway: leave them out",
        )
        check(
            self.augment == "strong" or self.lesion_boxes is None,
            "--lesion-boxes is for --augment strong: add it, or leave the boxes out",
        )
        check_range(self, "label_smoothing", least=0, below=1)
        check_range(self, "average", least=0, below=1)
        check_range(self, "patience", least=1)
        check_range(self, "validation_fraction", above=0, below=1)

    def side_of_epoch(self, epoch: int) -> int:
        """Return the image side, in pixels, of epoch 0, 1, …"""
        sides = self.epoch_sides or self.sides
        return sides[min(epoch, len(sides) - 1)]

    @property
    def peak_rate(self) -> float:
        """The learning rate, with its default filled in."""
        assert self.learning_rate is not None  # __post_init__ filled it in
        return self.learning_rate

    @property
    def sides(self) -> tuple[int, ...]:
        """All image sides in use, in pixels; the model's own comes first."""
        assert self.image_side is not None  # __post_init__ filled it in
        return (self.image_side, *self.epoch_sides)
