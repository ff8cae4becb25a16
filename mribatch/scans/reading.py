"""How scans are read: which DICOM objects, through which window, with which identifiers. Loads no DICOM library."""

import hashlib
import json
from dataclasses import dataclass, field

from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.dicom.selection import Selection

__all__ = ["DECODER_VERSION", "ONE_FRAME", "Reading"]

DECODER_VERSION = 1
"""Raise it with each change that can give a DICOM file or a volume other pixels or another status."""

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

    @property
    def of_unknown(self) -> str:
        """The digest in rows of files whose format this version does not know: a later one may."""
        return _digest("unknown", _FORMATS_VERSION)

    @property
    def of_opened(self) -> str:
        """The digest in rows of frames: of the window."""
        return _digest("opened", self.selection.window)

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
        return frozenset({self.of_unknown, self.of_opened, self.of_volumes, self.of_skipped, self.of_rejected})


def _digest(*settings: str | int | None) -> str:
    return hashlib.sha256(json.dumps([DECODER_VERSION, *settings]).encode()).hexdigest()[:_DIGITS]


ONE_FRAME = Reading(selection=Selection(max_frames=1), archives=False)
"""For training and comparing: a label is of one picture, so files of several frames and archives are rejected."""
