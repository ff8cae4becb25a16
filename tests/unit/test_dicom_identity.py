"""Identifiers leave by allowlist; a canary in every text of a header is found nowhere behind the door."""

import hashlib
import hmac
import io
import logging
import random
import traceback
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, JPEG2000Lossless, RLELossless

from mribatch.errors import ConfigError
from mribatch.scans.decode import decode
from mribatch.scans.dicom.header import read_header
from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.dicom.reader import read_dicom
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.formats import RejectionError
from mribatch.scans.reading import Reading
from tests.canaries import FORCED, SECRETS, SERIES_SKIP, canaries
from tests.unit.dicom_files import (
    CANARY,
    CANARY_DATE,
    CANARY_NUMBER,
    SPEC,
    clean,
    compressed,
    enhanced,
    header,
    picture,
    read,
    written,
)

SECRET = bytes(range(32))
KEYED = Identifiers(mode="keyed", secret=SECRET)


def keyed(text: str) -> str:
    return hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()[:32]


def test_keys_are_keyed_hashes_of_128_bits() -> None:
    keys = read(clean(), identifiers=KEYED).scan.keys
    assert keys.instance_key == keyed("1.2.3.1")
    assert keys.study_key == keyed("1.2.3.2")
    assert keys.series_key == keyed("1.2.3.3")
    assert keys.patient_key == keyed(CANARY_NUMBER)


def test_another_secret_gives_other_keys() -> None:
    other = read(clean(), identifiers=Identifiers(mode="keyed", secret=SECRET[::-1])).scan.keys
    assert other.series_key != read(clean(), identifiers=KEYED).scan.keys.series_key


def test_a_secret_that_is_too_short_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ConfigError):
        Identifiers(mode="keyed", secret=b"short")
    assert repr(SECRET) not in repr(KEYED)


def test_plain_keys_are_the_identifiers_and_none_are_none() -> None:
    assert read(clean(), identifiers=Identifiers(mode="plain")).scan.keys.series_key == "1.2.3.3"
    keys = read(clean(), identifiers=Identifiers(mode="none")).scan.keys
    assert (keys.instance_key, keys.series_key, keys.study_key, keys.patient_key) == (None, None, None, None)


def test_missing_identifiers_are_none() -> None:
    keys = read(clean(SOPInstanceUID=None, SeriesInstanceUID=None, PatientID=""), identifiers=KEYED).scan.keys
    assert (keys.instance_key, keys.series_key, keys.patient_key) == (None, None, None)
    assert keys.study_key == keyed("1.2.3.2")


def test_a_uid_that_is_text_is_hashed_as_it_is() -> None:
    data = written(clean()).replace(b"1.2.3.3", b"ZZQNAME")
    assert read(data, identifiers=KEYED).scan.keys.series_key == keyed("ZZQNAME")


def test_a_modality_of_no_list_is_left_out() -> None:
    assert read(clean()).scan.modality == "MR"
    assert read(clean(Modality=CANARY)).scan.modality is None


def test_vendor_and_syntax_are_names_of_closed_lists() -> None:
    scan = read(clean(Manufacturer="SIEMENS Healthineers")).scan
    assert (scan.vendor, scan.syntax) == ("Siemens", "explicit little endian")
    assert read(clean(Manufacturer=CANARY)).scan.vendor is None


@pytest.mark.parametrize(
    ("orientation", "position", "plane", "slice_mm"),
    [
        ([1, 0, 0, 0, 1, 0], [-10, -20, 42.5], "axial", 42.5),
        ([0, 1, 0, 0, 0, -1], [7.25, 1, 2], "sagittal", -7.25),
        ([1, 0, 0, 0, 0, -1], [1, -30, 2], "coronal", -30.0),
        ([1, 0, 0, 0, 0.9, 0.436], [0, 0, 10], "axial", 9.0),
        ([1, 0, 0, 1, 0, 0], [0, 0, 10], None, None),
        (None, [0, 0, 10], None, None),
        ([1, 0, 0, 0, 1, 0], None, "axial", None),
    ],
)
def test_plane_and_position_come_from_the_normal(
    orientation: list[float] | None, position: list[float] | None, plane: str | None, slice_mm: float | None
) -> None:
    frame = read(clean(ImageOrientationPatient=orientation, ImagePositionPatient=position)).frames[0]
    assert frame.plane == plane
    assert frame.slice_mm == (None if slice_mm is None else pytest.approx(slice_mm, abs=0.01))


def test_each_frame_of_an_enhanced_object_has_its_own_place() -> None:
    groups = []
    for z in (5.0, 8.0):
        place, outer = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, z]
        outer.PlanePositionSequence = Sequence([place])
        groups.append(outer)
    turn, shared = Dataset(), Dataset()
    turn.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Sequence([turn])
    frames = read(enhanced(np.stack([picture()] * 2), groups, shared)).frames
    assert [(frame.plane, frame.slice_mm) for frame in frames] == [("axial", 5.0), ("axial", 8.0)]


def poisoned() -> Iterator[bytes]:
    """Files with the canary in every text, one for each way out and for each value that pydicom chokes on."""
    good = written(clean())
    yield good
    yield good[:700]
    yield good[:-500]
    yield b"not a picture " + CANARY.encode()
    yield written(header(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR"))
    for changes in (
        {"SOPClassUID": CTImageStorage, "Modality": "CT"},
        {"ImageType": ["ORIGINAL", "PRIMARY", CANARY, "LOCALIZER"]},
        {"PhotometricInterpretation": CANARY},
        {"Modality": CANARY},
        {"Rows": None},
        {"BitsAllocated": 12},
        {"SpecificCharacterSet": CANARY},
    ):
        yield written(clean(**changes))
    for value in (b"MONOCHROME2 ", b"1.2.3.3\0", b"500 ", b"GR", b"1.2.840.10008.1.2.1\0"):
        yield good.replace(value, CANARY.encode().ljust(len(value))[: len(value)])
    packed = compressed(JPEG2000Lossless)
    yield packed[:-900]
    yield packed.replace(b"\xff\x4f\xff\x51", b"\xff\x4f\xff\x52")
    yield compressed(RLELossless, [CANARY.encode() * 20])
    for seed in range(150):
        yield mutated(good[: len(good) - 2 * picture().size + 400], random.Random(seed))


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 10))):
        changed[chance.randrange(132, len(changed))] = chance.randrange(256)
    return bytes(changed[: chance.choice((len(changed), chance.randrange(len(changed))))])


def test_no_text_of_a_header_leaves(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    logs = io.StringIO()
    handler = logging.StreamHandler(logs)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            results = [
                read(data, Selection(select=select, series_skip="nothing"), KEYED)
                for data in poisoned()
                for select in ("anatomical", "all")
            ]
    finally:
        logging.getLogger().removeHandler(handler)
    emitted = capfd.readouterr()
    words = [
        repr(results),
        caplog.text,
        logs.getvalue(),
        emitted.out,
        emitted.err,
        *(str(warning.message) for warning in warned),
    ]
    for word in words:
        for secret in (CANARY, CANARY_DATE, CANARY_NUMBER):
            assert secret not in word
    assert len({result.outcome for result in results}) >= 6


def test_what_is_raised_inside_holds_no_text_either() -> None:
    for data in poisoned():
        try:
            read_header(data)
        except RejectionError as fault:
            shown = "".join(traceback.format_exception(fault))
            assert CANARY not in shown
            assert "pydicom." not in shown.rpartition("RejectionError")[2]


def test_nothing_that_pydicom_warns_of_becomes_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in poisoned():
            read_dicom(data, SPEC, Selection(), KEYED)


def test_each_reject_and_skip_that_bytes_can_cause_is_forced_by_a_canary_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    reading = Reading(selection=Selection(series_skip=SERIES_SKIP), identifiers=KEYED)
    frames = [frame for _, data in canaries() for frame in decode(data, SPEC, reading)]
    assert {frame.reason for frame in frames} - {None} == FORCED
    texts = [caplog.text, *map(repr, frames)]
    assert not [secret for secret in SECRETS for text in texts if secret in text]
