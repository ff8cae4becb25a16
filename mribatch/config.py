"""What each job can be told: frozen dataclasses, checked once, that become the command lines. No I/O."""

import dataclasses
import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from zoneinfo import available_timezones

import tyro

from mribatch.checks import check_types
from mribatch.errors import ConfigError

__all__ = [
    "BASELINES",
    "Backbone",
    "Baseline",
    "BaselinesConfig",
    "CompactConfig",
    "EvaluateConfig",
    "NightlyConfig",
    "PromoteConfig",
    "ScoreConfig",
    "TrainConfig",
]

Backbone = Literal["xception", "resnet50v2", "cnn"]

Baseline = Literal["svm", "random_forest", "decision_tree", "logistic_regression", "knn", "gaussian_nb", "mlp", "frozen_svm",
                   "frozen_logistic", "cnn", "resnet50v2", "xception"]  # fmt: skip
BASELINES: tuple[Baseline, ...] = get_args(Baseline)

_Uri = Annotated[str, tyro.conf.arg(metavar="URI")]
_Uris = Annotated[tuple[str, ...], tyro.conf.arg(metavar="URI [URI …]")]
_Globs = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="GLOB")]
_MaybeUri = Annotated[str | None, tyro.conf.arg(metavar="URI")]
_MaybeNumber = Annotated[int | None, tyro.conf.arg(metavar="N")]

_MIN_SIDE_PX = {"xception": 71, "resnet50v2": 32, "cnn": 32}  # below, the last feature map is empty
_IMAGE_SIDE_PX = {"xception": 299, "resnet50v2": 224, "cnn": 96}  # what each was designed for; cnn: for speed
_LEARNING_RATE = {"xception": 1e-3, "resnet50v2": 1e-3, "cnn": 3e-3}
_CNN_EPOCHS = 4  # times those of the other deep models: it is small and starts from nothing
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAX_HOURS = 8784  # a leap year; more is a mistake in the unit
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, kw_only=True)
class _Config:
    """What all configs share."""

    requester_pays: bool = False
    """Pay for the requests to S3 buckets that bill their readers."""

    def __post_init__(self) -> None:
        """Check types; subclasses call this before they check ranges. Raises ConfigError."""
        check_types(self)
        for glob in getattr(self, "exclude", ()):
            outside = "://" in glob or glob.startswith("/") or ".." in glob.split("/")
            _check(bool(glob.strip("/")) and not outside, f"--exclude is a glob relative to the input, got {glob!r}")

    def fingerprint(self) -> str:
        """The first 12 hex digits of the SHA-256 of all settings but who pays: equal settings, equal fingerprint."""
        settings = self.as_dict()
        del settings["requester_pays"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """All settings, ready for JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return settings

    def changed(self, *names: str) -> list[str]:
        """The flags, of some settings, whose value is not the default."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != defaults[name]]

    def flags(self, *names: str) -> str:
        """The flags of some settings as the user's command calls them, for messages: "--batch-size or --workers"."""
        return " or ".join(filter(None, map(self._flag, names)))

    def _flag(self, name: str) -> str | None:
        assert name in {field.name for field in dataclasses.fields(self)}
        return "--" + name.replace("_", "-")

    def command(self, script: str) -> str:
        """The command line that gives these settings: what differs from the defaults."""
        words = ["python", script]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            flag = field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            elif field.name == "exclude":
                words += [word for glob in value for word in (f"--{flag}", glob)]
            elif isinstance(value, tuple):
                words += [f"--{flag}", *map(str, value)]
            else:
                words += [f"--{flag}", str(value)]
        return shlex.join(words)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_Config):
    """Fine-tune a classifier on labelled scans and write a model directory."""

    data: _Uri
    """Labelled scans: ROOT/<class>/…, ROOT/Training|Validation|Testing/<class>/…, or a manifest (CSV, TSV or Parquet
    with the columns uri, label and, if wanted, split and patient_id). Local path or s3://…"""

    exclude: _Globs = ()
    """Leave out of --data what this glob matches, such as 'cache/**': relative to --data, with *, ?, [a-z] and **."""

    output: _Uri
    """The model directory to write. Local path or s3://…"""

    backbone: Backbone = "xception"
    """The network under the head. cnn is small and trains from nothing."""

    backbone_weights: Annotated[str | None, tyro.conf.arg(metavar="imagenet|FILE|none")] = None
    """imagenet (downloaded by Keras), a weights FILE (for machines without internet), or none. Default: imagenet;
    none for cnn, which has no others."""

    start_from: _MaybeUri = None
    """A model directory of the same backbone and labels to start from; replaces --backbone-weights."""

    image_side: _MaybeNumber = None
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

    storage: _MaybeUri = None
    """Where checkpoints go; local path or s3://… (shared by all nodes). Default: OUTPUT/../_training."""

    run_name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A run with the name of an earlier one goes on where that one was. Default: from the settings."""

    seed: int = 0
    """Decides the split, the first weights, the order of scans and the augmentation."""

    max_reject_rate: float = 0.05
    """Training stops before it starts when a larger share of the scans is unreadable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        smallest = _MIN_SIDE_PX[self.backbone]
        if self.backbone_weights is None and self.start_from is None:
            object.__setattr__(self, "backbone_weights", "none" if self.backbone == "cnn" else "imagenet")
        if self.image_side is None:
            object.__setattr__(self, "image_side", _IMAGE_SIDE_PX[self.backbone])
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", _LEARNING_RATE[self.backbone])
        _check(
            (self.backbone, self.backbone_weights) != ("cnn", "imagenet"),
            "there are no ImageNet weights for cnn: pass --backbone-weights none or a file",
        )
        for side in self.sides:
            _check(smallest <= side <= 2048, f"image sides for {self.backbone} lie in {smallest}…2048 px, got {side}")
        _check(1 <= self.epochs <= 10_000, f"--epochs must be 1 or more, got {self.epochs}")
        _check(
            len(self.epoch_sides) <= self.epochs,
            f"--epoch-sides names {len(self.epoch_sides)} epochs, but --epochs is {self.epochs}: name fewer, or train longer",
        )
        _check(
            not (self.paper_protocol and self.changed("validation_fraction")),
            "--validation-fraction is not used with --paper-protocol, which halves Testing: leave one of them out",
        )
        _check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        _check(0 < self.peak_rate < 10, f"--learning-rate must lie in 0…10, got {self.learning_rate}")
        _check(0 <= self.rotation_deg <= 180, f"--rotation-deg must lie in 0…180, got {self.rotation_deg}")
        _check(0 <= self.zoom < 1, f"--zoom must lie in 0…1, got {self.zoom}")
        _check(0 <= self.average < 1, f"--average must lie in 0…1, got {self.average}")
        _check(self.patience >= 1, f"--patience must be 1 or more, got {self.patience}")
        _check(
            0 < self.validation_fraction < 1, f"--validation-fraction must lie in 0…1, got {self.validation_fraction}"
        )
        _check(self.workers == "auto" or self.workers >= 1, f"--workers must be auto or 1 and more, got {self.workers}")
        _check_share("--max-reject-rate", self.max_reject_rate)
        if self.run_name is not None:
            _check(
                bool(_RUN_NAME.fullmatch(self.run_name)),
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


class _TrainingOfBaselines(TrainConfig):
    """A training that is part of a comparison. Its messages name the flags of that command, which has no others."""

    def _flag(self, name: str) -> str | None:
        own = {"backbone_weights": f"--{self.backbone}-weights", "image_side": "--deep-image-side", "epochs": "--deep-epochs",
               "run_name": "--output", "storage": "--output"}  # fmt: skip
        kept = ("data", "output", "batch_size", "precision", "seed", "max_reject_rate")
        return own.get(name) or (super()._flag(name) if name in kept else None)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(_Config):
    """Score scans with a model and write one Parquet row per scan."""

    model: _Uri
    """The model directory, or a folder of them whose file CURRENT names one. Local path or s3://…"""

    input: _Uris
    """Folders, files, globs or s3://bucket/prefix: every file below is a scan (names that begin with a dot are not)."""

    exclude: _Globs = ()
    """Leave out what this glob matches, such as 'cache/**': relative to each --input, with *, ?, [a-z] and **."""

    output: _Uri
    """The folder of the predictions; a later run adds what is missing. Local path or s3://…"""

    batch_size: int = 32
    """Scans per forward pass."""

    max_reject_rate: float = 0.05
    """The run ends with exit code 3 when a larger share of its scans is rejected or failed."""

    limit: _MaybeNumber = None
    """Score at most so many of the scans that are left."""

    part_rows: int = 256
    """Rows per Parquet part at least; a crash loses the parts in work. 256 is a quarter minute on two cores."""

    scan_timeout_s: float = 60.0
    """Seconds that a scan may take to decode, or to score alone, before it is tried again and then rejected."""

    lease_s: float = 20.0
    """Seconds after which the lock of a run that died is taken over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(len(self.input) > 0, "--input needs at least one folder, file, glob or s3://… prefix")
        _check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        _check(self.limit is None or self.limit >= 1, f"--limit must be 1 or more, got {self.limit}")
        _check(self.part_rows >= 1, f"--part-rows must be 1 or more, got {self.part_rows}")
        _check(self.scan_timeout_s >= 1, f"--scan-timeout-s must be 1 or more, got {self.scan_timeout_s}")
        _check(self.lease_s >= 1, f"--lease-s must be 1 or more, got {self.lease_s}")
        _check_share("--max-reject-rate", self.max_reject_rate)


@dataclass(frozen=True, kw_only=True)
class NightlyConfig(ScoreConfig):
    """Score what is new, what changed, and what another model has scored; stop in time; report."""

    deadline: Annotated[str | None, tyro.conf.arg(metavar="HH:MM")] = None
    """The run ends by the next time that the clock shows this; what is left comes with the next night. An hour that
    comes twice counts twice; a time that the clock skips in spring is an hour later."""

    max_hours: Annotated[float | None, tyro.conf.arg(metavar="HOURS")] = None
    """The run ends after this many hours at the latest, however late it began. With --deadline, the earlier moment
    counts."""

    timezone: str = "UTC"
    """Whose clock, such as Europe/Paris."""

    report: _MaybeUri = None
    """The folder for nightly.json and nightly.html. Default: OUTPUT/_nights/RUN. Local path or s3://…"""

    dry_run: bool = False
    """Print what would be scored and how long it may take; change nothing."""

    full: bool = False
    """Score everything again, and put it in the place of what this model has scored."""

    max_reject_rate: float = 0.05
    """Alarm when a larger share of the night's scans is rejected or failed."""

    max_drift: float = 0.25
    """Alarm when the class mix or the confidence has a population stability index of this or more against the last 30 runs,
    and more than chance gives."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            self.deadline is None or _TIME_OF_DAY.fullmatch(self.deadline) is not None,
            f"--deadline is a time of day such as 06:00, got {self.deadline}",
        )
        _check(
            self.timezone in available_timezones(), f"--timezone is a name such as Europe/Paris, got {self.timezone}"
        )
        _check(
            self.max_hours is None or 0 < self.max_hours <= _MAX_HOURS,
            f"--max-hours must be above 0 and at most {_MAX_HOURS}, got {self.max_hours}",
        )
        _check(self.max_drift > 0, f"--max-drift must be above 0, got {self.max_drift}")


@dataclass(frozen=True, kw_only=True)
class PromoteConfig(_Config):
    """Compare a model with the current one on labelled scans, and make it the current one if it is no worse."""

    models: _Uri
    """The folder of the model directories, where the file CURRENT names one. Local path or s3://…"""

    candidate: str
    """The name of a model directory in that folder."""

    data: _Uri
    """Labelled scans, as for evaluation. Scans that a model was trained on flatter it."""

    exclude: _Globs = ()
    """Leave out of --data what this glob matches, such as 'cache/**': relative to --data, with *, ?, [a-z] and **."""

    output: _Uri
    """The folder for the predictions of both on those scans; they are scored once. Local path or s3://…"""

    force: bool = False
    """Make it the current one even if it is worse."""

    batch_size: int = 32
    """Scans per forward pass."""

    max_reject_rate: float = 0.05
    """Nothing is promoted when a larger share of the labelled scans is rejected or failed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(bool(_RUN_NAME.fullmatch(self.candidate)), f"--candidate is a name in --models, got {self.candidate!r}")
        _check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        _check_share("--max-reject-rate", self.max_reject_rate)


@dataclass(frozen=True, kw_only=True)
class CompactConfig(_Config):
    """Make few parts of many small ones, and let go of old rows; never of a scan's newest."""

    output: _Uri
    """The folder of the predictions. Local path or s3://…"""

    part_rows: int = 100_000
    """Rows per Parquet part, about."""

    keep_days: Annotated[int | None, tyro.conf.arg(metavar="DAYS")] = None
    """Rows that were scored longer ago go, but for each scan's newest."""

    keep_models: _MaybeNumber = None
    """Rows of other models than the so many that scored last go, but for each scan's newest."""

    lease_s: float = 20.0
    """Seconds after which the lock of a run that died is taken over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.part_rows >= 1, f"--part-rows must be 1 or more, got {self.part_rows}")
        _check(
            self.keep_days is None or 1 <= self.keep_days <= 36_500,
            f"--keep-days must be 1…36500, got {self.keep_days}",
        )
        _check(
            self.keep_models is None or self.keep_models >= 1,
            f"--keep-models must be 1 or more, got {self.keep_models}",
        )
        _check(self.lease_s >= 1, f"--lease-s must be 1 or more, got {self.lease_s}")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(_Config):
    """Score labelled scans with a model and write metrics, figures and a report."""

    model: _Uri
    """The model directory. Local path or s3://…"""

    data: _Uri
    """Labelled scans, as for training; if the data has a test split, only that is used."""

    exclude: _Globs = ()
    """Leave out of --data what this glob matches, such as 'cache/**': relative to --data, with *, ?, [a-z] and **."""

    output: _Uri
    """The folder for predictions/, metrics.json, the figures and report.html. Local path or s3://…"""

    apart_from: _Uris = ()
    """Folders, files, globs or manifests of scans that must not count, such as the training scans: a scan with the bytes
    of one of them is left out. Where they have training or validation scans, those of their test split still count."""

    batch_size: int = 32
    """Scans per forward pass."""

    max_reject_rate: float = 0.05
    """The run ends with exit code 3 when a larger share of its scans is rejected or failed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        _check_share("--max-reject-rate", self.max_reject_rate)


@dataclass(frozen=True, kw_only=True)
class BaselinesConfig(_Config):
    """Compare the paper's models, and a few more, on labelled scans: repeated splits, tables, tests, a page."""

    data: _Uri
    """Labelled scans, as for training; their splits are not used. Local path or s3://…"""

    exclude: _Globs = ()
    """Leave out of --data what this glob matches, such as 'cache/**': relative to --data, with *, ?, [a-z] and **."""

    output: _Uri
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
        _check(len(self.classes) != 1, "--classes needs two classes or more, or none for all")
        _check(len(set(self.classes)) == len(self.classes), f"--classes names a class twice: {' '.join(self.classes)}")
        _check(len(self.models) > 0, "--models needs one model at least")
        _check(len(set(self.models)) == len(self.models), f"--models names a model twice: {' '.join(self.models)}")
        _check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        _check(self.seed >= 0, f"--seed must be 0 or more, got {self.seed}")
        _check(16 <= self.image_side <= 512, f"--image-side must be 16…512, got {self.image_side}")
        _check(1 <= self.repeats <= 100, f"--repeats must be 1…100, got {self.repeats}")
        _check(0 < self.test_fraction < 1, f"--test-fraction must lie in 0…1, got {self.test_fraction}")
        _check(
            1 <= self.deep_repeats <= self.repeats,
            f"--deep-repeats must lie in 1…{self.repeats}, as --repeats says, got {self.deep_repeats}",
        )
        _check(1 <= self.deep_epochs <= 2500, f"--deep-epochs must be 1…2500, got {self.deep_epochs}")
        deep = [_MIN_SIDE_PX[name] for name in ("resnet50v2", "xception") if name in self.models]
        smallest = max(deep, default=1)
        _check(
            smallest <= self.deep_image_side <= 2048,
            f"--deep-image-side must be {smallest}…2048 for these models, got {self.deep_image_side}",
        )
        _check_share("--max-reject-rate", self.max_reject_rate)
        if any(name.startswith("frozen") for name in self.models):
            smallest = _MIN_SIDE_PX["xception"]
            _check(self.image_side >= smallest, f"--image-side for the frozen Xception is {smallest} or more")
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
        return _TrainingOfBaselines(
            data=data, output=output, backbone=backbone, backbone_weights=weights[backbone],
            image_side=None if small else self.deep_image_side, epochs=self.deep_epochs * (_CNN_EPOCHS if small else 1),
            batch_size=self.batch_size, precision=self.precision, patience=1000, keep="last", seed=self.seed,
            max_reject_rate=self.max_reject_rate, **more,
        )  # fmt: skip


def _check(right: bool, message: str) -> None:
    if not right:
        raise ConfigError(message)


def _check_share(flag: str, value: float) -> None:
    _check(0 <= value <= 1, f"{flag} is a share between 0 and 1, got {value}")
