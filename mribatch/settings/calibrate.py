"""Settings of `calibrate`."""

from dataclasses import dataclass
from typing import Annotated

from mribatch.settings.base import BATCH_SCANS, Settings, check_range
from mribatch.settings.flags import Flag

__all__ = ["FALSE_REFERRALS", "CalibrateConfig"]

FALSE_REFERRALS = 0.1


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(Settings):
    """Make a model's confidence a probability, and let it name the scans that a person should look at."""

    model: Annotated[str, Flag("Model", "NAME|URI")]
    """Model directory of a network, or a folder of model directories whose file CURRENT names one: a local path or s3://…
    A NAME is also looked up in models/ of the current folder and in the folders that MRIBATCH_MODELS lists."""

    data: Annotated[str, Flag("Input", "URI")]
    """Labelled scans, laid out as for training: a local path or s3://… Its training scans describe what is usual, its
    validation scans are calibrated on, its test split is not used."""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to --data and may use *, ?, [a-z] and **.
    May be given several times."""

    groups: Annotated[str | None, Flag("Input", "URI", "near copies are looked for")] = None
    """clusters.parquet that `mribatch audit` wrote for these scans. Near copies, and the scans of a patient, are kept on
    one side of the split."""

    output: Annotated[str, Flag("Output", "URI")]
    """Model directory to write, with the same weights: a local path or s3://…"""

    false_referrals: Annotated[float, Flag("Model", "SHARE")] = FALSE_REFERRALS
    """Refer at most this share (0 to 1) of the validation scans, which are scans as the model knows them."""

    validation_fraction: Annotated[float, Flag("Input", "SHARE")] = 0.1
    """Share of the training scans to calibrate on, if the data has no validation split. Give what was given to training,
    so that the model was not trained on them."""

    seed: Annotated[int, Flag("Input", "N")] = 0
    """Seed of the split, which should be that of training, and of the training scans that are kept."""

    batch_size: Annotated[int, Flag("Machine", "SCANS")] = 32
    """Scans per forward pass."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Calibrate nothing if more than this share (0 to 1) of the scans is unreadable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "false_referrals", above=0, below=1)
        check_range(self, "validation_fraction", above=0, below=1)
        check_range(self, "seed", least=0)
        check_range(self, "batch_size", least=1, most=BATCH_SCANS)
        check_range(self, "max_reject_rate", least=0, most=1)
