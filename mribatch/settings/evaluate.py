"""Settings of `evaluate` and `promote`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mribatch.settings.base import BATCH_SCANS, RUN_NAME, Settings, check, check_range
from mribatch.settings.flags import Flag

__all__ = ["EvaluateConfig", "PromoteConfig"]


@dataclass(frozen=True, kw_only=True)
class PromoteConfig(Settings):
    """Compare a model with the current one on labelled scans and make it the current one if it is no worse."""

    models: Annotated[str, Flag("Model", "URI")]
    """Folder of model directories; its file CURRENT names the current one. A local path or s3://…"""

    candidate: Annotated[str, Flag("Model", "NAME")]
    """Name of the model directory, in the --models folder, to compare with the current one."""

    data: Annotated[str, Flag("Input", "URI")]
    """Labelled scans, laid out as for evaluation. Use scans that neither model was trained on: figures on training
    scans are too good."""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to --data and may use *, ?, [a-z] and **.
    May be given several times."""

    output: Annotated[str, Flag("Output", "URI")]
    """Folder for both models' predictions on these scans, which are scored only once. A local path or s3://…"""

    force: Annotated[bool, Flag("Model")] = False
    """Make the candidate the current model even if it is worse."""

    batch_size: Annotated[int, Flag("Machine", "SCANS")] = 32
    """Scans per forward pass."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Promote nothing if more than this share (0 to 1) of the labelled scans is rejected or failed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_name = RUN_NAME.fullmatch(self.candidate) is not None
        check(is_name, f"--candidate must be the name of a folder in --models, got {self.candidate!r}")
        check_range(self, "batch_size", least=1, most=BATCH_SCANS)
        check_range(self, "max_reject_rate", least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Settings):
    """Score labelled scans with a model and write metrics, figures and a report."""

    model: Annotated[str, Flag("Model", "NAME|URI")]
    """Model directory, or a folder of model directories whose file CURRENT names one: a local path or s3://…
    A NAME is also looked up in models/ of the current folder and in the folders that MRIBATCH_MODELS lists."""

    data: Annotated[str, Flag("Input", "URI")]
    """Labelled scans, laid out as for training: a local path or s3://… If there is a test split, only that is used."""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to --data and may use *, ?, [a-z] and **.
    May be given several times."""

    output: Annotated[str, Flag("Output", "URI")]
    """Folder for predictions/, metrics.json, the figures and report.html: a local path or s3://…"""

    apart_from: Annotated[tuple[str, ...], Flag("Input", "URI", "nothing")] = ()
    """Folders, files, globs or manifests of scans, such as the training scans. Every scan with the same bytes as one of
    them is left out of the evaluation. If they have training or validation splits, their test split is ignored."""

    training: Annotated[
        tuple[str, ...], Flag("Input", "URI", "--apart-from, or the training and validation splits of --data")
    ] = ()
    """Folders, files, globs or manifests of the scans that the model was trained on. Scans without a near copy or a patient
    among them are judged apart from the others. If they have training or validation splits, their test split is ignored."""

    other_source: Annotated[str | None, Flag("Input", "URI", "not measured")] = None
    """Labelled scans from another source, laid out as for training: other hospitals, other scanners."""

    groups: Annotated[str | None, Flag("Input", "URI", "near copies are looked for")] = None
    """clusters.parquet that `mribatch audit` wrote for all these scans and the training scans together."""

    level: Annotated[Literal["slice", "study"], Flag("Studies")] = "slice"
    """Judge each slice, or what the slices of a patient say together. The latter needs a manifest with patient_id."""

    healthy_class: Annotated[str, Flag("Studies", "CLASS")] = "notumor"
    """The class of a healthy brain, for --level study. All other classes count as suspicious."""

    threshold: Annotated[float, Flag("Studies", "PROBABILITY")] = 0.5
    """A slice is suspicious if its probability of not being healthy is above this, for --level study."""

    kth: Annotated[int, Flag("Studies", "K")] = 3
    """Which of a patient's highest probabilities to judge besides the maximum, for --level study."""

    batch_size: Annotated[int, Flag("Machine", "SCANS")] = 32
    """Scans per forward pass."""

    engine: Annotated[Literal["auto", "openvino", "tensorflow"], Flag("Machine")] = "auto"
    """Library that computes the network. auto takes OpenVINO on CPUs, TensorFlow on GPUs and where OpenVINO is not
    installed. openvino computes on CPUs only. The probabilities agree within 0.0001."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Exit with code 3 if more than this share (0 to 1) of the scans is rejected or failed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "batch_size", least=1, most=BATCH_SCANS)
        check_range(self, "max_reject_rate", least=0, most=1)
        check_range(self, "threshold", least=0, below=1)
        check_range(self, "kth", least=1)
        unused = self.changed("apart_from", "training", "other_source", "groups") if self.level == "study" else []
        check(
            not unused,
            f"{' and '.join(unused)} cannot be used with --level study: name only patients to judge in --data",
        )
