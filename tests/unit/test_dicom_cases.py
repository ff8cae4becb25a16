"""Each made DICOM case comes out as it must, in the sandbox that decodes all scans; the script that writes them works."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image

from mribatch.scans.decode import decode
from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.scans.sandbox import Decoder
from tests.dicom_cases import CASES, Case
from tests.dicom_cases.__main__ import main
from tests.dicom_cases.reference import shown
from tests.frames import only
from tests.unit.dicom_files import CANARY, CANARY_DATE, CANARY_NUMBER, SIDE, difference

MOST_S, MOST_BYTES = 10.0, 1 << 30  # beyond these, the sandbox ends the decoder and the case is rejected as timed out
NEAR = 2  # grey levels

InSandbox = Callable[[str], list[Frame]]


@pytest.fixture(scope="module")
def decoded() -> InSandbox:
    """Return decoded(name): the frames of a case from a decoding process that keeps to the limits."""

    @cache
    def decoder(side_px: int) -> Decoder:
        return Decoder(ImageSpec(side_px=side_px, max_memory_bytes=MOST_BYTES), timeout_s=MOST_S)

    @cache
    def decoded(name: str) -> list[Frame]:
        case = made(name)
        side = case.frames[0].shape[0] if case.frames else SIDE
        return decoder(side).decode(case.data)

    return decoded


@cache
def made(name: str) -> Case:
    return CASES[name]()


def grey(frame: Frame) -> NDArray[np.uint8]:
    assert frame.pixels is not None
    return frame.pixels[:, :, 0]


@pytest.mark.parametrize("name", CASES)
def test_a_case_comes_out_as_it_must(name: str, decoded: InSandbox) -> None:
    case, frames = made(name), decoded(name)
    assert {f"{frame.status} {frame.reason or ''}".strip() for frame in frames} == {
        f"{case.status} {case.reason}".strip()
    }
    assert len(frames) == max(1, len(case.frames))
    assert {frame.window for frame in frames} == {case.window}
    for frame, expected in zip(frames, case.frames, strict=False):
        assert difference(grey(frame), expected) <= NEAR
    for canary in (CANARY, CANARY_DATE, CANARY_NUMBER):
        assert canary not in repr(frames)


@pytest.mark.parametrize("name", [name for name in CASES if made(name).twin])
def test_twins_look_the_same(name: str, decoded: InSandbox) -> None:
    twin = made(name).twin
    assert twin is not None
    (expected,) = decoded(twin)
    for frame in decoded(name):
        assert difference(grey(frame), grey(expected)) <= NEAR


def test_slices_of_two_series_in_one_folder_are_told_apart_and_a_copy_is_known() -> None:
    plain = Reading(identifiers=Identifiers(mode="plain"))
    names = ("IM0000", "IM0001", "IM0002", "IM0003", "copy_of_IM0000.dcm")
    frames = [only(decode(made(f"mixed/{name}").data, ImageSpec(side_px=SIDE), plain)) for name in names]
    assert [frame.series_key for frame in frames] == ["1.2.3.5.1", "1.2.3.5.2", "1.2.3.5.1", "1.2.3.5.2", "1.2.3.5.1"]
    assert frames[4].instance_key == frames[0].instance_key
    assert len({frame.instance_key for frame in frames}) == 4


def test_the_script_writes_every_file_its_pixels_and_its_answer(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    answers = {answer.pop("file"): answer for answer in json.loads((tmp_path / "expected.json").read_text())}
    assert answers.keys() == CASES.keys()
    for name, answer in answers.items():
        assert (tmp_path / "files" / name).stat().st_size == answer["bytes"]
        assert answer["status"] in ("ok", "skipped", "rejected")
        for number in range(answer["frames"]):
            with Image.open(tmp_path / "reference" / f"{name.replace('/', '_')}.{number}.png") as image:
                assert image.size == made(name).frames[number].shape[::-1]


def test_the_script_without_a_folder_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "python -m tests.dicom_cases FOLDER" in capsys.readouterr().err


def test_the_cases_and_their_answers_are_those_of_the_shared_folder(shared: Path) -> None:
    """Containers (13_) have their own door. Where the folder allows several answers, ours must be one of them."""
    theirs = {
        re.sub(r"^\d\d_", "", case["file"]): case
        for case in json.loads((shared / "dicom-cases/expected.json").read_text())
        if not case["file"].startswith("13_")
    }
    assert theirs.keys() - CASES.keys() == set()
    for name, case in theirs.items():
        ours = made(name)
        answer = f"{ours.status} {ours.reason}".strip()
        assert answer in (f"{case['status']} {case['reason']}".strip(), *case["also"]), name
        if case["status"] == "ok":
            assert (ours.window, len(ours.frames)) == (case["window"], case["frames"]), name


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what is odd in the files
def test_the_reference_gives_the_pixels_of_the_shared_folder(shared: Path) -> None:
    """The rules that our cases are compared with, on native files of others."""
    count, root = 0, shared / "dicom-cases"
    for case in json.loads((root / "expected.json").read_text()):
        if case["status"] != "ok" or not case["file"].endswith(".dcm"):
            continue
        dataset = pydicom.dcmread(root / "files" / case["file"])
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            continue
        frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        for number in range(case["frames"]):
            pixels, window = shown(dataset, frames[number], number)
            reference = root / "reference" / f"{case['file'].replace('/', '_')}.{number}.png"
            assert window == case["window"], case["file"]
            assert difference(pixels, np.asarray(Image.open(reference))) <= NEAR, case["file"]
            count += 1
    assert count >= 40
