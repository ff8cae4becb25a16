"""Settings of `evaluate` and `promote`."""

from dataclasses import dataclass

from mribatch.settings.base import RUN_NAME, Globs, Settings, Uri, Uris, check, check_share

__all__ = ["EvaluateConfig", "PromoteConfig"]


@dataclass(frozen=True, kw_only=True)
class PromoteConfig(Settings):
    """Compare a model with the current one on labelled scans, and make it the current one if it is no worse."""

    models: Uri
    """The folder of the model directories, where the file CURRENT names one. Local path or s3://…"""

    candidate: str
    """The name of a model directory in that folder."""

    data: Uri
    """Labelled scans, as for evaluation. Scans that a model was trained on flatter it."""

    exclude: Globs = ()
    """Leave out of --data what this glob matches, such as 'cache/**': relative to --data, with *, ?, [a-z] and **."""

    output: Uri
    """The folder for the predictions of both on those scans; they are scored once. Local path or s3://…"""

    force: bool = False
    """Make it the current one even if it is worse."""

    batch_size: int = 32
    """Scans per forward pass."""

    max_reject_rate: float = 0.05
    """Nothing is promoted when a larger share of the labelled scans is rejected or failed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(RUN_NAME.fullmatch(self.candidate)), f"--candidate is a name in --models, got {self.candidate!r}")
        check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        check_share("--max-reject-rate", self.max_reject_rate)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Settings):
    """Score labelled scans with a model and write metrics, figures and a report."""

    model: Uri
    """The model directory. Local path or s3://…"""

    data: Uri
    """Labelled scans, as for training; if the data has a test split, only that is used."""

    exclude: Globs = ()
    """Leave out of --data what this glob matches, such as 'cache/**': relative to --data, with *, ?, [a-z] and **."""

    output: Uri
    """The folder for predictions/, metrics.json, the figures and report.html. Local path or s3://…"""

    apart_from: Uris = ()
    """Folders, files, globs or manifests of scans that must not count, such as the training scans: a scan with the bytes
    of one of them is left out. Where they have training or validation scans, those of their test split still count."""

    batch_size: int = 32
    """Scans per forward pass."""

    max_reject_rate: float = 0.05
    """The run ends with exit code 3 when a larger share of its scans is rejected or failed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        check_share("--max-reject-rate", self.max_reject_rate)
