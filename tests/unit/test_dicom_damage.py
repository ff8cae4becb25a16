"""Whatever the bytes are, there is an answer: no error but a reject, no wait, no memory without bound."""

import random
import struct
import time
import tracemalloc

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.dicom.reader import read_dicom
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.dicom.start import is_dicom
from mribatch.schema import Status
from tests.unit.dicom_files import COMPRESSED, SPEC, clean, compressed, enhanced, picture, read, written

MUTATIONS = 300


def files() -> list[bytes]:
    small = {"Rows": 64, "Columns": 64}
    groups = [Dataset() for _ in range(3)]
    return [
        *(compressed(syntax, **small) for syntax in COMPRESSED),
        written(clean()),
        written(clean(), ImplicitVRLittleEndian),
        written(enhanced(np.stack([picture(32)] * 3), groups)),
    ]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, lost, doubled or cut; mostly in the header, where they matter most."""
    changed = bytearray(data)
    reach = chance.choice((len(data), min(len(data), 1500)))
    for _ in range(chance.choice((1, 2, 8, 40))):
        at = chance.randrange(128, reach)
        match chance.randrange(4):
            case 0:
                changed[at] = chance.randrange(256)
            case 1:
                changed[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF)))
            case 2:
                del changed[at : at + chance.choice((1, 2, 8, 100))]
            case 3:
                changed[at:at] = changed[at : at + chance.choice((2, 8, 64))]
        reach = min(reach, len(changed))
    return bytes(changed if chance.random() < 0.7 else changed[: chance.randrange(len(changed))])


def test_damaged_files_are_answered_and_never_raise() -> None:
    chance, originals, outcomes = random.Random(16), files(), set()
    for number in range(MUTATIONS):
        data = damaged(originals[number % len(originals)], chance)
        started = time.process_time()
        result = read(data, Selection(select="all"))
        outcomes.add(result.outcome)
        assert time.process_time() - started < 5
        assert result.scan.status in (Status.OK, Status.REJECTED, Status.SKIPPED)
        is_dicom(data)
    assert len(outcomes) >= 3


@pytest.mark.parametrize("length", [0, 1, 7, 131, 132, 140])
def test_files_of_a_few_bytes_are_answered(length: int) -> None:
    result = read(written(clean())[:length])
    assert result.scan.status is Status.REJECTED


def test_a_million_empty_elements_are_too_many() -> None:
    head = written(clean(PixelData=None))
    bomb = head + b"".join(struct.pack("<HH2sH", 0x0029, number & 0xFFFF, b"LO", 0) for number in range(700_000))
    started = time.process_time()
    assert read(bomb).outcome == "rejected too_large"
    assert time.process_time() - started < 10


def test_elements_within_sequences_count_too() -> None:
    empty = b"".join(struct.pack("<HHI", 0x0028, number & 0xFFFF, 0) for number in range(700_000))
    bomb = written(clean(PixelData=None), ImplicitVRLittleEndian)
    bomb += (
        struct.pack("<HHI", 0x5200, 0x9230, 8 + len(empty)) + struct.pack("<HHI", 0xFFFE, 0xE000, len(empty)) + empty
    )
    bomb += struct.pack("<HHI", 0x7FE0, 0x0010, 8192) + bytes(8192)
    assert read(bomb).outcome == "rejected too_large"


def test_sequences_within_sequences_without_end_are_corrupt() -> None:
    deep = b"".join(
        struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        for _ in range(20_000)
    )
    result = read(written(clean(PixelData=None), ImplicitVRLittleEndian) + deep)
    assert result.scan.status is Status.REJECTED


def test_an_element_that_claims_more_than_there_is_asks_for_no_memory() -> None:
    data = written(clean())
    head = data[: len(data) - 12 - 2 * picture().size]
    longer = head + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0x7FFFFFF0) + data[-2 * picture().size :]
    tracemalloc.start()
    result = read(longer)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.outcome == "ok"
    assert peak < 50 << 20


def test_a_thousand_frames_need_no_more_memory_than_thirty_two() -> None:
    def peak(frames: int) -> int:
        data = written(enhanced(np.stack([picture(256)] * frames), []))
        tracemalloc.start()
        scan = read_dicom(data, SPEC, Selection(), Identifiers())
        count = sum(frame.pixels is not None for frame in scan.frames)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == frames
        return most

    assert peak(300) < peak(32) + (2 << 20)


def test_a_sequence_in_a_file_that_ends_within_it_is_truncated() -> None:
    dataset = clean()
    item = Dataset()
    item.SeriesDescription = "x" * 500
    dataset.ReferencedStudySequence = Sequence([item])
    dataset["ReferencedStudySequence"].is_undefined_length = True
    data = written(dataset, ExplicitVRLittleEndian)
    assert read(data[: data.index(b"x" * 500) + 100]).outcome == "rejected truncated"
