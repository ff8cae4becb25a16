"""Settings of `export`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mribatch.settings.base import BATCH_SCANS, Settings, check_range
from mribatch.settings.flags import Flag

__all__ = ["LEAST_SCANS", "ExportConfig"]

LEAST_SCANS = 16  # with fewer, a few scans decide the range of every activation
_MOST_SCANS = 4096  # 600 MB of pixels in one process


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """Write a model in int8 or bf16, which newer CPUs compute faster, unless that costs accuracy."""

    model: Annotated[str, Flag("Model", "NAME|URI")]
    """Model directory of a network, or a folder of model directories whose file CURRENT names one: a local path or s3://…
    A NAME is also looked up in models/ of the current folder and in the folders that MRIBATCH_MODELS lists."""

    precision: Annotated[Literal["int8", "bf16"], Flag("Model")]
    """int8 is quantized with NNCF and pays on CPUs with AVX-512 VNNI or AMX; bf16 needs a CPU with AVX-512 BF16 or AMX."""

    calibration: Annotated[str, Flag("Input", "URI")]
    """Scans that show the range of each activation, and that both models are compared on if there is no --data: labelled
    ones, laid out as for training, or a folder, glob or s3://bucket/prefix of scans without labels."""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to --calibration and may use *, ?, [a-z]
    and **. May be given several times."""

    calibration_scans: Annotated[int, Flag("Input", "SCANS")] = 128
    """Calibrate on this many scans, spread evenly over the classes, or over the listing if there are no labels."""

    data: Annotated[str | None, Flag("Input", "URI", "the labelled scans of --calibration")] = None
    """Labelled scans to compare both models on. If there is a test split, only that is used."""

    output: Annotated[str, Flag("Output", "URI")]
    """Model directory to write: a local path or s3://…"""

    max_loss: Annotated[float, Flag("Alarms", "SHARE")] = 0.002
    """Write nothing if the accuracy is lower by more than this share (0 to 1) of the labelled scans."""

    batch_size: Annotated[int, Flag("Machine", "SCANS")] = 32
    """Scans per forward pass."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Write nothing if more than this share (0 to 1) of the scans that are read is rejected or failed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "calibration_scans", least=LEAST_SCANS, most=_MOST_SCANS)
        check_range(self, "max_loss", least=0, most=1)
        check_range(self, "batch_size", least=1, most=BATCH_SCANS)
        check_range(self, "max_reject_rate", least=0, most=1)
