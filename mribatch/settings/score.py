"""Settings of `score`, `nightly` and `compact`."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal
from zoneinfo import available_timezones

from mribatch.settings.base import BATCH_SCANS, Settings, check, check_range
from mribatch.settings.flags import Flag
from mribatch.settings.suggestions import did_you_mean

__all__ = ["CompactConfig", "NightlyConfig", "ScoreConfig"]

_MAX_HOURS = 8784  # a leap year; more is a mistake in the unit
_MAX_DAYS = 36_500  # a century
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Settings):
    """Score scans with a model: one Parquet row per frame. Run it again to score what is new."""

    model: Annotated[str, Flag("Model", "NAME|URI")]
    """Model directory, or a folder of model directories whose file CURRENT names one: a local path or s3://…
    A NAME is also looked up in models/ of the current folder and in the folders that MRIBATCH_MODELS lists."""

    require_acceptance: Annotated[str | None, Flag("Model", "URI", "not required")] = None
    """Do not start unless this acceptance.json, or the one in this folder, says that this very model is fit for triage
    here. `mribatch accept` writes it."""

    input: Annotated[tuple[str, ...], Flag("Input", "URI")]
    """Folders, files, globs or s3://bucket/prefix. Every file below a folder is a scan, except hidden ones (names that
    begin with a dot)."""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to each --input and may use *, ?, [a-z]
    and **. May be given several times."""

    output: Annotated[str, Flag("Output", "URI")]
    """Folder for the predictions: a local path or s3://… Later runs add the scans that are missing."""

    batch_size: Annotated[int, Flag("Machine", "SCANS")] = 32
    """Scans that a predictor gets at once. A GPU computes them in one pass. On Ray, a CPU may get more."""

    engine: Annotated[Literal["auto", "openvino", "tensorflow"], Flag("Machine")] = "auto"
    """Library that computes the network. auto takes OpenVINO on CPUs, TensorFlow on GPUs and where OpenVINO is not
    installed. openvino computes on CPUs only. The probabilities agree within 0.0001."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Exit with code 3 if more than this share (0 to 1) of the scans is rejected or failed. Skipped scans do not count."""

    limit: Annotated[int | None, Flag("Input", "SCANS", "no limit")] = None
    """Score at most this many of the scans that have no prediction yet."""

    part_rows: Annotated[int, Flag("Output", "ROWS")] = 256
    """Minimum rows per Parquet part. A crash loses the parts being written: 256 rows are about 15 s of work on two
    cores."""

    scan_timeout_s: Annotated[float, Flag("Machine", "SECONDS")] = 60.0
    """Time limit for decoding one scan (of a scan of many frames, each 32 of them), or for scoring it alone. A scan that
    exceeds it is tried once more, then rejected."""

    lease_s: Annotated[float, Flag("Machine", "SECONDS")] = 20.0
    """Take over the lock of another run if that run has not renewed it for this long."""

    select: Annotated[Literal["anatomical", "mr", "all"], Flag("DICOM")] = "anatomical"
    """DICOM series to score: anatomical MR, all MR (also functional, diffusion, maps and the like), or all with pixels."""

    series_match: Annotated[str | None, Flag("DICOM", "REGEX", "any")] = None
    """Score only DICOM series whose description or protocol matches this regular expression, in any case."""

    series_skip: Annotated[str | None, Flag("DICOM", "REGEX", "none")] = None
    """Skip DICOM series whose description or protocol matches this regular expression, in any case."""

    window: Annotated[Literal["header", "computed"], Flag("DICOM")] = "header"
    """Grey levels of DICOM frames: the window of the header where there is a usable one, or always the percentiles 0.5
    and 99.5 of the frame."""

    max_frames: Annotated[int, Flag("DICOM", "FRAMES")] = 1024
    """Reject a DICOM file with more frames, or a NIfTI volume with more slices, than this."""

    identifiers: Annotated[Literal["keyed", "plain", "none"], Flag("DICOM")] = "keyed"
    """Columns instance_key, series_key, study_key and patient_key: keyed hashes, the UIDs and patient IDs as they are, or
    nothing."""

    identifier_key: Annotated[str | None, Flag("DICOM", "FILE", "~/.config/mribatch/identifier-key")] = None
    """Secret of the keyed hashes, made if it does not exist. The same file gives the same keys. Keep it outside the
    output: whoever has it can recognize a known patient ID."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.input) > 0, "--input needs at least one folder, file, glob or s3://… prefix")
        check_range(self, "batch_size", least=1, most=BATCH_SCANS)
        check_range(self, "max_reject_rate", least=0, most=1)
        check_range(self, "limit", least=1)
        check_range(self, "part_rows", least=1)
        check_range(self, "scan_timeout_s", least=1)
        check_range(self, "lease_s", least=1)
        check_range(self, "max_frames", least=1)
        for flag, pattern in (("--series-match", self.series_match), ("--series-skip", self.series_skip)):
            check(pattern is None or _is_pattern(pattern), f"{flag} must be a regular expression, got {pattern!r}")


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class NightlyConfig(ScoreConfig):
    """Score new and changed scans, then those that only another model has scored. Stop at the deadline and report."""

    deadline: Annotated[str | None, Flag("Schedule", "HH:MM", "none")] = None
    """End the run by the next time the clock shows this; scans that are left wait for the next night. A time that occurs
    twice when the clock is set back counts both times; one that is skipped in spring counts an hour later."""

    max_hours: Annotated[float | None, Flag("Schedule", "HOURS", "none")] = None
    """End the run after this many hours. With --deadline, whichever comes first."""

    timezone: Annotated[str, Flag("Schedule", "ZONE")] = "UTC"
    """Time zone of --deadline and of the report, for example Europe/Paris."""

    report: Annotated[str | None, Flag("Output", "URI", "OUTPUT/_nights/RUN")] = None
    """Folder for nightly.json and nightly.html: a local path or s3://…"""

    dry_run: Annotated[bool, Flag("Schedule")] = False
    """Print what would be scored and how long it may take, without changing anything."""

    full: Annotated[bool, Flag("Schedule")] = False
    """Score every scan again and replace this model's earlier predictions."""

    max_reject_rate: Annotated[float, Flag("Alarms", "SHARE")] = 0.05
    """Raise an alarm (exit code 5) if more than this share (0 to 1) of the night's scans is rejected or failed."""

    max_drift: Annotated[float, Flag("Alarms", "PSI")] = 0.25
    """Raise an alarm (exit code 5) if the class mix or the confidence has drifted this far from the last 30 runs, as a
    population stability index, and further than chance explains."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_time = self.deadline is None or _TIME_OF_DAY.fullmatch(self.deadline) is not None
        check(is_time, f"--deadline must be a time of day such as 06:00, got {self.deadline}")
        check_range(self, "max_hours", above=0, most=_MAX_HOURS)
        check_range(self, "max_drift", above=0)
        if self.timezone != "UTC":  # listing the zones reads the system's whole folder of them
            _check_timezone(self.timezone)


def _check_timezone(name: str) -> None:
    zones = available_timezones()
    suggestion = did_you_mean(name, zones)
    check(name in zones, f"--timezone must be a name such as Europe/Paris, got {name}{suggestion}")


@dataclass(frozen=True, kw_only=True)
class CompactConfig(Settings):
    """Merge small Parquet parts into larger ones and, if asked, delete old rows. The newest row of each scan is never deleted."""

    output: Annotated[str, Flag("Output", "URI")]
    """Folder of the predictions: a local path or s3://…"""

    part_rows: Annotated[int, Flag("Output", "ROWS")] = 100_000
    """Approximate number of rows per Parquet part after merging."""

    keep_days: Annotated[int | None, Flag("Output", "DAYS", "delete nothing")] = None
    """Delete rows scored more than this many days ago. The newest row of each scan is always kept."""

    keep_models: Annotated[int | None, Flag("Output", "N", "delete nothing")] = None
    """Keep rows of the N models that scored most recently and delete those of older models. The newest row of each scan
    is always kept."""

    lease_s: Annotated[float, Flag("Machine", "SECONDS")] = 20.0
    """Take over the lock of another run if that run has not renewed it for this long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "part_rows", least=1)
        check_range(self, "keep_days", least=1, most=_MAX_DAYS)
        check_range(self, "keep_models", least=1)
        check_range(self, "lease_s", least=1)
