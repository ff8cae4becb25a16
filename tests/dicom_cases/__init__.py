"""Small DICOM files of every kind that archives hold, each with the right answer; `python -m tests.dicom_cases FOLDER` writes them.

CASES holds a function per file name that makes its `Case`. The names are stable, so that lists of other sources compare.
"""

from collections.abc import Callable, Mapping

from tests.dicom_cases.case import Case
from tests.dicom_cases.encodings import ENCODINGS
from tests.dicom_cases.headers import HEADERS
from tests.dicom_cases.kinds import KINDS
from tests.dicom_cases.pixels import PIXELS

__all__ = ["CASES", "Case"]

CASES: Mapping[str, Callable[[], Case]] = {**KINDS, **PIXELS, **ENCODINGS, **HEADERS}
