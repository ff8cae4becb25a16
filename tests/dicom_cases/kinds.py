"""What a file is: scans for the model, all that is none, and files that are no DICOM at all."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    MediaStorageDirectoryStorage,
    ParametricMapStorage,
    RawDataStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from tests.dicom_cases.case import CLEAN, Case, rejected, scored, skipped
from tests.unit.dicom_files import CANARY, SIDE, clean, enhanced, group, header, merged, picture, slice_of

__all__ = ["KINDS"]

_NO_PHYSICS = dict.fromkeys(("ScanningSequence", "SequenceVariant", "EchoTime", "RepetitionTime"))
_PICTURE_8 = (picture() >> 4).astype(np.uint8)


def _of_type(*values: str, **changes: Any) -> Dataset:
    return clean(ImageType=list(values), **changes)


def _screenshot() -> Dataset:
    colours = np.dstack([_PICTURE_8, _PICTURE_8[::-1], 255 - _PICTURE_8])
    kind = {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT", "ImageType": ["DERIVED", "SECONDARY"]}
    return slice_of(colours, ImageOrientationPatient=None, **kind, **_NO_PHYSICS)


def _segmentation() -> Dataset:
    dataset = clean(SOPClassUID=SegmentationStorage, Modality="SEG", NumberOfFrames=1)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelData = np.packbits(picture() > 1000, bitorder="little").tobytes()
    return dataset


def _parametric_map() -> Dataset:
    dataset = clean(SOPClassUID=ParametricMapStorage, PixelData=None, BitsAllocated=32, BitsStored=None, HighBit=None)
    dataset.FloatPixelData = picture().astype(np.float32).tobytes()
    return dataset


def _report() -> Dataset:
    concept = Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = "113701", "DCM", CANARY
    return header(SOPClassUID=BasicTextSRStorage, Modality="SR", ConceptNameCodeSequence=Sequence([concept]))


def _directory() -> Dataset:
    records = Sequence([])
    return header(SOPClassUID=MediaStorageDirectoryStorage, FileSetID=CANARY, DirectoryRecordSequence=records)


def _scout_of_two_stacks() -> Dataset:
    planes = ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1])
    window = group("FrameVOILUTSequence", WindowCenter=2000, WindowWidth=4000)
    groups = [merged(window, group("PlaneOrientationSequence", ImageOrientationPatient=plane)) for plane in planes]
    return enhanced(np.stack([picture()] * 2), groups, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])


def _mosaic() -> Dataset:
    """Four slices in one picture."""
    tiles = np.block([[picture(), picture()[::-1]], [picture()[:, ::-1], picture()]])
    changes = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "ScanningSequence": "EP"}
    return slice_of(tiles, BitsStored=12, HighBit=11, WindowCenter=2000, WindowWidth=4000, **changes)


def _constant(**changes: Any) -> Dataset:
    return clean(PixelData=np.full((SIDE, SIDE), 500, np.uint16).tobytes(), **changes)


KINDS: Mapping[str, Callable[[], Case]] = {
    CLEAN: lambda: scored(clean()),
    "localizer_coded.dcm": lambda: skipped("localizer", _of_type("ORIGINAL", "PRIMARY", "LOCALIZER", "ES")),
    "localizer_by_words.dcm": lambda: skipped(
        "localizer", _of_type("ORIGINAL", "PRIMARY", "OTHER", SeriesDescription="3-Plane Localizer", ProtocolName=None)
    ),
    "scout_siemens.dcm": lambda: skipped(
        "localizer", _of_type("DERIVED", "PRIMARY", "MPR", "NORM", SeriesDescription="AAHead_Scout_MPR_cor")
    ),
    "scout_two_stacks.dcm": lambda: skipped("localizer", _scout_of_two_stacks()),
    "t1_mpr.dcm": lambda: scored(
        _of_type("DERIVED", "PRIMARY", "MPR", "NORM", SeriesDescription="t1_mprage_cor MPR tra"), twin=CLEAN
    ),
    "t1_derived_secondary.dcm": lambda: scored(
        _of_type("DERIVED", "SECONDARY", WindowCenter=None, WindowWidth=None), twin="no_window.dcm"
    ),
    "adc.dcm": lambda: skipped("map", _of_type("DERIVED", "PRIMARY", "DIFFUSION", "ADC")),
    "dwi_b1000.dcm": lambda: skipped(
        "diffusion", _of_type("ORIGINAL", "PRIMARY", "M_SE", "M", "SE", SeriesDescription="y", DiffusionBValue=1000.0)
    ),
    "fmri_epi.dcm": lambda: skipped(
        "functional", _of_type("ORIGINAL", "PRIMARY", "EPI", "NONE", ScanningSequence=["EP", "GR"])
    ),
    "phase.dcm": lambda: skipped("phase", _of_type("ORIGINAL", "PRIMARY", "P", "ND")),
    "mip.dcm": lambda: skipped("projection", _of_type("DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP")),
    "mosaic_classic.dcm": lambda: skipped("mosaic", _mosaic()),
    "ct_head.dcm": lambda: skipped(
        "not_mr", _of_type("ORIGINAL", "PRIMARY", "AXIAL", SOPClassUID=CTImageStorage, Modality="CT")
    ),
    "screen_rgb.dcm": lambda: skipped("secondary_capture", _screenshot()),
    "mr_saved_as_capture.dcm": lambda: scored(clean(SOPClassUID=SecondaryCaptureImageStorage), twin=CLEAN),
    "segmentation.dcm": lambda: skipped("segmentation", _segmentation()),
    "parametric_float.dcm": lambda: skipped("map", _parametric_map()),
    "raw_storage.dcm": lambda: skipped("no_pixels", header(SOPClassUID=RawDataStorage)),
    "structured_report.dcm": lambda: skipped("no_pixels", _report()),
    "DICOMDIR": lambda: skipped("no_pixels", _directory()),
    "constant.dcm": lambda: skipped("blank", _constant()),
    "constant_no_window.dcm": lambda: skipped("blank", _constant(WindowCenter=None, WindowWidth=None)),
    "LICENSE": lambda: rejected("not_an_image", b"Permission is granted to everyone who asks for it.\n" * 20),
    "saved_html.dcm": lambda: rejected("not_an_image", b"<!DOCTYPE html><title>403</title><p>Please log in first.\n"),
    "empty.dcm": lambda: rejected("empty", b""),
}
