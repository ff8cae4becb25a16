"""`inspect`: what an archive holds, from headers alone, for someone who has never seen a DICOM tag."""

import gzip
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mribatch.commands.inspect import INSPECTED, inspect
from mribatch.commands.inspected import Inspected
from mribatch.errors import RunFailed
from mribatch.settings.inspect import InspectConfig
from tests.unit.dicom_files import CANARY, CANARY_DATE, CANARY_NUMBER, clean, picture, slice_of, written
from tests.unit.volume_files import as_zip, nifti

FUNCTIONAL = ["ORIGINAL", "PRIMARY", "FMRI", "NONE"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for number in range(5):
        (folder / f"t1_{number}.dcm").write_bytes(written(clean()))
    stack = slice_of(picture()[None].repeat(7, 0), BitsStored=12, HighBit=11, SeriesInstanceUID="1.2.3.9")
    (folder / "stack.dcm").write_bytes(written(stack))
    (folder / "fmri.dcm").write_bytes(written(clean(ImageType=FUNCTIONAL, SeriesInstanceUID="1.2.3.4")))
    (folder / "cut.dcm").write_bytes(written(clean())[:-3000])
    (folder / "notes.txt").write_text("a note")
    Image.new("L", (64, 64), 9).save(folder / "a.png")
    return folder


def look(archive: Path, **settings: object) -> Inspected:
    return inspect(InspectConfig(input=(str(archive),), **settings))  # type: ignore[arg-type]


def counts(result: Inspected) -> dict[tuple[str, str | None], int]:
    table = result.files.group_by(["outcome", "reason"]).aggregate([([], "count_all")]).to_pylist()
    return {(row["outcome"], row["reason"]): row["count_all"] for row in table}


def test_each_file_is_counted_by_what_scoring_would_do_with_it(archive: Path) -> None:
    assert counts(look(archive)) == {
        ("scored", None): 7,
        ("skipped", "functional"): 1,
        ("rejected", "truncated"): 1,
        ("rejected", "not_an_image"): 1,
    }
    assert counts(look(archive, select="mr"))["scored", None] == 8
    assert counts(look(archive, series_skip="T1"))["skipped", "series"] == 7
    assert counts(look(archive, max_frames=3))["rejected", "too_large"] == 1


def test_the_screen_says_it_in_words_with_examples(archive: Path) -> None:
    lines = look(archive).table().splitlines()
    assert lines[0].startswith("10 files, ")
    assert lines[0].endswith(", 3 series, 1 studies")
    assert any(line.split() == ["would", "be", "scored", "7"] for line in lines)
    assert any(line.split()[:4] == ["anatomical", "6", "2", "12"] for line in lines)
    assert any("functional MR, a time series" in line for line in lines)
    examples = [line for line in lines if f"{archive}/t1_" in line or f"{archive}/stack" in line]
    assert len(examples) == 3
    assert all(len(line) < 200 for line in lines if "/" not in line)


def test_the_parquet_has_a_row_per_file_and_nothing_of_a_patient(archive: Path, tmp_path: Path) -> None:
    result = look(archive, output=str(tmp_path / "out"))
    assert result.report == str(tmp_path / "out" / "inspection.parquet")
    table = pq.read_table(result.report)
    assert table.schema.equals(INSPECTED)
    assert table.num_rows == 10
    row = next(row for row in table.to_pylist() if row["scan_uri"].endswith("stack.dcm"))
    assert (row["frames"], row["width_px"], row["kind"], row["format"]) == (7, 64, "anatomical", "DICOM")
    assert row["syntax"] == "explicit little endian"
    texts = repr(table.to_pylist()) + result.table()
    assert not any(canary in texts for canary in (CANARY, CANARY_DATE, CANARY_NUMBER, "1.2.3."))


def test_a_limit_spreads_over_the_listing(archive: Path) -> None:
    result = look(archive, limit=4)
    assert result.files.num_rows == 4
    assert "of 10 files" in result.table()


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(999, "999 bytes"), (1234, "1.23 kB"), (999_499, "999 kB"), (999_999, "1 MB"), (12_345 * 10**12, "12,345 TB")],
)
def test_a_size_is_given_in_the_unit_that_keeps_it_short(size_bytes: int, shown: str) -> None:
    row = dict.fromkeys(INSPECTED.names) | {"scan_uri": "a", "scan_version": "1", "outcome": "rejected"}
    files = pa.Table.from_pylist([row | {"size_bytes": size_bytes, "reason": "too_large"}], schema=INSPECTED)
    assert f"1 files, {shown}, " in Inspected(files=files, listed=1, report=None).table()


def test_a_process_that_dies_ends_the_command_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(201):
        (tmp_path / f"{number}.png").touch()

    def dead(*_: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.map", dead)
    with pytest.raises(RunFailed, match=r"one of 3 processes that read headers died.*: lower --workers"):
        look(tmp_path, workers=3)


def test_many_files_are_read_by_several_processes(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    data = written(clean())
    for number in range(260):
        (folder / f"{number}.dcm").write_bytes(data)
    assert counts(look(folder, workers=2)) == {("scored", None): 260}


def test_members_of_archives_are_looked_at_one_by_one_and_counted_in_their_file(archive: Path) -> None:
    (archive / "study.zip").write_bytes(as_zip({"t1.dcm": written(clean()), "v.nii": nifti(), "notes.txt": b"a note"}))
    (archive / "v.nii.gz").write_bytes(gzip.compress(nifti()))
    result = look(archive)
    assert counts(result)["scored", None] == 7 + 3
    rows = {row["scan_uri"]: row for row in result.files.to_pylist()}
    member = rows[f"{archive}/study.zip!v.nii"]
    assert (member["container"], member["frames"], member["size_bytes"]) == (f"{archive}/study.zip", 12, len(nifti()))
    packed = rows[f"{archive}/v.nii.gz"]
    assert (packed["container"], packed["frames"], packed["format"], packed["kind"]) == (
        None,
        12,
        "NIfTI",
        "anatomical",
    )
    first = result.table().splitlines()[0]
    assert first.startswith("12 files (1 of them archives of 3), ")
    assert first.endswith(", 5 series, 3 studies, 2 NIfTI volumes")


def test_studies_are_counted_as_the_tables_of_studies_count_them(tmp_path: Path) -> None:
    for place in ("sub-01/ses-a/anat/sub-01_ses-a_T1w", "sub-01/ses-a/anat/sub-01_ses-a_T2w", "sub-02/anat/sub-02_T1w"):
        file = tmp_path / "bids" / f"{place}.nii"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(nifti())
    (tmp_path / "bids/1234567_20252_2_0.zip").write_bytes(as_zip({"T1/T1.nii": nifti()}))
    lines = look(tmp_path / "bids").table().splitlines()
    assert lines[0].endswith(", 4 series, 3 studies, 4 NIfTI volumes")
    assert any(line.split() == ["anatomical", "4", "4", "48"] for line in lines)
