"""How scans are read: which DICOM objects, through which window, with which identifiers. Loads no DICOM library."""

import hashlib
import json
from dataclasses import dataclass, field

from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.dicom.selection import Selection

__all__ = ["ONE_FRAME", "Reading"]

_VERSIONS = {"opened": 1, "damaged": 2, "volumes": 1, "skipped": 1, "rejected": 2, "unknown": 1}
"""The decoder's version, by the outcome in a row. Rows of another version are planned again, so raise only those that differ:

- opened, volumes: for other pixels of scored frames; every such file is scored again
- damaged, rejected: for frames and files that were rejected and may be read, or get another reason
- skipped: for objects that were skipped and get another kind
"""

_FORMATS_VERSION = 2
"""Raise it with each format that is read from then on. 2: NIfTI, gzip, zip and tar."""

_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The user's choice of what is read and how.

    Rows hold a digest of those settings that their result depends on. So a JPEG depends on none, a scored DICOM file not
    on the selection that it passed, and a skipped one not on the window.
    """

    selection: Selection = field(default_factory=Selection)
    identifiers: Identifiers = field(default_factory=Identifiers)
    archives: bool = True  # whether the members of an archive are scans; else it is rejected
    digests_pixels: bool = True  # whether frames have `pixels_sha256`, which scoring has no use for

    @property
    def of_unknown(self) -> str:
        """The digest in rows of files whose format this version does not know: a later one may."""
        return _digest("unknown", _FORMATS_VERSION)

    @property
    def of_opened(self) -> str:
        """The digest in rows of frames that are scored or blank: of the window."""
        return _digest("opened", self.selection.window)

    @property
    def of_damaged(self) -> str:
        """The digest in rows of rejected frames of a file that could be opened: as of the others, of the window."""
        return _digest("damaged", self.selection.window)

    @property
    def of_volumes(self) -> str:
        """The digest in rows of slices: they have no window but the computed one."""
        return _digest("volumes")

    @property
    def of_skipped(self) -> str:
        """The digest in rows of objects that are skipped: of what selects."""
        chosen = self.selection
        return _digest("skipped", chosen.select, chosen.series_match, chosen.series_skip)

    @property
    def of_rejected(self) -> str:
        """The digest in rows of objects that are rejected: of the cap on frames."""
        return _digest("rejected", self.selection.max_frames)

    @property
    def digests(self) -> frozenset[str]:
        """All digests of this reading: rows with another one are out of date."""
        of_frames = {self.of_opened, self.of_damaged, self.of_volumes}
        return frozenset({*of_frames, self.of_unknown, self.of_skipped, self.of_rejected})


def _digest(outcome: str, *settings: str | int | None) -> str:
    text = json.dumps([_VERSIONS[outcome], outcome, *settings])
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


ONE_FRAME = Reading(selection=Selection(max_frames=1), archives=False)
"""For training and comparing: a label is of one picture, so files of several frames and archives are rejected."""
