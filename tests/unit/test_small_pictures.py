"""Small pictures beside the rows of a page: of scans that can still be read, in their proportions, and no more than wanted."""

from pathlib import Path

import pyarrow as pa
from PIL import Image

from mribatch.commands.pictures import small_pictures
from mribatch.sources.listing import list_scans
from tests.unit.test_archives import png
from tests.unit.volume_files import as_zip, nifti


def rows_of(folder: Path) -> pa.Table:
    listing = list_scans([str(folder)])
    return listing.append_column("frame", pa.array([0] * listing.num_rows, pa.int32()))


def test_each_scan_that_can_be_read_has_a_picture_with_its_proportions(tmp_path: Path) -> None:
    Image.new("L", (200, 100), 90).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    Image.new("L", (100, 100)).save(tmp_path / "c.png")
    rows = rows_of(tmp_path)
    Image.new("L", (120, 100), 7).save(tmp_path / "c.png")  # another version than the one that was scored
    pictures = small_pictures(rows, 10)
    assert [(key, picture.width, picture.height) for key, picture in pictures.items()] == [
        ((str(tmp_path / "a.png"), 0), 96, 48)
    ]


def test_only_the_first_rows_are_read(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("L", (100, 100), 90).save(tmp_path / name)
    assert [uri for uri, _ in small_pictures(rows_of(tmp_path), 1)] == [str(tmp_path / "a.png")]


def test_without_rows_there_are_no_pictures(tmp_path: Path) -> None:
    Image.new("L", (10, 10)).save(tmp_path / "a.png")
    assert small_pictures(rows_of(tmp_path).slice(0, 0), 10) == {}


def test_members_of_archives_have_pictures_too(tmp_path: Path) -> None:
    data = as_zip({"a.png": png(1), "b.png": png(2), "v.nii": nifti()})
    (tmp_path / "study.zip").write_bytes(data)
    (listed,) = list_scans([str(tmp_path)]).to_pylist()
    uri, version = listed["scan_uri"], listed["scan_version"]
    rows = pa.table(
        {
            "scan_uri": [f"{uri}!b.png", f"{uri}!v.nii"],
            "scan_version": [version] * 2,
            "frame": pa.array([0, 5], pa.int32()),
            "container": [uri] * 2,
        }
    )
    assert [*small_pictures(rows, 2)] == [(f"{uri}!b.png", 0), (f"{uri}!v.nii", 5)]
