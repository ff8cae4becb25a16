"""NIfTI: slices look as radiologists look at them, in whatever order the voxels are stored."""

import gzip
from itertools import permutations, product

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from numpy.typing import NDArray

from mribatch.scans.decode import decode
from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.dicom.reader import read_dicom
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.nifti import Volume, read_volume
from mribatch.scans.reading import ONE_FRAME, Reading
from mribatch.scans.survey import survey
from mribatch.schema import Reason, Status
from tests.frames import only
from tests.unit.dicom_files import slice_of, written
from tests.unit.volume_files import BRAIN, TO_MM, brain, nifti, reoriented

SPEC = ImageSpec(side_px=32)
WAYS = ["".join(way) for way in product("RL", "AP", "SI")]
ORDERS = ["".join(order) for way in WAYS for order in permutations(way)]


def volume(data: bytes) -> Volume:
    return read_volume(data, SPEC, 1024)


def pictures(data: bytes) -> list[NDArray[np.uint8] | None]:
    read = volume(data)
    shown = [read.shown(frame) for frame in range(read.frame_count)]
    return [None if picture is None else picture[0] for picture in shown]


def largest_difference(data: bytes, other: bytes) -> int:
    differences = []
    for one, two in zip(pictures(data), pictures(other), strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            differences.append(int(np.abs(one.astype(int) - two.astype(int)).max()))
    return max(differences)


def frame_of(data: bytes, reading: Reading | None = None) -> Frame:
    return only(decode(data, SPEC, reading or Reading()))


def test_front_is_up_and_the_patients_right_is_on_the_left() -> None:
    picture = pictures(nifti())[6]
    assert picture is not None
    assert picture.shape == (52, 44)
    assert picture[:10].mean() > picture[-10:].mean() + 50, "the front is bright"
    assert picture[:, :10].mean() < picture[:, -10:].mean() - 30, "the patient's right is dark"
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert (row, column) == pytest.approx((51 - 38, 43 - 12), abs=6)


@pytest.mark.parametrize("codes", ORDERS)
def test_all_orders_of_voxels_give_the_same_pictures_at_the_same_places(codes: str) -> None:
    values, to_mm = reoriented(codes)
    assert largest_difference(nifti(values, to_mm), nifti()) == 0
    places = [[read.slice_mm(frame) for frame in range(12)] for read in (volume(nifti(values, to_mm)), volume(nifti()))]
    assert places[0] == places[1] == [-60 + 8 * number for number in range(12)]


def test_byte_order_version_type_and_scaling_change_no_picture() -> None:
    assert largest_difference(nifti(version=2), nifti()) == 0
    assert largest_difference(nifti(BRAIN.astype(np.float64)), nifti()) <= 1
    assert largest_difference(nifti(BRAIN.astype(np.int32)), nifti()) == 0
    swapped = Nifti1Image(BRAIN.astype(">i2"), TO_MM, Nifti1Header(endianness=">")).to_bytes()
    assert swapped[:4] == (348).to_bytes(4, "big")
    assert largest_difference(swapped, nifti()) == 0


def test_slope_and_intercept_apply_and_a_negative_slope_inverts() -> None:
    assert largest_difference(nifti(scl_slope=2.0, scl_inter=-7.0), nifti()) <= 1
    assert largest_difference(nifti(scl_slope=0.0, scl_inter=9.0), nifti()) == 0
    plain, inverted = pictures(nifti())[6], pictures(nifti(scl_slope=-1.0))[6]
    assert plain is not None
    assert inverted is not None
    assert np.abs(plain.astype(int) + inverted - 255).max() <= 1


def test_nan_and_infinity_are_black() -> None:
    values = BRAIN.astype(np.float32)
    values[3:6, 3:6, 6], values[8, 8, 6] = np.nan, np.inf
    picture = pictures(nifti(values))[6]
    assert picture is not None
    assert (picture[51 - 8, 43 - 8], picture[51 - 4, 43 - 4]) == (0, 0)


def test_each_slice_has_a_row_and_blank_ones_are_skipped() -> None:
    frames = decode(nifti(), SPEC)
    assert [frame.frame for frame in frames] == list(range(12))
    assert [frame.reason for frame in frames] == [Reason.BLANK, *[None] * 10, Reason.BLANK]
    assert {frame.status for frame in frames[1:-1]} == {Status.OK}
    facts = {(frame.kind, frame.plane, frame.window, frame.modality, frame.frames) for frame in frames[1:-1]}
    assert facts == {("anatomical", "axial", "computed", None, 12)}
    assert frames[5].pixels is not None
    assert frames[5].pixels.shape == (32, 32, 3)


def test_gzip_changes_nothing_but_the_digest_of_the_file() -> None:
    packed, plain = decode(gzip.compress(nifti()), SPEC), decode(nifti(), SPEC)
    assert [frame.pixels_sha256 for frame in packed] == [frame.pixels_sha256 for frame in plain]
    assert packed[0].content_sha256 != plain[0].content_sha256
    half = gzip.compress(nifti())
    assert frame_of(half[: len(half) // 2]).reason is Reason.TRUNCATED
    assert frame_of(half[:-6] + bytes(6)).reason is Reason.CORRUPT


@pytest.mark.parametrize(
    ("thick", "plane", "count", "shape"),
    [
        (0, "sagittal", 44, (24, 52)),
        (1, "coronal", 52, (24, 44)),
        (2, "axial", 24, (52, 44)),
        (None, "axial", 24, (52, 44)),
    ],
)
def test_slices_are_cut_across_the_longest_voxels_and_else_are_axial(
    thick: int | None, plane: str, count: int, shape: tuple[int, int]
) -> None:
    sizes = np.array([1.0, 1.2, 1.0])
    if thick is not None:
        sizes[thick] = 5.0
    read = volume(nifti(brain(24), np.diag([*sizes, 1.0])))
    assert (read.plane, read.frame_count, read.size[::-1]) == (plane, count, shape)


def test_a_volume_of_few_slices_is_cut_across_these() -> None:
    read = volume(nifti(brain(24)[:12], np.eye(4)))
    assert (read.plane, read.frame_count, read.size) == ("sagittal", 12, (52, 24))


def test_the_head_is_up_in_coronal_and_sagittal_slices() -> None:
    up = (
        np.broadcast_to(np.arange(40, dtype=np.int16) * 50, (24, 24, 40)) + np.arange(24, dtype=np.int16)[:, None, None]
    )
    for sizes in ([5.0, 1.0, 1.0], [1.0, 5.0, 1.0]):
        picture = pictures(nifti(up.astype(np.int16), np.diag([*sizes, 1.0])))[12]
        assert picture is not None
        assert picture.shape == (40, 24)
        assert picture[0].mean() > picture[-1].mean() + 200


def test_without_an_orientation_the_axes_are_taken_as_they_lie_and_the_row_says_so() -> None:
    data = nifti(BRAIN, TO_MM, sform_code=0, qform_code=0)
    assert largest_difference(data, nifti()) == 0
    assert "guessed" in str(decode(data, SPEC)[5].detail)
    assert decode(nifti(), SPEC)[5].detail is None


def test_a_degenerate_sform_gives_way_to_the_qform() -> None:
    data = nifti(srow_x=np.zeros(4), srow_y=np.full(4, np.nan), qform_code=1)
    assert volume(data).detail is None
    assert largest_difference(data, nifti()) == 0


@pytest.mark.parametrize("size", [1e-250, 1e250])
def test_voxels_of_no_possible_size_are_no_orientation(size: float) -> None:
    forms = {"srow_x": [size, 0, 0, 0], "qform_code": 0}
    for data in (nifti(version=2, **forms), nifti(version=2, sform_code=0, qform_code=0, pixdim=[1] + [size] * 7)):
        frames = decode(data, SPEC)
        assert len(frames) == 12
        assert "guessed" in str(frames[5].detail)
        assert frames[5].slice_mm is not None
        assert abs(frames[5].slice_mm) < 1e6


SERIES = np.stack([BRAIN, BRAIN, BRAIN + 1], axis=3)
COLOUR = np.zeros((44, 52, 12), [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (nifti(SERIES), Reason.FUNCTIONAL),
        (nifti(intent_code=2001), Reason.FUNCTIONAL),
        (nifti(COLOUR), Reason.MAP),
        (nifti(SERIES[:, :, :, None]), Reason.MAP),
        (nifti(intent_code=3), Reason.MAP),
        (nifti(intent_code=1002), Reason.SEGMENTATION),
        (nifti((BRAIN > 300).astype(np.uint8)), Reason.SEGMENTATION),
        (nifti((BRAIN > 300).astype(np.float32)), Reason.SEGMENTATION),
    ],
)
def test_what_is_no_anatomical_volume_is_skipped_with_its_reason(data: bytes, reason: Reason) -> None:
    frame = frame_of(data)
    assert (frame.status, frame.reason, frame.pixels) == (Status.SKIPPED, reason, None)
    (known,) = survey(data, SPEC, Reading())
    assert (known.status, known.reason) == (Status.SKIPPED, reason)
    every = decode(data, SPEC, Reading(selection=Selection(select="all")))
    assert len(every) in (12, 36)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (nifti()[:-1], Reason.TRUNCATED),
        (nifti()[:344] + bytes(8), Reason.NOT_AN_IMAGE),
        (nifti()[:350], Reason.TRUNCATED),
        (nifti(dim=[3, 32000, 32000, 32000, 1, 1, 1, 1]), Reason.TRUNCATED),
        (nifti(dim=[3, 44, -52, 12, 1, 1, 1, 1]), Reason.CORRUPT),
        (nifti(dim=[3, 44, 0, 12, 1, 1, 1, 1]), Reason.CORRUPT),
        (nifti(vox_offset=np.nan), Reason.CORRUPT),
        (nifti(vox_offset=1e30), Reason.TRUNCATED),
        (nifti(datatype=32), Reason.UNSUPPORTED_FORMAT),
        (nifti(datatype=9999), Reason.UNSUPPORTED_FORMAT),
        (nifti(BRAIN[:9, :9, :9]), Reason.TOO_SMALL),
        (nifti()[:344] + b"ni1\0" + nifti()[348:], Reason.UNSUPPORTED_FORMAT),
    ],
)
def test_bad_headers_are_rejected_before_anything_is_allocated(data: bytes, reason: Reason) -> None:
    frame = frame_of(data)
    assert (frame.status, frame.reason) == (Status.REJECTED, reason)


def test_more_slices_than_allowed_are_rejected() -> None:
    assert frame_of(nifti(), ONE_FRAME).reason is Reason.TOO_LARGE
    assert frame_of(nifti(), Reading(selection=Selection(max_frames=11))).reason is Reason.TOO_LARGE


def test_rows_depend_on_no_window_setting() -> None:
    frame = decode(nifti(), SPEC)[5]
    assert frame.reading in Reading(selection=Selection(window="computed")).digests


def test_random_headers_never_raise() -> None:
    random, good = np.random.default_rng(7), bytearray(nifti())
    for _ in range(300):
        data = good.copy()
        for at in random.integers(0, 343, 6):
            data[at] = random.integers(256)
        assert decode(bytes(data), SPEC)


# Conversion


def converted(slices: list[NDArray[np.uint16]], orientation: list[float], positions: list[list[float]]) -> bytes:
    """Return what dcm2niix makes of a series: rows turned over, positions and directions from DICOM's axes to NIfTI's."""
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    values = np.stack([one[::-1].T for one in slices], axis=2)  # columns, rows from below, slices
    last_row = np.array(positions[0]) + down * (slices[0].shape[0] - 1) * 2.0
    step = (np.array(positions[-1]) - positions[0]) / (len(slices) - 1)
    to_mm = np.eye(4)
    to_mm[:3] = np.column_stack([across * 2.0, -down * 2.0, step, last_row])
    return nifti(values, np.diag([-1.0, -1.0, 1.0, 1.0]) @ to_mm)


@pytest.mark.parametrize(
    ("orientation", "normal", "plane"),
    [
        ([1.0, 0, 0, 0, 1, 0], [0.0, 0, 1], "axial"),
        ([1.0, 0, 0, 0, 0, -1], [0.0, 1, 0], "coronal"),
        ([0.0, 1, 0, 0, 0, -1], [-1.0, 0, 0], "sagittal"),
        ([0.98, 0, -0.198997, 0, 1, 0], [0.198997, 0, 0.98], "axial"),
    ],
)
@pytest.mark.parametrize("ways", [1, -1])
def test_a_series_as_dicom_and_converted_gives_the_same_pictures_the_same_side_up_at_the_same_places(
    orientation: list[float], normal: list[float], plane: str, ways: int
) -> None:
    random = np.random.default_rng(1)
    slices = [(random.integers(0, 900, (40, 36)) + 3 * number).astype(np.uint16) for number in range(20)]
    positions = [[-30 + ways * number * 5.0 * way for way in normal] for number in range(20)]
    expected = {}
    for pixels, position in zip(slices, positions, strict=True):
        header = {"ImageOrientationPatient": orientation, "ImagePositionPatient": position}
        data = written(slice_of(pixels, BitsStored=12, HighBit=11, **header))
        (frame,) = read_dicom(data, SPEC, Selection(window="computed"), Identifiers()).frames
        assert frame.slice_mm is not None
        expected[round(frame.slice_mm, 2)] = frame.pixels
    read = volume(converted(slices, orientation, positions))
    assert (read.plane, read.frame_count) == (plane, 20)
    assert [round(read.slice_mm(frame), 2) for frame in range(20)] == sorted(expected)
    for frame in range(20):
        shown, pixels = read.shown(frame), expected[round(read.slice_mm(frame), 2)]
        assert shown is not None
        assert pixels is not None
        assert np.abs(shown[0].astype(int) - pixels).max() <= 1


def test_slices_are_views_of_the_bytes_of_the_file() -> None:
    data = nifti()
    assert np.shares_memory(volume(data).values, np.frombuffer(data, np.uint8))
