"""What an object is: coded fields first, then words, then hints; in doubt it is scored."""

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MediaStorageDirectoryStorage,
    MRSpectroscopyStorage,
    ParametricMapStorage,
    RawDataStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from mribatch.errors import ConfigError
from mribatch.scans.dicom.selection import Selection
from mribatch.schema import SKIPS, Status
from tests.unit.dicom_files import clean, enhanced, group, header, picture, read, written

GE = {"Manufacturer": "GE MEDICAL SYSTEMS"}


def image(*types: str) -> dict[str, Any]:
    return {"ImageType": ["ORIGINAL", "PRIMARY", *types]}


def words(description: str | None, protocol: str | None = None) -> dict[str, Any]:
    return {"SeriesDescription": description, "ProtocolName": protocol}


def private(group_number: int, creator: str, element: int, vr: str, value: Any) -> dict[str, Any]:
    return {"private": (group_number, creator, element, vr, value)}


def kind(changes: dict[str, Any]) -> str | None:
    block = changes.pop("private", None)
    dataset = clean(**({"SeriesDescription": "", "ProtocolName": ""} | changes))
    if block:
        group_number, creator, element, vr, value = block
        dataset.private_block(group_number, creator, create=True).add_new(element, vr, value)
    return read(dataset).scan.kind


CODED = [
    ("localizer", image("LOCALIZER")),
    ("map", image("DIFFUSION", "ADC")),
    ("map", image("ADC_UNSPECIFIED")),
    ("map", image("DIFFUSION", "FA")),
    ("map", image("B0 MAP")),
    ("map", image("T1 MAP")),
    ("map", image("ASL", "NORM", "RELCBF", "TTEST")),
    ("perfusion", image("ASL", "NORM", "TTEST")),
    ("perfusion", image("PERFUSION_FFE", "PERFUSION", "FFE")),
    ("diffusion", image("DIFFUSION", "TRACEW")),
    ("diffusion", {"DiffusionBValue": 1000.0}),
    ("diffusion", private(0x2001, "Philips Imaging DD 001", 0x03, "FL", 800.0)),
    ("diffusion", private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "1000")),
    ("diffusion", private(0x0043, "GEMS_PARM_01", 0x39, "IS", ["1000001000", "8", "0", "0"])),
    ("diffusion", {"SequenceName": "*ep_b0"}),
    ("phase", image("P", "ND")),
    ("phase", image("P_FFE", "P", "FFE")),
    ("phase", image("PHASE MAP")),
    ("phase", private(0x0043, "GEMS_PARM_01", 0x2F, "SS", 1)),
    ("phase", {"ComplexImageComponent": "PHASE"}),
    ("projection", image("PROJECTION IMAGE", "MIP")),
    ("projection", {"VolumeBasedCalculationTechnique": "MIN_IP"}),
    ("functional", image("FMRI", "NONE")),
    ("map", {"SequenceName": "*fm2d2"}),
    ("mosaic", image("M", "ND", "MOSAIC")),
    ("mosaic", private(0x0019, "SIEMENS MR HEADER", 0x0A, "US", 36)),
    ("anatomical", image("M", "NORM", "DIS2D")),
    ("anatomical", {"ImageType": ["DERIVED", "SECONDARY"]}),
    ("anatomical", {"ImageType": ["DERIVED", "PRIMARY", "MPR", "NORM"]}),
    ("anatomical", {"DiffusionBValue": 0.0}),
    ("anatomical", private(0x0043, "GEMS_PARM_01", 0x39, "IS", ["0", "0", "0", "0"])),
    ("anatomical", image("R_IR", "R", "IR")),
    ("anatomical", {"ImageType": None}),
]
WORDS = [
    ("localizer", words("3-Plane Localizer")),
    ("localizer", words("AAHead_Scout_MPR_sag")),
    ("localizer", words("Survey_32ch")),
    ("localizer", words("3PL LOC")),
    ("localizer", words("ASSET calibration")),
    ("map", words("Apparent Diffusion Coefficient (mm2/s)")),
    ("map", words("dADC")),
    ("map", words("gre_field_mapping")),
    ("map", words("3DB0Map")),
    ("map", words("SpinEchoFieldMap_AP")),
    ("map", words("ep2d_diff_FA")),
    ("projection", words("mIP_Images(SW)")),
    ("projection", words("TOF MIP TRA")),
    ("phase", words("Pha_Images")),
    ("perfusion", words("WIP SOURCE - 3DpCASL")),
    ("perfusion", words("ep2d_perf DSC")),
    ("diffusion", words("DT_HIGH_32DIR")),
    ("diffusion", words("Ax DWI TENSOR b0")),
    ("diffusion", words("dMRI_mb3_AP")),
    ("diffusion", words("b1000 axial")),
    ("functional", words("func-bold_task-fa_run-1")),
    ("functional", words("Resting State")),
    ("functional", words("fcMRI")),
    ("functional", words("MPR", "ep2d_bold")),
    ("anatomical", words("Ax T2 FLAIR FS")),
    ("anatomical", words("t1_mprage_sag_p2_iso")),
    ("anatomical", words("3D DIR brain")),
    ("anatomical", words("SWI_Images")),
    ("anatomical", words("SAG T1 CUBE +C")),
    ("anatomical", words("t2_tse_dark-fluid_tra")),
    ("anatomical", words("Sag T1", "Brain fMRI DWI") | GE),
]
HINTS = [
    ("functional", {"ScanningSequence": ["EP", "GR"]}),
    ("diffusion", {"ScanningSequence": ["EP", "SE"]}),
    ("functional", {"ScanningSequence": ["EP", "SE"], "NumberOfTemporalPositions": 120}),
    ("functional", {"NumberOfTemporalPositions": 75}),
    ("diffusion", {"ScanningSequence": ["EP", "RM"]}),
    ("functional", private(0x2001, "Philips Imaging DD 001", 0x13, "SL", 43)),
    ("anatomical", private(0x2001, "Philips Imaging DD 001", 0x13, "SL", 1)),
    ("functional", {"SequenceName": "*epfid2d1_64"}),
    ("perfusion", {"ScanningSequence": "EP", "SeriesDescription": "pcasl"}),
    ("anatomical", {"NumberOfTemporalPositions": 2}),
]


@pytest.mark.parametrize(("expected", "changes"), CODED + WORDS + HINTS, ids=str)
def test_each_kind_is_known_by_what_scanners_write(expected: str, changes: dict[str, Any]) -> None:
    assert kind(dict(changes)) == expected


def test_codes_outweigh_words() -> None:
    assert kind(image("DIFFUSION", "ADC") | words("fMRI rest")) == "map"
    assert kind(image("P", "ND") | words("gre_field_mapping")) == "phase"


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        ("skipped not_mr", {"SOPClassUID": CTImageStorage, "Modality": "CT"}),
        ("skipped segmentation", {"SOPClassUID": SegmentationStorage, "Modality": "SEG"}),
        ("skipped map", {"SOPClassUID": ParametricMapStorage}),
        (
            "skipped secondary_capture",
            {
                "SOPClassUID": SecondaryCaptureImageStorage,
                "Modality": "OT",
                "EchoTime": None,
                "RepetitionTime": None,
                "ScanningSequence": None,
            },
        ),
        ("ok", {"SOPClassUID": SecondaryCaptureImageStorage}),
        ("ok", {"SOPClassUID": None}),
        ("skipped not_mr", {"SOPClassUID": "1.2.3", "Modality": None}),
    ],
    ids=str,
)
def test_other_objects_than_mr_are_skipped(expected: str, changes: dict[str, Any]) -> None:
    assert read(clean(**changes)).outcome == expected


@pytest.mark.parametrize(
    "sop_class",
    [
        BasicTextSRStorage,
        RawDataStorage,
        GrayscaleSoftcopyPresentationStateStorage,
        MediaStorageDirectoryStorage,
        MRSpectroscopyStorage,
    ],
    ids=lambda uid: uid.keyword,
)
@pytest.mark.parametrize("select", ["anatomical", "all"])
def test_objects_without_pixels_are_skipped_under_any_selection(sop_class: str, select: Any) -> None:
    dataset = header(SOPClassUID=sop_class)
    if sop_class == MRSpectroscopyStorage:
        dataset.Rows = dataset.Columns = 1
    assert read(dataset, Selection(select=select)).outcome == "skipped no_pixels"


def test_a_mosaic_is_never_scored() -> None:
    for select in ("anatomical", "mr", "all"):
        assert read(clean(**image("M", "MOSAIC")), Selection(select=select)).outcome == "skipped mosaic"  # type: ignore[arg-type]


def test_tiles_of_another_vendor_are_never_scored_either() -> None:
    dataset = clean(DiffusionBValue=1000.0)
    dataset.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", "20")
    data = written(dataset)
    assert read(data).outcome == "skipped diffusion"
    for select in ("mr", "all"):
        assert read(data, Selection(select=select)).outcome == "skipped mosaic"  # type: ignore[arg-type]


def test_an_enhanced_object_that_says_mosaic_is_scored() -> None:
    dataset = enhanced(np.stack([picture()] * 2), [], **image("M", "NONE", "MOSAIC"))
    assert len(read(dataset).frames) == 2


def test_the_groups_of_an_enhanced_object_tell_its_kind() -> None:
    weighted = group("MRDiffusionSequence", DiffusionBValue=700.0)
    assert read(enhanced(np.stack([picture()] * 2), [Dataset(), weighted])).scan.kind == "diffusion"
    typed = group("MRImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "PERFUSION", "NONE"])
    assert read(enhanced(np.stack([picture()] * 2), [], typed)).scan.kind == "perfusion"
    phase = group("MRImageFrameTypeSequence", ComplexImageComponent="PHASE")
    assert read(enhanced(np.stack([picture()] * 2), [phase, phase])).scan.kind == "phase"


def test_many_positions_in_time_are_a_time_series() -> None:
    late = group("FrameContentSequence", TemporalPositionIndex=90)
    assert read(enhanced(np.stack([picture()] * 2), [Dataset(), late], SeriesDescription="x")).scan.kind == "functional"


def test_a_skipped_object_has_a_kind_and_no_frames() -> None:
    result = read(clean(**image("LOCALIZER")))
    assert result.scan.status is Status.SKIPPED
    assert result.scan.reason in SKIPS
    assert result.frames == []


@pytest.mark.parametrize(
    ("select", "scored"),
    [("anatomical", {"anatomical"}), ("mr", {"anatomical", "map"}), ("all", {"anatomical", "map", "not_mr"})],
)
def test_selections_widen(select: Any, scored: set[str]) -> None:
    objects = [clean(), clean(**image("ADC")), clean(SOPClassUID=CTImageStorage, Modality="CT")]
    results = [read(scan, Selection(select=select)) for scan in objects]
    assert {result.scan.kind for result in results if result.outcome == "ok"} == scored


def test_patterns_of_series_choose_among_what_is_selected() -> None:
    dataset = written(clean(SeriesDescription="Sag MPRAGE", ProtocolName="brain"))
    assert read(dataset, Selection(series_match="mprage|flair")).outcome == "ok"
    assert read(dataset, Selection(series_match="^brain$")).outcome == "ok"
    assert read(dataset, Selection(series_match="flair")).outcome == "skipped series"
    assert read(dataset, Selection(series_skip="mprage")).outcome == "skipped series"


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="regular expression"):
        Selection(series_match="(")


def test_sequences_of_any_length_are_read() -> None:
    dataset = clean(**image("M"))
    item = Dataset()
    item.PatientName = "x"
    dataset.ReferencedImageSequence = Sequence([item])
    dataset["ReferencedImageSequence"].is_undefined_length = True
    assert read(dataset).outcome == "ok"
