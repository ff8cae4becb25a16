"""Settings of `accept` and `adapt`, which measure a model at a site and fit it to the site."""

from dataclasses import dataclass
from typing import Annotated

from mribatch.settings.base import BATCH_SCANS, Settings, check, check_range
from mribatch.settings.flags import Flag

__all__ = ["LEAST_SCANS", "MOST_SCANS", "AcceptConfig", "AdaptConfig"]

LEAST_SCANS = 32  # of which batch statistics are estimated: with fewer, a few scans decide them
MOST_SCANS = 4096  # 600 MB of pixels in one process


@dataclass(frozen=True, kw_only=True)
class AcceptConfig(Settings):
    """Measure a model on scans of a site and say whether it is fit for triage there, before anyone believes its rows."""

    model: Annotated[str, Flag("Model", "NAME|URI")]
    """Model directory, or a folder of model directories whose file CURRENT names one: a local path or s3://…
    A NAME is also looked up in models/ of the current folder and in the folders that MRIBATCH_MODELS lists."""

    data: Annotated[str | None, Flag("Input", "URI", "none")] = None
    """Labelled scans of the site, laid out as for training: a local path or s3://… If there is a test split, only that is
    used. Give this or --input."""

    input: Annotated[tuple[str, ...], Flag("Input", "URI", "nothing")] = ()
    """Scans without labels: folders, files, globs or s3://bucket/prefix. The verdict is then that nothing was judged."""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to --data or --input and may use *, ?, [a-z]
    and **. May be given several times."""

    apart_from: Annotated[tuple[str, ...], Flag("Input", "URI", "nothing")] = ()
    """Folders, files, globs or manifests of scans, such as the training scans. Every scan with the same bytes as one of
    them is left out of --data. If they have training or validation splits, their test split is ignored."""

    limit: Annotated[int | None, Flag("Input", "SCANS", "no limit")] = None
    """Draw this many of the scans at --input at random, by --seed."""

    output: Annotated[str, Flag("Output", "URI")]
    """Folder for acceptance.json, acceptance.html, predictions/ and the evaluation: a local path or s3://…"""

    healthy_class: Annotated[str | None, Flag("Alarms", "CLASS", "notumor, if the model knows it")] = None
    """Class of scans without a finding. Its sensitivity is not checked, its specificity is: the share of other scans that
    are not called healthy."""

    min_scans: Annotated[int, Flag("Alarms", "SCANS")] = 20
    """Smallest number of scans of each class, without copies, that allows a verdict."""

    min_sensitivity: Annotated[float, Flag("Alarms", "SHARE")] = 0.80
    """Not fit if the lower end of the 95% interval of a class's sensitivity is below this share (0 to 1)."""

    min_specificity: Annotated[float, Flag("Alarms", "SHARE")] = 0.80
    """Not fit if the lower end of the 95% interval of a class's specificity is below this share (0 to 1)."""

    min_balanced_accuracy: Annotated[float, Flag("Alarms", "SHARE")] = 0.85
    """Not fit if the mean sensitivity over the classes is below this share (0 to 1)."""

    max_calibration_error: Annotated[float, Flag("Alarms", "SHARE")] = 0.10
    """Not fit if the expected calibration error is above this share (0 to 1)."""

    max_referral_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.30
    """Not fit if the model refers more than this share (0 to 1) of the scans to a person."""

    max_corruption_loss: Annotated[float, Flag("Alarms", "SHARE")] = 0.10
    """Not fit if a corruption at its mildest strength lowers the balanced accuracy by more than this share (0 to 1)."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Not fit if more than this share (0 to 1) of the scans is rejected or failed. Skipped scans do not count."""

    corruption_scans: Annotated[int, Flag("Machine", "SCANS")] = 96
    """Alter this many scans, spread over the classes, in 18 ways each."""

    batch_size: Annotated[int, Flag("Machine", "SCANS")] = 32
    """Scans per forward pass."""

    seed: Annotated[int, Flag("Machine", "N")] = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            (self.data is None) == bool(self.input),
            "give either --data, labelled scans, or --input, scans without labels",
        )
        check(self.limit is None or self.data is None, "--limit goes with --input: all scans at --data are used")
        check(
            not self.apart_from or self.data is not None, "--apart-from goes with --data: add labels, or leave it out"
        )
        check_range(self, "limit", least=1)
        check_range(self, "min_scans", least=1)
        check_range(self, "corruption_scans", least=1, most=MOST_SCANS)
        check_range(self, "batch_size", least=1, most=BATCH_SCANS)
        check_range(self, "seed", least=0)
        for name in ("sensitivity", "specificity", "balanced_accuracy"):
            check_range(self, f"min_{name}", least=0, most=1)
        for name in ("calibration_error", "referral_rate", "corruption_loss", "reject_rate"):
            check_range(self, f"max_{name}", least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(Settings):
    """Estimate the batch-normalization statistics of a model anew on unlabelled scans of a site, as a model of its own."""

    model: Annotated[str, Flag("Model", "NAME|URI")]
    """Model directory, or a folder of model directories whose file CURRENT names one: a local path or s3://…
    A NAME is also looked up in models/ of the current folder and in the folders that MRIBATCH_MODELS lists."""

    input: Annotated[tuple[str, ...], Flag("Input", "URI")]
    """Scans of the site: folders, files, globs or s3://bucket/prefix. They need no labels."""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to each --input and may use *, ?, [a-z]
    and **. May be given several times."""

    data: Annotated[str | None, Flag("Input", "URI", "none")] = None
    """Labelled scans of the site, laid out as for training. If there is a test split, only that is used. Nothing is written
    if the balanced accuracy on them is lower afterwards."""

    output: Annotated[str, Flag("Output", "URI")]
    """Model directory to write: a local path or s3://…"""

    limit: Annotated[int, Flag("Input", "SCANS")] = 192
    """Draw this many of the scans at --input at random, by --seed."""

    batch_size: Annotated[int, Flag("Machine", "SCANS")] = 32
    """Scans per forward pass. The statistics of a batch come from its own scans, so smaller ones are less exact."""

    seed: Annotated[int, Flag("Machine", "N")] = 0
    """Seed of the draw and of the order of the scans."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Write nothing if more than this share (0 to 1) of the scans that are read is rejected or failed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.input) > 0, "--input needs at least one folder, file, glob or s3://… prefix")
        check_range(self, "limit", least=LEAST_SCANS, most=MOST_SCANS)
        check_range(self, "batch_size", least=8, most=MOST_SCANS)
        check_range(self, "seed", least=0)
        check_range(self, "max_reject_rate", least=0, most=1)
