"""Archives through whole runs on a real Ray session: one file of the plan, each member once, whatever is killed."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mribatch.models.format import Model
from tests.integration.test_dicom import fill, rows, run
from tests.unit.test_archives import png
from tests.unit.volume_files import as_tar, as_zip, nifti

pytestmark = pytest.mark.usefixtures("ray_session")


def scans(folder: Path, members: int) -> Path:
    """Fill a folder with an archive of so many pictures, a volume, a file with ! in its name, and a file without pictures."""
    pictures = {f"../p{number:04}!.png": png(number) for number in range(members)}
    files = {"study.zip": as_zip(pictures | {"v.nii.gz": nifti(), "notes.txt": b"hello"}), "x!y.png": png(9999)}
    return fill(folder, {**files, "bad.tar": as_tar({"a.txt": b"hello"}, "w:"), "v.nii": nifti()})


@pytest.mark.parametrize("members", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_an_archive_is_one_file_of_the_plan_with_a_row_for_each_frame_of_each_member(
    members: int, tiny_model: Model, tmp_path: Path
) -> None:
    folder, output = scans(tmp_path / "scans", members), tmp_path / "out"
    scored = run(tiny_model, folder, output)
    assert (scored.planned, scored.scored, scored.rejected) == (4, 3, {"not_an_image": 1})
    table = rows(output)
    own = table[table["container"] == f"{folder}/study.zip"].sort_values(["member", "frame"])
    names = [f"../p{number:04}!.png" for number in range(members)] + ["v.nii.gz"] * 12 + ["notes.txt"]
    assert list(own["scan_uri"]) == [f"{folder}/study.zip!{name}" for name in names]
    assert set(own["members"]) == {members + 2}
    assert set(table[table["container"].isna()]["scan_uri"]) == {f"{folder}/x!y.png", f"{folder}/v.nii"}
    volume = table[table["scan_uri"].str.endswith("v.nii")].sort_values("frame")
    packed = own[own["scan_uri"].str.endswith("v.nii.gz")]
    assert np.array_equal(packed["p_glioma"], volume["p_glioma"], equal_nan=True)
    holding = {path for path in output.glob("model=*/*.parquet") if "study.zip!" in str(rows_of_part(path))}
    assert len(holding) == 1, "all rows of an archive are in one part"
    assert run(tiny_model, folder, output).planned == 0
    assert not list(tmp_path.parent.glob("p0*")), "nothing is written by a member's name"


def rows_of_part(path: Path) -> set[str]:
    return set(pq.read_table(path, partitioning=None)["scan_uri"].to_pylist())


@pytest.mark.slow
def test_another_selection_reads_an_archive_again_in_which_a_member_was_skipped(
    tiny_model: Model, tmp_path: Path
) -> None:
    labels = nifti((np.arange(44 * 52 * 12).reshape(44, 52, 12) % 2).astype(np.uint8))
    folder = fill(
        tmp_path / "scans", {"a.zip": as_zip({"t1.nii": nifti(), "mask.nii": labels}), "b.zip": as_zip({"a": png()})}
    )
    output = tmp_path / "out"
    assert run(tiny_model, folder, output).planned == 2
    assert set(rows(output)["reason"].dropna()) == {"blank", "segmentation"}
    again = run(tiny_model, folder, output, select="all")
    assert (again.planned, again.scored) == (1, 1)
    table = rows(output)
    assert table.groupby("scan_uri").size().to_dict() == {
        f"{folder}/a.zip!t1.nii": 12,
        f"{folder}/a.zip!mask.nii": 12,
        f"{folder}/b.zip!a": 1,
    }
    assert run(tiny_model, folder, output, select="all").planned == 0
