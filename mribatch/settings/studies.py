"""Settings of `studies`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mribatch.settings.base import Settings, check_range
from mribatch.settings.flags import Flag

__all__ = ["StudiesConfig"]


@dataclass(frozen=True, kw_only=True)
class StudiesConfig(Settings):
    """Sum up the predictions of an output by series and by study. Run it again when slices were added."""

    output: Annotated[str, Flag("Output", "URI")]
    """Folder of the predictions, which gets the tables _series and _studies: a local path or s3://…"""

    healthy_class: Annotated[str, Flag("Model", "CLASS")] = "notumor"
    """The class of a healthy brain. All other classes count as suspicious."""

    threshold: Annotated[float, Flag("Model", "PROBABILITY")] = 0.5
    """A slice is suspicious if its probability of not being healthy is above this."""

    kth: Annotated[int, Flag("Model", "K")] = 3
    """The columns kth_… hold the K-th highest probability: so many slices have at least this one."""

    manifest: Annotated[str | None, Flag("Input", "URI", "none")] = None
    """A table with the columns uri and patient_id, for scans whose header names no patient, such as JPEG. Such scans of one
    patient are one study."""

    identifiers: Annotated[Literal["keyed", "plain"], Flag("Input")] = "keyed"
    """Write the patient_id of the manifest as a keyed hash, as `mribatch score` does with those of DICOM, or as it is."""

    identifier_key: Annotated[str | None, Flag("Input", "FILE", "~/.config/mribatch/identifier-key")] = None
    """Secret of the keyed hashes, made if it does not exist. The same file gives the same keys."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "threshold", least=0, below=1)
        check_range(self, "kth", least=1)
