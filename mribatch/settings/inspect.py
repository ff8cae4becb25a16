"""Settings of `inspect`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mribatch.settings.base import Settings, check, check_range
from mribatch.settings.flags import Flag

__all__ = ["InspectConfig"]


@dataclass(frozen=True, kw_only=True)
class InspectConfig(Settings):
    """Say what an archive holds and what would be scored, skipped and rejected. Decodes no pixels and needs no model."""

    input: Annotated[tuple[str, ...], Flag("Input", "URI")]
    """Folders, files, globs or s3://bucket/prefix. Every file below a folder is a scan, except hidden ones (names that
    begin with a dot)."""

    exclude: Annotated[tuple[str, ...], Flag("Input", "GLOB", "nothing", repeat=True)] = ()
    """Skip files that match this glob, for example 'cache/**'. It is relative to each --input and may use *, ?, [a-z]
    and **. May be given several times."""

    output: Annotated[str | None, Flag("Output", "URI", "none")] = None
    """Folder for inspection.parquet, one row per file: a local path or s3://…"""

    limit: Annotated[int | None, Flag("Input", "FILES", "no limit")] = None
    """Look at this many files at most, spread over the whole listing."""

    workers: Annotated[Literal["auto"] | int, Flag("Machine", "auto|N")] = "auto"
    """Number of processes that read headers. auto uses one per core."""

    select: Annotated[Literal["anatomical", "mr", "all"], Flag("DICOM")] = "anatomical"
    """DICOM series to score: anatomical MR, all MR (also functional, diffusion, maps and the like), or all with pixels."""

    series_match: Annotated[str | None, Flag("DICOM", "REGEX", "any")] = None
    """Score only DICOM series whose description or protocol matches this regular expression, in any case."""

    series_skip: Annotated[str | None, Flag("DICOM", "REGEX", "none")] = None
    """Skip DICOM series whose description or protocol matches this regular expression, in any case."""

    max_frames: Annotated[int, Flag("DICOM", "FRAMES")] = 1024
    """Reject a DICOM file with more frames, or a NIfTI volume with more slices, than this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.input) > 0, "--input needs at least one folder, file, glob or s3://… prefix")
        check_range(self, "limit", least=1)
        check_range(self, "max_frames", least=1)
        if self.workers != "auto":
            check_range(self, "workers", least=1)
