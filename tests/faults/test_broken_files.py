"""Five thousand broken files: a run on them ends by itself and answers each, and none takes much time or memory."""

import os
import shutil
import tempfile
import threading
from pathlib import Path

import duckdb
import pytest

from mribatch.models.format import Model
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.scans.sandbox import Decoder
from mribatch.schema import Status
from tests.broken_files import LOST, MOST_DECODER_BYTES, MOST_S, broken_files, check_answers
from tests.canaries import FORCED, SECRETS, SERIES_SKIP, canaries
from tests.conftest import as_flags
from tests.faults.conftest import Start, Tell
from tests.faults.processes import sabotaged
from tests.sabotage.sabotage_words import HANGS, KILLS, RAISES

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


def children_cpu_s() -> dict[int, float]:
    """Return the processor time of each child of this process that still runs: on a busy machine, it is what counts."""
    children = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split()
    times = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13] for child in children]
    ticks = os.sysconf("SC_CLK_TCK")
    return {int(child): sum(map(int, time)) / ticks for child, time in zip(children, times, strict=True)}


def test_no_broken_file_takes_ten_seconds_or_a_gibibyte(real_scans: tuple[Path, ...], tell: Tell) -> None:
    decoder = Decoder(ImageSpec(side_px=224), reading=Reading(selection=Selection(select="all")))
    decoder.decode(b"")
    most_s, most_bytes = 0.0, 0
    for name, data in broken_files(FILES, *real_scans):
        before = children_cpu_s()
        frames = decoder.decode(data)
        after = children_cpu_s()
        assert after.keys() == before.keys(), f"{name} ended its decoder"
        most_s = max(most_s, sum(after.values()) - sum(before.values()))
        most_bytes = max(most_bytes, decoder.peak_bytes())
        assert {frame.reason for frame in frames} & LOST == set(), name
        assert Status.FAILED not in {frame.status for frame in frames}, name
        assert most_s <= MOST_S, name
        assert most_bytes <= MOST_DECODER_BYTES, name
    outcome = f"at most {most_s:.1f} s of processor time and {most_bytes >> 20} MiB for any"
    tell(FAULT, f"{FILES:,} files, one by one", outcome)


def test_a_name_in_a_header_is_in_no_row_and_in_no_log_though_every_process_logs_all_it_can(
    tiny_model: Model, tmp_path: Path, start: Start, tell: Tell
) -> None:
    scans, output, ray = tmp_path / "scans", tmp_path / "out", Path(tempfile.mkdtemp(prefix="ray-"))
    scans.mkdir()
    lost = {"kills": KILLS, "hangs": HANGS, "raises": RAISES}
    files = dict(canaries()) | {name: word + "^".join(SECRETS).encode() for name, word in lost.items()}
    for name, data in files.items():
        (scans / name).write_bytes(data)
    flags = as_flags(model=tiny_model.uri, input=scans, output=output, series_skip=SERIES_SKIP, scan_timeout_s=10)
    job = start("score", *flags, environment=sabotaged(SABOTAGE_LOGS="all", RAY_TMPDIR=str(ray)))
    assert job.end(600) == 3, job.log.read_text()
    rows = duckdb.sql(f"select * from read_parquet('{output}/model=*/*.parquet')").df()
    assert set(rows["reason"].dropna()) == FORCED | LOST
    logs = [path for folder in (output, ray) for path in folder.rglob("*") if path.is_file()]
    texts = [path.read_bytes().decode("latin-1") for path in (job.log, *logs)]
    assert any("DEBUG" in text for text in texts)
    assert not [secret for secret in SECRETS for text in (*texts, repr(rows.to_dict("records"))) if secret in text]
    shutil.rmtree(ray)
    dose = f"{len(files)} files with a name, a number and a date in every text, all of Ray's and Python's logs"
    tell("a header's texts in every reject and skip, at the level DEBUG", dose, "found nowhere")
