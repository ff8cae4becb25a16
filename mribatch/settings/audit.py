"""Settings of `audit`."""

from dataclasses import dataclass
from typing import Annotated

from mribatch.settings.base import BATCH_SCANS, Settings, check_range
from mribatch.settings.flags import Flag

__all__ = ["AuditConfig"]


@dataclass(frozen=True, kw_only=True)
class AuditConfig(Settings):
    """Find copies, leaks between splits, wrong labels and shortcuts in labelled scans, before anything learns from them."""

    data: Annotated[str, Flag("Input", "URI")]
    """Labelled scans, laid out as for training: a local path or s3://…"""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to --data and may use *, ?, [a-z] and **.
    May be given several times."""

    output: Annotated[str, Flag("Output", "URI")]
    """Folder for audit.html, audit.json and the Parquet tables: a local path or s3://…"""

    model: Annotated[str | None, Flag("Model", "NAME|URI", "thumbnails")] = None
    """Look for wrong labels with the features of this model instead of thumbnails. A model that was trained on these scans
    knows their labels, the wrong ones too."""

    batch_size: Annotated[int, Flag("Machine", "SCANS")] = 32
    """Scans per forward pass of --model."""

    seed: Annotated[int, Flag("Machine", "N")] = 0
    """Seed of the cross-validation and of the samples that are drawn."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Exit with code 3 if more than this share (0 to 1) of the scans cannot be read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "batch_size", least=1, most=BATCH_SCANS)
        check_range(self, "seed", least=0)
        check_range(self, "max_reject_rate", least=0, most=1)
