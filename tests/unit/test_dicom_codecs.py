"""One picture in every transfer syntax is one picture; a cut frame is truncated, whatever a codec would make of it."""

import io
import struct
import time

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HEVCMP51,
    MPEG4HP41,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from mribatch.scans.dicom.selection import Selection
from mribatch.scans.dicom.start import is_dicom
from mribatch.schema import Status
from tests.unit.dicom_files import (
    COMPRESSED,
    LOSSLESS,
    NATIVE,
    as_coded,
    clean,
    coded,
    compressed,
    difference,
    enhanced,
    picture,
    read,
    slice_of,
    written,
)

REFERENCE = read(clean()).pixels
JPEG_XL, UNKNOWN = "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.999"
MARKED = [syntax for syntax in COMPRESSED if syntax != RLELossless]  # whose frames have an end marker


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("has_preamble", [True, False])
def test_pixels_that_are_not_compressed_are_equal(syntax: str, has_preamble: bool) -> None:
    assert difference(read(written(clean(), syntax, has_preamble=has_preamble)).pixels, REFERENCE) == 0


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_lossless_pixels_are_equal(syntax: str) -> None:
    assert difference(read(compressed(syntax)).pixels, REFERENCE) == 0


@pytest.mark.parametrize("syntax", COMPRESSED[5:], ids=lambda syntax: syntax.keyword)
def test_lossy_pixels_are_alike(syntax: str) -> None:
    assert difference(read(compressed(syntax)).pixels, REFERENCE) <= 12


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1, HTJ2KLossless])
def test_signed_pixels_are_equal_in_every_codec(syntax: str) -> None:
    signed = picture().astype(np.int16) - 2048
    changes = {"PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": 2048}
    stored = signed if syntax in (JPEG2000Lossless, HTJ2KLossless) else signed.view(np.uint16)
    data = compressed(syntax, [coded(stored, syntax)], BitsStored=16, HighBit=15, **changes)
    assert difference(read(data).pixels, REFERENCE) == 0


def test_a_bare_data_set_is_known_by_its_first_element() -> None:
    for syntax in NATIVE[:3]:
        data = written(clean(), syntax)
        meta = dcmread(io.BytesIO(data)).file_meta
        body = data[132 + 12 + meta.FileMetaInformationGroupLength :]
        assert is_dicom(body)
        assert difference(read(body).pixels, REFERENCE) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(300),
        b"\x02\0" + bytes(300),
        b"\x08\0" * 99,
        b"\xff\xd8\xff\xe0" + bytes(200),
        b"<html>" * 40,
        b"ID,age\n" * 50,
    ],
)
def test_other_bytes_are_no_dicom(data: bytes) -> None:
    assert not is_dicom(data)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, None])
def test_a_cut_frame_is_truncated_at_once(syntax: str, share: float | None) -> None:
    frame = coded(as_coded(syntax), syntax)
    end = frame.rfind(b"\xff\xd9") - 1 if syntax in MARKED else len(frame) - 3
    cut = frame[: int(share * len(frame))] if share else frame[:end]
    started = time.process_time()
    assert read(compressed(syntax, [cut])).outcome == "rejected truncated"
    assert time.process_time() - started < 1


@pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_cut_frame_with_an_end_marker_is_not_scored(syntax: str, share: float) -> None:
    frame = coded(as_coded(syntax), syntax)
    ended = frame[: int(share * len(frame))] + b"\xff\xd9"
    assert read(compressed(syntax, [ended])).outcome == "rejected corrupt"


def test_lossless_colour_is_read_whole_and_not_with_an_end_marker_in_its_middle() -> None:
    grey = (picture() >> 4).astype(np.uint8)
    frame = coded(np.dstack([grey, grey[::-1], 255 - grey]), JPEGLosslessSV1)
    changes = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    for data, outcome in ((frame, "ok"), (frame[: len(frame) // 2] + b"\xff\xd9", "rejected corrupt")):
        file = compressed(JPEGLosslessSV1, [data], PhotometricInterpretation="RGB", **changes)
        assert read(file, Selection(select="all")).outcome == outcome


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, None])
def test_a_file_cut_within_its_frame_is_truncated(syntax: str, share: float | None) -> None:
    data, frame = compressed(syntax), coded(as_coded(syntax), syntax)
    start = data.index(frame[:64])
    end = frame.rfind(b"\xff\xd9") - 1 if syntax in MARKED else len(frame) - 3
    assert read(data[: start + (int(share * len(frame)) if share else end)]).outcome == "rejected truncated"


def test_one_cut_frame_of_many_is_enough() -> None:
    frame = coded(picture(), JPEGLSLossless)
    data = compressed(JPEGLSLossless, [frame, frame, frame[: len(frame) // 2]], NumberOfFrames=3)
    result = read(data)
    assert result.outcome == "rejected truncated"
    assert result.frames == []


def test_a_damaged_frame_of_many_costs_its_own_row_only() -> None:
    frame = coded(as_coded(JPEGBaseline8Bit), JPEGBaseline8Bit)
    middle = len(frame) // 2
    damaged = frame[:middle] + bytes(200) + frame[middle + 200 :]
    data = compressed(JPEGBaseline8Bit, [frame, damaged, frame], NumberOfFrames=3)
    assert [frame.status for frame in read(data).frames] == [Status.OK, Status.REJECTED, Status.OK]


def test_a_missing_end_delimiter_is_truncated() -> None:
    assert read(compressed(RLELossless)[:-8]).outcome == "rejected truncated"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_within_native_pixels_is_truncated(share: float) -> None:
    data = written(clean())
    start = len(data) - 2 * picture().size
    assert read(data[: start + int(share * 2 * picture().size)]).outcome == "rejected truncated"


@pytest.mark.parametrize("end", [150, 400, 900])
def test_a_file_cut_within_its_header_is_truncated(end: int) -> None:
    assert read(written(clean())[:end]).outcome == "rejected truncated"


def test_a_header_without_its_pixels_is_truncated() -> None:
    assert read(clean(PixelData=None)).outcome == "rejected truncated"


def test_a_frame_may_lie_in_several_fragments() -> None:
    frame = coded(picture(), JPEG2000Lossless)
    data = clean()
    data.PixelData = encapsulate([frame], fragments_per_frame=4)
    data["PixelData"].is_undefined_length = True
    assert difference(read(written(data, JPEG2000Lossless)).pixels, REFERENCE) == 0


@pytest.mark.parametrize("has_table", [True, False])
def test_frames_in_several_fragments_are_told_apart(has_table: bool) -> None:
    frames = [coded(values, JPEG2000Lossless) for values in (picture(), picture()[::-1].copy())]
    data = clean(NumberOfFrames=2)
    data.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=has_table)
    data["PixelData"].is_undefined_length = True
    first, second = (frame.pixels for frame in read(written(data, JPEG2000Lossless)).frames)
    assert first is not None
    assert second is not None
    assert difference(first, REFERENCE) == 0
    assert difference(second, REFERENCE[::-1]) == 0


def test_frames_beyond_those_declared_are_left_alone() -> None:
    native = slice_of(np.stack([picture(), picture() // 2]), BitsStored=12, WindowCenter=2000, WindowWidth=4000)
    native.NumberOfFrames = 1
    assert difference(read(native).pixels, REFERENCE) == 0
    frames = [coded(picture(), JPEG2000Lossless), coded(picture() // 2, JPEG2000Lossless)]
    assert difference(read(compressed(JPEG2000Lossless, frames)).pixels, REFERENCE) == 0


@pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.keyword)
def test_a_frame_of_another_size_than_the_header_claims_is_corrupt(syntax: str) -> None:
    frame = coded(as_coded(syntax)[:, :60].copy(), syntax)
    assert read(compressed(syntax, [frame])).outcome == "rejected corrupt"


def test_a_frame_that_claims_more_tiles_than_it_holds_is_corrupt() -> None:
    frame = coded(picture(), JPEG2000Lossless)
    tile = frame.index(b"\xff\x4f\xff\x51") + 24
    for side in (1, 0):
        claim = frame[:tile] + struct.pack(">II", side, side) + frame[tile + 8 :]
        assert read(compressed(JPEG2000Lossless, [claim])).outcome == "rejected corrupt"


def test_a_frame_of_a_few_bytes_is_blank_where_it_is_black() -> None:
    frame = coded(np.zeros((2000, 2000), np.uint16), JPEG2000Lossless)
    assert len(frame) < 1000
    assert read(compressed(JPEG2000Lossless, [frame], Rows=2000, Columns=2000)).outcome == "skipped blank"


@pytest.mark.parametrize("syntax", [MPEG4HP41, HEVCMP51, JPEG_XL, UNKNOWN])
def test_video_jpeg_xl_and_unknown_syntaxes_are_not_read(syntax: str) -> None:
    data = compressed(HEVCMP51, [bytes(100)]).replace(HEVCMP51.encode(), syntax.encode())
    assert read(data).outcome == "rejected unsupported_format"


def test_pixels_whose_syntax_does_not_fit_are_corrupt() -> None:
    explicit, runs = ExplicitVRLittleEndian.encode(), RLELossless.encode()
    assert read(written(clean()).replace(explicit, runs, 1)).outcome == "rejected corrupt"
    assert read(compressed(RLELossless).replace(runs, explicit, 1)).outcome == "rejected corrupt"


def test_a_deflated_bomb_is_refused_at_once() -> None:
    dataset = clean(BitsStored=12)
    dataset.PixelData = bytes(64 << 20)
    bomb = written(dataset, NATIVE[3])
    started = time.process_time()
    assert read(bomb).outcome == "rejected too_large"
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"Rows": 60000, "Columns": 60000}, "rejected too_large"),
        ({"NumberOfFrames": 2_000_000_000}, "rejected too_large"),
        ({"NumberOfFrames": 1025}, "rejected too_large"),
        ({"NumberOfFrames": 0}, "ok"),
        ({"Rows": 8}, "rejected too_small"),
        ({"Rows": None}, "rejected corrupt"),
        ({"BitsAllocated": 12}, "rejected corrupt"),
        ({"BitsStored": 17}, "rejected corrupt"),
        ({"SamplesPerPixel": 3}, "rejected corrupt"),
        ({"PhotometricInterpretation": "CANARY"}, "rejected corrupt"),
    ],
    ids=str,
)
def test_claims_are_checked_before_anything_is_decoded(changes: dict[str, object], outcome: str) -> None:
    assert read(clean(**changes)).outcome == outcome


def test_the_user_may_allow_more_frames() -> None:
    frames = np.stack([picture(16)] * 30)
    assert read(enhanced(frames, []), Selection(max_frames=29)).outcome == "rejected too_large"
    assert len(read(enhanced(frames, []), Selection(max_frames=30)).frames) == 30


def test_a_number_of_frames_that_is_no_number_is_corrupt() -> None:
    data = written(clean(NumberOfFrames=77)).replace(b"77", b"7A")
    assert read(data).outcome == "rejected corrupt"


def test_a_run_length_frame_that_claims_much_is_refused_before_memory_is_asked_for() -> None:
    frame = coded(picture(), RLELossless)
    result = read(compressed(RLELossless, [frame], Rows=9000, Columns=9000))
    assert result.outcome == "rejected truncated"
