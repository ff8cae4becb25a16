"""The made NIfTI files and archives of ../shared: each comes out as expected."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mribatch.scans.decode import decode
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.nifti import read_volume
from mribatch.schema import Reason, Status

SPEC = ImageSpec(side_px=64)

pytestmark = pytest.mark.shared


def cases(shared: Path) -> list[dict[str, Any]]:
    made = [*json.loads((shared / "dicom-cases/expected_nifti.json").read_text())]
    return made + [
        case for case in json.loads((shared / "dicom-cases/expected.json").read_text()) if case["file"][:2] == "13"
    ]


def frames(shared: Path, name: str) -> list[Frame]:
    return decode((shared / "dicom-cases/files" / name).read_bytes(), SPEC)


def outcome(rows: list[Frame]) -> tuple[str, int]:
    """The status and reason of a file, and how many of its frames are scored."""
    scored = sum(frame.status is Status.OK for frame in rows)
    others = {f"{frame.status} {frame.reason}" for frame in rows if frame.reason is not Reason.BLANK}
    return ("ok", scored) if scored else (" ".join(others), 0)


def test_made_volumes_and_archives_come_out_as_expected(shared: Path) -> None:
    deviations = {}
    for case in cases(shared):
        status, count = outcome(frames(shared, case["file"]))
        if status not in (f"{case['status']} {case['reason']}".strip(), *case["also"]) or count != case["frames"]:
            deviations[case["file"]] = (status, count)
    assert deviations == {}


def test_twins_have_equal_pictures(shared: Path) -> None:
    for case in cases(shared):
        if not case["twin"]:
            continue
        twins = zip(frames(shared, case["file"]), frames(shared, case["twin"]), strict=True)
        for one, two in twins:
            assert one.reason == two.reason
            if one.pixels is not None and two.pixels is not None:
                assert np.abs(one.pixels.astype(int) - two.pixels.astype(int)).max() <= 3, case["file"]  # resized


def test_a_slice_equals_its_reference(shared: Path) -> None:
    volume = read_volume((shared / "dicom-cases/files/20_ras.nii").read_bytes(), SPEC, 1024)
    shown = [picture for frame in range(volume.frame_count) if (picture := volume.shown(frame))]
    reference = np.asarray(Image.open(shared / "dicom-cases/reference/20_ras.nii.8.png")).astype(int)
    assert np.abs(shown[8][0].astype(int) - reference).max() <= 2
