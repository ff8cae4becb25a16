"""Which DICOM objects are scored, and how their frames are windowed."""

import re
from dataclasses import dataclass
from typing import Literal

from mribatch.errors import ConfigError
from mribatch.schema import Reason

__all__ = ["ANATOMICAL", "MR_KINDS", "Selection"]

ANATOMICAL = "anatomical"
MR_KINDS = frozenset(
    {
        ANATOMICAL,
        Reason.LOCALIZER,
        Reason.FUNCTIONAL,
        Reason.DIFFUSION,
        Reason.PERFUSION,
        Reason.MAP,
        Reason.PHASE,
        Reason.PROJECTION,
    }
)
"""The kinds that `--select mr` scores."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The user's choice. The patterns are searched for in a series' description and protocol, in any case."""

    select: Literal["anatomical", "mr", "all"] = "anatomical"
    series_match: str | None = None
    series_skip: str | None = None
    window: Literal["header", "computed"] = "header"
    max_frames: int = 1024

    def __post_init__(self) -> None:
        for pattern in (self.series_match, self.series_skip):
            try:
                re.compile(pattern or "")
            except re.error as err:
                raise ConfigError(f"the pattern {pattern!r} is no regular expression: {err}") from err
        if self.max_frames < 1:
            raise ConfigError(f"max_frames is a count from 1 on, got {self.max_frames}")

    def wants(self, kind: str) -> bool:
        """Return whether what is of a kind, and has pixels, is scored where no pattern leaves it out."""
        return self.select == "all" or kind == ANATOMICAL or (self.select == "mr" and kind in MR_KINDS)

    def skip_reason(self, kind: str, texts: list[str]) -> Reason | None:
        """Return why an object of a kind is not scored; None where it is. `texts` are its series' words."""
        if kind == Reason.NO_PIXELS:
            return Reason.NO_PIXELS
        if not self.wants(kind):
            return Reason(kind)
        if self.series_match and not _is_in(self.series_match, texts):
            return Reason.SERIES
        return Reason.SERIES if self.series_skip and _is_in(self.series_skip, texts) else None


def _is_in(pattern: str, texts: list[str]) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE) for text in texts)
