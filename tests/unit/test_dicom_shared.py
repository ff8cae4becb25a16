"""The real scanner files and the made cases of ../shared: each comes out as its manifest says."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.dicom.reader import read_dicom
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.dicom.start import is_dicom
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Status
from tests.unit.dicom_files import Read

SPEC = ImageSpec(side_px=224)


def read(path: Path, selection: Selection) -> Read | None:
    """None for what is no DICOM: other doors read it, or none does."""
    data = path.read_bytes()
    if not is_dicom(data):
        return None
    scan = read_dicom(data, SPEC, selection, Identifiers())
    return Read(scan, list(scan.frames))


def deviation(entry: dict[str, str], result: Read) -> str:
    """How a real file comes out other than expected; empty where it does not."""
    expected = f"{entry['expected_status']} {entry['expected_reason']}".strip()
    if result.outcome != expected:
        return f"{result.outcome}, not {expected}"
    if expected != "ok":
        return ""
    if len(result.frames) != int(entry["expected_frames"]):
        return f"{len(result.frames)} frames"
    if {frame.window for frame in result.frames} != {entry["window"]}:
        return "another window"
    digest = hashlib.sha256()
    for frame in result.frames:
        assert frame.pixels is not None
        digest.update(frame.pixels.tobytes())
    return "" if digest.hexdigest() == entry["reference_sha256"] else "other pixels"


def test_real_scanner_files_come_out_as_their_manifest_says(shared: Path) -> None:
    deviations, count = {}, 0
    for entry in csv.DictReader((shared / "dicom/manifest.csv").open()):
        result = read(shared / "dicom" / entry["file"], Selection())
        if result is not None:
            count += 1
            if difference := deviation(entry, result):
                deviations[entry["transfer_syntax"]] = difference
    assert count >= 165
    # Deflated data sets are inflated up to a cap, so this secondary capture is known for what it is.
    assert deviations == {"1.2.840.10008.1.2.1.99": "skipped secondary_capture, not rejected unsupported_format"}


def test_every_real_file_with_pixels_is_read_when_all_are_asked_for(shared: Path) -> None:
    for entry in csv.DictReader((shared / "dicom/manifest.csv").open()):
        if not entry["with_select_all"].startswith("ok") or entry["kind"] == "mosaic":
            continue
        result = read(shared / "dicom" / entry["file"], Selection(select="all"))
        if result is not None:
            assert {frame.status for frame in result.frames} == {Status.OK}, entry["file"]
            assert len(result.frames) == int(entry["with_select_all"].split()[1]), entry["file"]


def case_deviation(shared: Path, case: dict[str, Any], result: Read) -> str:
    """How a made case comes out other than expected; empty where it does not."""
    if result.outcome not in (f"{case['status']} {case['reason']}".strip(), *case["also"]):
        return result.outcome
    if result.outcome != "ok" or case["status"] != "ok":
        return ""
    if {frame.window for frame in result.frames} != {case["window"]} or len(result.frames) != case["frames"]:
        return "another window, or number of frames"
    for frame in result.frames:
        reference = shared / "dicom-cases/reference" / f"{case['file'].replace('/', '_')}.{frame.index}.png"
        assert frame.pixels is not None
        if np.abs(frame.pixels.astype(int) - np.asarray(Image.open(reference)).astype(int)).max() > 2:
            return "other pixels"
    return ""


def test_made_cases_come_out_as_expected(shared: Path) -> None:
    deviations = {}
    for case in json.loads((shared / "dicom-cases/expected.json").read_text()):
        if case["file"].startswith("13_"):  # containers have their own door
            continue
        result = read(shared / "dicom-cases/files" / case["file"], Selection())
        if result is None:
            assert case["reason"] in ("not_an_image", "empty")
        elif difference := case_deviation(shared, case, result):
            deviations[case["file"]] = difference
    assert deviations == {}
