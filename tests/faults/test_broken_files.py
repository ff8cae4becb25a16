"""Five thousand broken files: a run on them ends by itself and answers each, and none takes much time or memory."""

import time
from pathlib import Path

import pytest

from mribatch.models.format import Model
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.scans.sandbox import Decoder
from mribatch.schema import Status
from tests.broken_files import LOST, MOST_DECODER_BYTES, MOST_S, broken_files, check_answers
from tests.conftest import as_flags
from tests.faults.conftest import Start, Tell

pytestmark = pytest.mark.slow

FILES = 5_000
FAULT = "broken files: JPEG, PNG, TIFF, BMP and DICOM, flipped, cut, spliced, with false claims"


@pytest.fixture
def real_scans(request: pytest.FixtureRequest) -> tuple[Path, ...]:
    """Return the folders of real scans whose files are broken, too; none where they are missing."""
    try:
        shared: Path = request.getfixturevalue("shared")
    except pytest.skip.Exception:
        return ()
    return (shared / "dicom" / "files", shared / "data")


def test_a_run_on_broken_files_ends_with_code_3_and_answers_each(
    tiny_model: Model, real_scans: tuple[Path, ...], tmp_path: Path, start: Start, tell: Tell
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name, data in broken_files(FILES, *real_scans):
        (scans / name).write_bytes(data)
    flags = as_flags(model=tiny_model.uri, input=scans, output=output, select="all", scan_timeout_s=int(MOST_S))
    job = start("score", *flags)
    assert job.end(1800) == 3, job.log.read_text()
    statuses = check_answers(output, {str(path) for path in scans.iterdir()})
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items()))
    tell(FAULT, f"{FILES:,} files in one run", f"exit 3; {sum(statuses.values()):,} rows: {counts}; none failed")


def test_no_broken_file_takes_ten_seconds_or_a_gibibyte(real_scans: tuple[Path, ...], tell: Tell) -> None:
    decoder = Decoder(ImageSpec(side_px=224), MOST_S, Reading(selection=Selection(select="all")))
    most_s, most_bytes = 0.0, 0
    for name, data in broken_files(FILES, *real_scans):
        begun = time.monotonic()
        frames = decoder.decode(data)
        most_s, most_bytes = max(most_s, time.monotonic() - begun), max(most_bytes, decoder.peak_bytes())
        assert {frame.reason for frame in frames} & LOST == set(), name
        assert Status.FAILED not in {frame.status for frame in frames}, name
        assert most_bytes <= MOST_DECODER_BYTES, name
    tell(FAULT, f"{FILES:,} files, one by one", f"at most {most_s:.1f} s and {most_bytes >> 20} MiB for any")
