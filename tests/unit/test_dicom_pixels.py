"""Stored values become grey in one order, whoever wrote them; checked against pydicom where it is right."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from mribatch.scans.dicom.selection import Selection
from tests.unit.dicom_files import clean, difference, enhanced, group, merged, picture, read, slice_of, written


def linear(values: NDArray[Any], center: float, width: float) -> NDArray[np.float64]:
    """PS3.3, C.11.2.1.2.1."""
    return np.clip(((values - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)


EXPECTED = linear(picture().astype(float), 2000, 4000)


def table(descriptor: list[int], entries: NDArray[Any]) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, "US", descriptor)
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


def reread(dataset: Dataset) -> Dataset:
    """As pydicom reads it."""
    return dcmread(io.BytesIO(written(dataset)))


def percentiles(values: NDArray[Any], of: NDArray[Any] | None = None) -> NDArray[np.float64]:
    low, high = np.percentile(values if of is None else of, [0.5, 99.5])
    return np.clip((values - low) / (high - low) * 255, 0, 255)


@pytest.mark.parametrize(
    ("function", "center", "width"),
    [(None, 2000, 4000), ("LINEAR", 1800, 3900), ("LINEAR_EXACT", 2000, 4000), ("SIGMOID", 1500, 3000)],
)
def test_a_window_gives_the_shades_that_pydicom_gives(function: str | None, center: float, width: float) -> None:
    dataset = clean(WindowCenter=center, WindowWidth=width, VOILUTFunction=function, RescaleSlope=1, RescaleIntercept=0)
    peer = apply_voi_lut(apply_modality_lut(picture(), reread(dataset)), reread(dataset)) / 4095 * 255
    result = read(dataset)
    assert result.frames[0].window == "header"
    assert difference(result.pixels, np.clip(np.rint(peer), 0, 255)) <= 1


def test_a_modality_table_comes_before_the_window() -> None:
    dataset = clean(WindowCenter=1000, WindowWidth=2000, BitsStored=12)
    dataset.ModalityLUTSequence = table([4096, 0, 16], np.arange(4096) // 2)
    dataset.ModalityLUTSequence[0].ModalityLUTType = "US"
    peer = apply_modality_lut(picture(), reread(dataset)).astype(float)
    assert difference(read(dataset).pixels, np.rint(linear(peer, 1000, 2000))) <= 1


def test_a_voi_table_comes_before_a_window_and_is_named_lut() -> None:
    entries = (np.arange(4096) ** 2 // 4095).astype(np.uint16)
    dataset = clean(VOILUTSequence=table([4096, 0, 12], entries))
    peer = apply_voi_lut(picture(), reread(dataset)) / 4095 * 255
    result = read(dataset)
    assert result.frames[0].window == "lut"
    assert difference(result.pixels, np.rint(peer)) <= 1


def test_a_voi_table_may_begin_below_zero() -> None:
    dataset = clean(
        VOILUTSequence=table([4096, 65536 - 1000, 12], np.arange(4096)), RescaleSlope=1, RescaleIntercept=-1000
    )
    assert difference(read(dataset).pixels, np.rint(picture() / 4095 * 255)) <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"VOILUTSequence": table([0, 0, 16], np.zeros(0))},
        {"ModalityLUTSequence": table([0, 0, 16], np.zeros(0))},
        {"WindowCenter": [2000, 100], "WindowWidth": [4000, 50]},
        {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 3899.5, "WindowWidth": 7999},
        {"BitsStored": None},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_what_changes_nothing_changes_nothing(changes: dict[str, Any]) -> None:
    assert difference(read(clean(**changes)).pixels, np.rint(EXPECTED)) <= 1


def test_a_negated_picture_in_monochrome_1_looks_alike() -> None:
    negated = slice_of(
        4095 - picture(), PhotometricInterpretation="MONOCHROME1", BitsStored=12, WindowCenter=2096, WindowWidth=4000
    )
    assert difference(read(negated).pixels, np.rint(EXPECTED)) <= 1


def test_a_negated_picture_with_a_negative_slope_looks_alike() -> None:
    negated = slice_of(
        4095 - picture(), BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2000, WindowWidth=4000
    )
    assert difference(read(negated).pixels, np.rint(EXPECTED)) <= 1


def test_signed_values_with_an_intercept_look_alike() -> None:
    signed = slice_of(
        (picture().astype(np.int16) - 2048),
        BitsStored=12,
        RescaleSlope=1,
        RescaleIntercept=2048,
        WindowCenter=2000,
        WindowWidth=4000,
    )
    assert difference(read(signed).pixels, np.rint(EXPECTED)) <= 1


def test_a_sign_in_twelve_bits_is_extended() -> None:
    values = ((picture().astype(np.int16) - 2048) & 0x0FFF).astype(np.uint16)
    changes = {"RescaleSlope": 1, "RescaleIntercept": 2048, "WindowCenter": 2000, "WindowWidth": 4000}
    dataset = slice_of(values, BitsStored=12, PixelRepresentation=1, **changes)
    assert difference(read(dataset).pixels, np.rint(EXPECTED)) <= 1


def test_bits_above_those_stored_are_no_pixels() -> None:
    overlaid = picture() | (np.indices(picture().shape).sum(0) % 2 << 12).astype(np.uint16)
    dataset = slice_of(overlaid, BitsStored=12, WindowCenter=2000, WindowWidth=4000)
    assert difference(read(dataset).pixels, np.rint(EXPECTED)) <= 1


def test_without_a_window_percentiles_are_computed() -> None:
    result = read(clean(WindowCenter=None, WindowWidth=None))
    assert result.frames[0].window == "computed"
    assert difference(result.pixels, np.rint(percentiles(picture().astype(float)))) <= 1


@pytest.mark.parametrize(
    ("center", "width"),
    [(1e6, 10), (700, 0), (700, -5), (0, 1), (700, float("nan")), (200, 400)],
    ids=["far away", "zero", "negative", "one", "nan", "saturating"],
)
def test_a_window_that_shows_too_little_is_computed_anew(center: float, width: float) -> None:
    dataset = clean()
    dataset["WindowCenter"]._value, dataset["WindowWidth"]._value = str(center), str(width)
    data = written(dataset)
    assert read(data).frames[0].window == "computed"
    assert difference(read(data).pixels, np.rint(percentiles(picture().astype(float)))) <= 1


def test_a_window_may_leave_the_background_black() -> None:
    result = read(clean(WindowCenter=2300, WindowWidth=4000))
    assert result.frames[0].window == "header"
    assert (result.pixels == 0).mean() > 0.2


def test_the_user_may_ask_for_computed_windows() -> None:
    result = read(clean(), Selection(window="computed"))
    assert result.frames[0].window == "computed"
    assert difference(result.pixels, np.rint(percentiles(picture().astype(float)))) <= 1


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_widen_the_window(photometric: str) -> None:
    padded, is_padding = picture(), np.zeros(picture().shape, bool)
    is_padding[:10] = True
    padded[is_padding] = 4090
    dataset = clean(WindowCenter=None, WindowWidth=None, PhotometricInterpretation=photometric)
    dataset.PixelData = padded.tobytes()
    dataset.add_new(0x00280120, "US", 4085)
    dataset.add_new(0x00280121, "US", 4095)
    pixels = read(dataset).pixels
    assert (pixels[is_padding] == 0).all()
    expected = np.rint(percentiles(padded.astype(float), padded[~is_padding]))
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert difference(pixels[~is_padding], expected[~is_padding]) <= 1


@pytest.mark.parametrize("value", [0, 1000])
def test_a_constant_frame_is_blank(value: int) -> None:
    dataset = clean()
    dataset.PixelData = np.full(picture().shape, value, np.uint16).tobytes()
    assert read(dataset).outcome == "skipped blank"


def test_each_frame_has_its_own_scaling_and_window() -> None:
    frames = np.stack([picture(), picture() // 2, picture()])
    groups = [
        group("FrameVOILUTSequence", WindowCenter=2000, WindowWidth=4000),
        merged(
            group("PixelValueTransformationSequence", RescaleSlope=2, RescaleIntercept=0),
            group("FrameVOILUTSequence", WindowCenter=2000, WindowWidth=4000),
        ),
        group("FrameVOILUTSequence", WindowCenter=4000, WindowWidth=8000),
    ]
    result = read(enhanced(frames, groups, RescaleSlope=1, RescaleIntercept=0))
    first, second, third = (frame.pixels for frame in result.frames)
    assert first is not None
    assert second is not None
    assert third is not None
    assert difference(first, np.rint(EXPECTED)) <= 1
    assert difference(second, np.rint(EXPECTED)) <= 1
    assert difference(third, np.rint(EXPECTED) // 2) <= 1


def test_a_shared_group_holds_for_all_frames_before_the_object_does() -> None:
    shared = group("PixelValueTransformationSequence", RescaleSlope=2, RescaleIntercept=0)
    dataset = enhanced(
        np.stack([picture() // 2] * 2),
        [Dataset(), Dataset()],
        shared,
        RescaleSlope=7,
        RescaleIntercept=9,
        WindowCenter=2000,
        WindowWidth=4000,
    )
    for frame in read(dataset).frames:
        assert frame.pixels is not None
        assert difference(frame.pixels, np.rint(EXPECTED)) <= 1


def test_a_blank_frame_costs_its_own_row_only() -> None:
    frames = np.stack([picture(), np.zeros_like(picture()), picture()])
    assert [str(frame.reason or frame.status) for frame in read(enhanced(frames, [])).frames] == ["ok", "blank", "ok"]


def test_float_pixels_are_windowed_by_percentiles() -> None:
    values = picture().astype(np.float32) / 4095
    values[0, :5] = np.nan
    dataset = clean(WindowCenter=None, WindowWidth=None, PixelData=None, BitsAllocated=32, BitsStored=32)
    dataset.FloatPixelData = values.tobytes()
    pixels = read(dataset).pixels
    assert (pixels[0, :5] == 0).all()
    assert difference(pixels[1:], np.rint(percentiles(values, values[np.isfinite(values)]))[1:]) <= 1


def test_thirty_two_bits_are_windowed_as_sixteen_are() -> None:
    dataset = slice_of(picture().astype(np.uint32) * 60000)
    assert difference(read(dataset).pixels, np.rint(percentiles(picture().astype(float)))) <= 1
