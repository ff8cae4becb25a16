"""Headers of sloppy and of many writers: odd character sets, identifiers and texts, missing elements, mixed series."""

from collections.abc import Callable, Mapping

from pydicom.dataset import Dataset

from tests.dicom_cases.case import CLEAN, Case, rejected, scored
from tests.unit.dicom_files import CANARY, clean

__all__ = ["HEADERS"]

_CHARSET = "ISO_IR 100"  # 10 characters, which an edit replaces by as many


def _charset(name: str) -> Case:
    """The clean picture in a character set that pydicom would not write."""
    before, after = _CHARSET.encode(), name.encode().ljust(len(_CHARSET))
    return scored(clean(SpecificCharacterSet=_CHARSET), edit=lambda data: data.replace(before, after, 1), twin=CLEAN)


def _text_as(name: str) -> Dataset:
    """A made-up name in an element that holds something else."""
    dataset = clean()
    dataset[name]._value = f"{CANARY}^X"
    return dataset


def _mixed(series: str, number: int) -> Case:
    """A slice of one of two series in one folder."""
    places = {"ImagePositionPatient": [0, 0, 5 * number], "InstanceNumber": number}
    instance = f"1.2.3.7.{number}"
    return scored(clean(SeriesInstanceUID=series, SOPInstanceUID=instance, **places), twin=CLEAN)


HEADERS: Mapping[str, Callable[[], Case]] = {
    "charset_not_supplied.dcm": lambda: _charset("No Answer"),
    "charset_nul.dcm": lambda: _charset("ISO\0IR 100"),
    "charset_canary.dcm": lambda: _charset(f"{CANARY}^"[:10]),
    "uid_is_text.dcm": lambda: scored(clean(SeriesInstanceUID=f"{CANARY}^SMITH^1950"), twin=CLEAN),
    "no_uids.dcm": lambda: scored(clean(SOPInstanceUID="", StudyInstanceUID="", SeriesInstanceUID=""), twin=CLEAN),
    "photometric_text.dcm": lambda: rejected("corrupt", _text_as("PhotometricInterpretation")),
    "rows_missing.dcm": lambda: rejected("corrupt", clean(Rows=None)),
    "bits_allocated_12.dcm": lambda: rejected("corrupt", clean(BitsAllocated=12)),
    "mixed/IM0000": lambda: _mixed("1.2.3.5.1", 0),
    "mixed/IM0001": lambda: _mixed("1.2.3.5.2", 1),
    "mixed/IM0002": lambda: _mixed("1.2.3.5.1", 2),
    "mixed/IM0003": lambda: _mixed("1.2.3.5.2", 3),
    "mixed/copy_of_IM0000.dcm": lambda: _mixed("1.2.3.5.1", 0),
}
