"""Files of systems and tools are never scans, in any listing; a folder that the user names is always listed."""

from pathlib import Path

import pytest

from mribatch.junk import is_junk
from mribatch.sources.labels import labelled
from mribatch.sources.listing import list_scans
from mribatch.stores import uris
from tests.unit.test_labelled import touch

NAS = ["@eaDir/SYNOFILE_THUMB_a.jpg", "#recycle/a.jpg", "@Recycle/a.jpg"]
MACOS = ["__MACOSX/a.jpg", ".DS_Store", "._a.jpg", "Icon\r"]
WINDOWS = ["$RECYCLE.BIN/a.jpg", "System Volume Information/x", "Thumbs.db", "THUMBS.DB", "ehthumbs.db", "desktop.ini"]
OTHERS = ["lost+found/x", ".git/x", ".Trash-1000/a.jpg", "~$labels.xlsx", "_SUCCESS", "glioma_$folder$"]
JUNK = [*NAS, *MACOS, *WINDOWS, *OTHERS]
SCANS = ["a.jpg", "thumbs.db.jpg", "lost and found/a.jpg", "recycled/a.jpg", "eaDir/a.jpg", "~a.jpg", "a/~b", "_a.jpg"]


@pytest.mark.parametrize("name", JUNK)
def test_a_systems_own_files_and_folders_are_junk_at_any_depth(name: str) -> None:
    assert is_junk(name)
    assert is_junk(f"glioma/patient 7/{name}")


@pytest.mark.parametrize("name", SCANS)
def test_names_that_only_look_alike_are_no_junk(name: str) -> None:
    assert not is_junk(name)


def test_no_listing_of_a_folder_or_glob_has_junk_and_junk_that_is_named_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, *JUNK, *(f"a/{name}" for name in JUNK), "a/1.jpg")
    for uri in (str(tmp_path), f"{tmp_path}/*", f"{tmp_path}/**/*.jpg"):
        assert list_scans([uri])["scan_uri"].to_pylist() == [f"{tmp_path}/a/1.jpg"], uri
    assert uris.folders(str(tmp_path)) == ["a"]
    assert list_scans([f"{tmp_path}/Thumbs.db"]).num_rows == 1
    assert list_scans([f"{tmp_path}/@eaDir"]).num_rows == 1


def test_junk_inside_and_beside_class_folders_changes_no_label(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", *JUNK, *(f"a/{name}" for name in JUNK))
    assert labelled(str(tmp_path))["scan_uri"].to_pylist() == [f"{tmp_path}/a/1.jpg", f"{tmp_path}/b/1.jpg"]
