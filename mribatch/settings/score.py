"""Settings of `score`, `nightly` and `compact`."""

import re
from dataclasses import dataclass
from typing import Annotated
from zoneinfo import available_timezones

import tyro

from mribatch.settings.base import Globs, MaybeNumber, MaybeUri, Settings, Uri, Uris, check, check_share

__all__ = ["CompactConfig", "NightlyConfig", "ScoreConfig"]


_MAX_HOURS = 8784  # a leap year; more is a mistake in the unit


_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Settings):
    """Score scans with a model and write one Parquet row per scan."""

    model: Uri
    """The model directory, or a folder of them whose file CURRENT names one. Local path or s3://…"""

    input: Uris
    """Folders, files, globs or s3://bucket/prefix: every file below is a scan (names that begin with a dot are not)."""

    exclude: Globs = ()
    """Leave out what this glob matches, such as 'cache/**': relative to each --input, with *, ?, [a-z] and **."""

    output: Uri
    """The folder of the predictions; a later run adds what is missing. Local path or s3://…"""

    batch_size: int = 32
    """Scans per forward pass."""

    max_reject_rate: float = 0.05
    """The run ends with exit code 3 when a larger share of its scans is rejected or failed."""

    limit: MaybeNumber = None
    """Score at most so many of the scans that are left."""

    part_rows: int = 256
    """Rows per Parquet part at least; a crash loses the parts in work. 256 is a quarter minute on two cores."""

    scan_timeout_s: float = 60.0
    """Seconds that a scan may take to decode, or to score alone, before it is tried again and then rejected."""

    lease_s: float = 20.0
    """Seconds after which the lock of a run that died is taken over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.input) > 0, "--input needs at least one folder, file, glob or s3://… prefix")
        check(1 <= self.batch_size <= 65_536, f"--batch-size must be 1 or more, got {self.batch_size}")
        check(self.limit is None or self.limit >= 1, f"--limit must be 1 or more, got {self.limit}")
        check(self.part_rows >= 1, f"--part-rows must be 1 or more, got {self.part_rows}")
        check(self.scan_timeout_s >= 1, f"--scan-timeout-s must be 1 or more, got {self.scan_timeout_s}")
        check(self.lease_s >= 1, f"--lease-s must be 1 or more, got {self.lease_s}")
        check_share("--max-reject-rate", self.max_reject_rate)


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

    report: MaybeUri = None
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
        check(
            self.deadline is None or _TIME_OF_DAY.fullmatch(self.deadline) is not None,
            f"--deadline is a time of day such as 06:00, got {self.deadline}",
        )
        check(self.timezone in available_timezones(), f"--timezone is a name such as Europe/Paris, got {self.timezone}")
        check(
            self.max_hours is None or 0 < self.max_hours <= _MAX_HOURS,
            f"--max-hours must be above 0 and at most {_MAX_HOURS}, got {self.max_hours}",
        )
        check(self.max_drift > 0, f"--max-drift must be above 0, got {self.max_drift}")


@dataclass(frozen=True, kw_only=True)
class CompactConfig(Settings):
    """Make few parts of many small ones, and let go of old rows; never of a scan's newest."""

    output: Uri
    """The folder of the predictions. Local path or s3://…"""

    part_rows: int = 100_000
    """Rows per Parquet part, about."""

    keep_days: Annotated[int | None, tyro.conf.arg(metavar="DAYS")] = None
    """Rows that were scored longer ago go, but for each scan's newest."""

    keep_models: MaybeNumber = None
    """Rows of other models than the so many that scored last go, but for each scan's newest."""

    lease_s: float = 20.0
    """Seconds after which the lock of a run that died is taken over."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.part_rows >= 1, f"--part-rows must be 1 or more, got {self.part_rows}")
        check(
            self.keep_days is None or 1 <= self.keep_days <= 36_500,
            f"--keep-days must be 1…36500, got {self.keep_days}",
        )
        check(
            self.keep_models is None or self.keep_models >= 1,
            f"--keep-models must be 1 or more, got {self.keep_models}",
        )
        check(self.lease_s >= 1, f"--lease-s must be 1 or more, got {self.lease_s}")
