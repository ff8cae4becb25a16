"""Settings of `audit`."""

from dataclasses import dataclass

from mribatch.settings.base import Globs, MaybeUri, Settings, Uri, check, check_share

__all__ = ["AuditConfig"]


@dataclass(frozen=True, kw_only=True)
class AuditConfig(Settings):
    """Find copies, leaks between splits, wrong labels and shortcuts in labelled scans, before anything learns from them."""

    data: Uri
    """Labelled scans, as for training. Local path or s3://…"""

    exclude: Globs = ()
    """Leave out of --data what this glob matches, such as 'cache/**': relative to --data, with *, ?, [a-z] and **."""

    output: Uri
    """The folder for audit.html, audit.json and the Parquet tables. Local path or s3://…"""

    model: MaybeUri = None
    """A model directory whose features are used to look for wrong labels, in place of thumbnails. A model that was trained
    on these scans knows their labels, the wrong ones too. Local path or s3://…"""

    batch_size: int = 32
    """Scans per forward pass of --model."""

    seed: int = 0
    """Decides the folds of the cross-validation and the samples that are drawn."""

    max_reject_rate: float = 0.05
    """The run ends with exit code 3 when a larger share of the scans cannot be read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        check(self.seed >= 0, f"--seed must be 0 or more, got {self.seed}")
        check_share("--max-reject-rate", self.max_reject_rate)
