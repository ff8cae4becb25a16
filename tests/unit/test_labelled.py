"""Labels from folders and manifests, listings, and one row per decoded scan, without Ray."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mribatch import schema
from mribatch.cluster import decoding
from mribatch.errors import ConfigError, InputError, StorageMissing
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Reason, Status
from mribatch.sources.labels import LABELLED, labelled
from mribatch.sources.listing import archive, list_scans
from mribatch.stores import uris
from tests.conftest import ScanFolder

SPEC = ImageSpec(side_px=16)


def touch(root: Path, *names: str) -> None:
    """Create empty files in place of scans: labels come from names, nothing is opened."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def labels_of(root: Path) -> dict[str, tuple[str, str | None]]:
    """Return label and split by name relative to the root."""
    rows = labelled(str(root)).to_pylist()
    return {uris.relative(row["scan_uri"], str(root)): (row["label"], row["split"]) for row in rows}


def wrong(root: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        labelled(str(root))
    assert caught.value.exit_code == 2
    return str(caught.value)


# Folders


def test_a_folder_per_class_labels_what_is_in_it_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "glioma/b.jpg", "glioma/patient 7/2024/a.jpg", "no tumor/a.png", "no tumor/x")
    assert labels_of(tmp_path) == {
        "glioma/b.jpg": ("glioma", None),
        "glioma/patient 7/2024/a.jpg": ("glioma", None),
        "no tumor/a.png": ("no tumor", None),
        "no tumor/x": ("no tumor", None),
    }


def test_the_table_has_its_schema_its_versions_and_is_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "a/1.jpg", "a/0.jpg")
    table = labelled(f"{tmp_path}/")
    assert table.schema == LABELLED
    assert table["scan_uri"].to_pylist() == [f"{tmp_path}/{name}" for name in ("a/0.jpg", "a/1.jpg", "b/2.jpg")]
    versions = {entry.uri: entry.version for entry in uris.walk(str(tmp_path))}
    assert dict(zip(*table.select(["scan_uri", "scan_version"]).to_pydict().values(), strict=True)) == versions


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        ("Training", "training"),
        ("train", "training"),
        ("TRAIN", "training"),
        ("Testing", "test"),
        ("test", "test"),
        ("Validation", "validation"),
        ("val", "validation"),
    ],
)
def test_split_folders_name_the_split(tmp_path: Path, folders: str, split: str) -> None:
    touch(tmp_path, f"{folders}/a/deep/1.jpg", f"{folders}/b/1.jpg")
    assert labels_of(tmp_path) == {f"{folders}/a/deep/1.jpg": ("a", split), f"{folders}/b/1.jpg": ("b", split)}


def test_documents_beside_class_folders_are_passed_over_and_inside_they_are_scans(tmp_path: Path) -> None:
    touch(tmp_path, "README", "readme.md", "labels.CSV", "Thumbs.db", "a/1.jpg", "b/1.jpg", "b/readme.txt")
    assert set(labels_of(tmp_path)) == {"a/1.jpg", "b/1.jpg", "b/readme.txt"}
    split = tmp_path / "split"
    touch(split, "LICENSE", "Training/notes.txt", "Training/a/1.jpg", "Training/b/1.jpg", "Testing/a/1.jpg")
    assert set(labels_of(split)) == {"Training/a/1.jpg", "Training/b/1.jpg", "Testing/a/1.jpg"}


@pytest.mark.parametrize("stray", ["scan.jpg", "scan", "IM0001.dcm", "mask.nii.gz"])
def test_a_scan_beside_class_folders_has_no_label_and_is_an_error(tmp_path: Path, stray: str) -> None:
    touch(tmp_path / "x", "a/1.jpg", "b/1.jpg", stray)
    assert f"directly in {tmp_path}/x" in wrong(tmp_path / "x")
    touch(tmp_path / "y", "Training/a/1.jpg", "Training/b/1.jpg", f"Training/{stray}")
    assert f"directly in {tmp_path}/y/Training" in wrong(tmp_path / "y")


def test_a_class_folder_without_scans_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "x", "a/1.jpg", "b/1.jpg", "pituitary/.DS_Store")
    assert f"{tmp_path}/x/pituitary" in wrong(tmp_path / "x")
    touch(tmp_path / "y", "Training/a/1.jpg", "Training/b/1.jpg", "Testing/a/1.jpg")
    (tmp_path / "y/Testing/b/deep").mkdir(parents=True)
    assert f"{tmp_path}/y/Testing/b" in wrong(tmp_path / "y")


def test_a_split_folder_without_scans_is_named(tmp_path: Path) -> None:
    """Otherwise an evaluation without test scans would use all the training scans."""
    touch(tmp_path, "Training/a/1.jpg", "Training/b/1.jpg", "Testing/README")
    assert f"{tmp_path}/Testing" in wrong(tmp_path)


def test_an_empty_folder_inside_a_class_is_no_label(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "patient 8").mkdir()
    (tmp_path / ".cache").mkdir()
    assert len(labels_of(tmp_path)) == 2


def test_split_folders_and_class_folders_side_by_side_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "Training/a/1.jpg", "Training/b/1.jpg", "glioma/1.jpg")
    assert "side by side" in wrong(tmp_path)


def test_one_class_only_is_an_error_that_names_it(tmp_path: Path) -> None:
    touch(tmp_path, "glioma/1.jpg", "glioma/2.jpg")
    assert "found only glioma" in wrong(tmp_path)


def test_a_class_that_only_testing_knows_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "Training/a/1.jpg", "Training/b/1.jpg", "Testing/a/1.jpg", "Testing/Pituitary/1.jpg")
    assert "test scans have classes without training scans: Pituitary" in wrong(tmp_path)


def test_testing_alone_is_enough_to_evaluate(tmp_path: Path) -> None:
    touch(tmp_path, "Testing/a/1.jpg", "Testing/b/1.jpg")
    assert {split for _, split in labels_of(tmp_path).values()} == {"test"}


def test_an_empty_root_a_missing_one_a_file_and_a_glob_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no scans in" in wrong(tmp_path / "empty")
    with pytest.raises(StorageMissing, match="absent"):
        labelled(f"{tmp_path}/absent")
    touch(tmp_path, "data/a/1.jpg", "data/b/1.jpg")
    assert "expected a folder of class folders" in wrong(tmp_path / "data/a/1.jpg")
    assert "expected a folder of class folders" in wrong(f"{tmp_path}/data/*")


def test_a_scan_whose_name_is_not_utf8_keeps_its_label_and_a_class_cannot_be_called_so(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.jpg")).write_bytes(b"")
    assert [row["label"] for row in labelled(str(tmp_path)).to_pylist()] == ["a", "b", "a"]
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff/1.jpg")).write_bytes(b"")
    assert "not UTF-8" in wrong(tmp_path)


@pytest.mark.shared
def test_the_real_data_has_its_published_numbers(shared: Path) -> None:
    table = labelled(str(shared / "data" / "brain-tumor-mri"))
    counts: dict[str, Counter[str]] = {"training": Counter(), "test": Counter()}
    for row in table.select(["split", "label"]).to_pylist():
        counts[row["split"]][row["label"]] += 1
    assert counts == {
        "training": {"glioma": 1321, "meningioma": 1339, "notumor": 1591, "pituitary": 1457},
        "test": {"glioma": 151, "meningioma": 153, "notumor": 201, "pituitary": 150},
    }


# Manifests


def manifest(root: Path, columns: dict[str, Sequence[Any]], name: str = "labels.csv") -> str:
    table = pa.table(columns)
    if name.endswith(".parquet"):
        pq.write_table(table, root / name)
    else:
        rows = zip(
            *(["" if value is None else str(value) for value in column] for column in columns.values()), strict=True
        )
        (root / name).write_text("\n".join(",".join(f'"{v}"' for v in row) for row in [tuple(columns), *rows]) + "\n")
    return str(root / name)


@pytest.mark.parametrize("name", ["labels.csv", "LABELS.CSV", "labels.parquet"])
def test_a_manifest_gives_labels_splits_and_patients(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a.jpg", "b/c d.jpg", "e.jpg")
    columns = {
        "uri": ["a.jpg", "./b/../b/c d.jpg", f"{tmp_path}/e.jpg"],
        "label": [" glioma ", "notumor", "notumor"],
        "split": ["Train", "test", None],
        "patient_id": ["007", None, ""],
        "remark": ["x", "y", "z"],
    }
    table = labelled(manifest(tmp_path, columns, name))
    assert table.schema == LABELLED
    assert table.drop_columns("scan_version").to_pylist() == [
        {"scan_uri": f"{tmp_path}/a.jpg", "label": "glioma", "split": "training", "patient_id": "007"},
        {"scan_uri": f"{tmp_path}/b/c d.jpg", "label": "notumor", "split": "test", "patient_id": None},
        {"scan_uri": f"{tmp_path}/e.jpg", "label": "notumor", "split": None, "patient_id": None},
    ]
    assert table["scan_version"].to_pylist() == [e.version for e in sorted(uris.find(table["scan_uri"].to_pylist()))]


def test_a_manifest_takes_numbers_categories_and_hidden_scans(tmp_path: Path) -> None:
    touch(tmp_path, ".a.jpg", "b.jpg")
    table = pa.table({"uri": pa.array([".a.jpg", "b.jpg"]).dictionary_encode(), "label": [0, 1], "patient_id": [7, 8]})
    pq.write_table(table, tmp_path / "m.parquet")
    rows = labelled(str(tmp_path / "m.parquet"))
    assert (rows["label"].to_pylist(), rows["patient_id"].to_pylist()) == (["0", "1"], ["7", "8"])


def test_a_csv_as_excel_saves_it_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "m.csv").write_bytes("\ufeffuri,label\r\na.jpg,001\r\nb.jpg,Größe\r\n".encode())
    assert labelled(str(tmp_path / "m.csv"))["label"].to_pylist() == ["001", "Größe"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"uri": ["a.jpg", "b.jpg"]}, "lacks the column label, it has uri"),
        ({"path": ["a.jpg"], "class": ["x"]}, "lacks the columns uri and label"),
        ({"uri": ["a.jpg", "gone.jpg"], "label": ["x", "y"]}, "1 of 2 scans .* in row 2, .*gone.jpg"),
        ({"uri": ["a.jpg", "nowhere/b.jpg"], "label": ["x", "y"]}, "1 of 2 scans .* in row 2"),
        ({"uri": ["a.jpg", "folder"], "label": ["x", "y"]}, "1 of 2 scans .* in row 2"),
        ({"uri": ["a.jpg", "x" * 300], "label": ["x", "y"]}, "1 of 2 scans .* in row 2"),
        ({"uri": ["a.jpg", "b.jpg"], "label": ["x", " "]}, "1 rows .* have no label, the first in row 2"),
        ({"uri": ["a.jpg", ""], "label": ["x", "y"]}, "has no uri"),
        ({"uri": ["a.jpg", "./a.jpg"], "label": ["x", "y"]}, "names 1 scans twice"),
        ({"uri": ["a.jpg", "b.jpg"], "label": ["x", "x"]}, "found only x"),
        ({"uri": ["a.jpg", "b.jpg"], "label": ["x", "y"], "split": ["train", "holdout"]}, "the split 'holdout'"),
        ({"uri": ["a.jpg", "b.jpg"], "label": ["x", "y"], "split": ["train", "test"]}, "without training scans: y"),
        ({"uri": [], "label": []}, "no scans in"),
    ],
)
def test_a_manifest_that_does_not_fit_says_where(tmp_path: Path, columns: dict[str, list[str]], message: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "folder/c.jpg")
    with pytest.raises(InputError, match=message):
        labelled(manifest(tmp_path, columns))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", b""),
        ("m.csv", b"uri,label\na,b,c\n"),
        ("m.csv", b"uri,label\na,\xff\n"),
        ("m.parquet", b"no Parquet"),
        ("m.parquet", b""),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = wrong(tmp_path / name)
    assert f"{tmp_path}/{name} could not be read" in message
    assert "\n" not in message


def test_a_column_that_is_no_text_at_all_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["a"], "label": [["x", "y"]]}), tmp_path / "m.parquet")
    assert "could not be read" in wrong(tmp_path / "m.parquet")


def test_a_manifest_names_scans_in_known_storage_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gs://bucket"):
        labelled(manifest(tmp_path, {"uri": ["gs://bucket/a.jpg"], "label": ["x"]}))


# Listings


def test_a_listing_is_sorted_and_has_each_scan_once(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "a/1.jpg", "c.jpg")
    table = list_scans([f"{tmp_path}/b", str(tmp_path), f"{tmp_path}/*/1.jpg"])
    assert table.schema == schema.PLAN
    assert table["scan_uri"].to_pylist() == [f"{tmp_path}/{name}" for name in ("a/1.jpg", "b/2.jpg", "c.jpg")]


def test_a_listing_without_any_scan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scans in"):
        list_scans([str(tmp_path)])


def archive_of(root: Path, *exclude: str) -> tuple[list[str], Callable[[str], bool]]:
    table, covers = archive([f"{root}/one", f"{root}/two/*.jpg"], exclude)
    return table["scan_uri"].to_pylist(), covers


def test_an_archive_says_what_it_would_list(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "one/b/c.jpg", "two/d.jpg", "two/e.png", "three/f.jpg", "one/out/_runs/0a.lock-1")
    names, covers = archive_of(tmp_path, "b")
    assert names == [f"{tmp_path}/{name}" for name in ("one/a.jpg", "two/d.jpg")]
    possible = ("one/x", "one/b/x", "two/x.jpg", "two/x.png", "three/x", "one/out/_runs/0a.lock-1", "one/a.jpg")
    covered = {name for name in possible if covers(f"{tmp_path}/{name}")}
    assert covered == {"one/x", "two/x.jpg", "one/a.jpg"}


def test_an_exclusion_that_matches_nothing_is_told_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "one/a.jpg", "one/b/c.jpg", "two/d.jpg")
    archive_of(tmp_path, "b", "nothing/**")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("--exclude nothing/** matches nothing")


def test_a_listing_that_is_excluded_whole_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(InputError, match="at least one file that is not excluded"):
        list_scans([str(tmp_path)], ["**"])


def test_a_second_evaluation_inside_the_labelled_folder_meets_no_class_of_its_own(tmp_path: Path) -> None:
    predictions = ("_runs/0123456789ab.lock-1", "model=0123456789ab/part-1.parquet")
    evaluation = ("metrics.json", "report.html", "scans.png", *(f"predictions/{name}" for name in predictions))
    training = ("model/model.json", "model/weights.h5", "_training/run/checkpoint_1/state.json")
    touch(tmp_path, "a/1.jpg", "b/1.jpg", *(f"evaluation/{name}" for name in evaluation), *training)
    assert set(labels_of(tmp_path)) == {"a/1.jpg", "b/1.jpg"}
    split = tmp_path / "split"
    touch(split, "Training/a/1.jpg", "Training/b/1.jpg", "Testing/a/1.jpg", "Testing/b/1.jpg", f"out/{predictions[0]}")
    assert len(labels_of(split)) == 4


def test_an_output_that_a_killed_run_left_empty_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    for name in ("models/v2", "_training/run"):
        (tmp_path / name).mkdir(parents=True)
    assert "a label without scans" in wrong(tmp_path)
    outputs = (f"{tmp_path}/models/v2", f"{tmp_path}/_training", "s3://elsewhere/x")
    assert labelled(str(tmp_path), outputs=outputs).num_rows == 2


def test_excluded_folders_are_no_classes_and_a_manifest_takes_no_exclusion(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.tmp", "masks/1.png", "Thumbs/x")
    table = labelled(str(tmp_path), exclude=["masks", "Thumbs/**", "**/*.tmp"])
    assert table["label"].to_pylist() == ["a", "b"]
    with pytest.raises(InputError, match="remove the rows from it instead"):
        labelled(manifest(tmp_path, {"uri": ["a/1.jpg", "b/1.jpg"], "label": ["x", "y"]}), exclude=["masks"])


def test_the_folder_that_a_disk_keeps_for_itself_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "lost+found/#123")
    assert set(labels_of(tmp_path)) == {"a/1.jpg", "b/1.jpg"}


# One row per scan, whatever happens to it


def test_every_scan_keeps_its_row_with_the_reason(
    tmp_path: Path, scan_folder: ScanFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_folder(tmp_path, {"a": 5})
    table = list_scans([str(tmp_path)])
    good, changed, deleted, large, closed = table["scan_uri"].to_pylist()
    Path(changed).write_bytes(b"other")
    Path(deleted).unlink()
    os.truncate(large, 1 << 40)  # a sparse terabyte: it must not be read
    versions = {entry.uri: entry.version for entry in uris.find([large])}
    rows = [row | {"scan_version": versions.get(row["scan_uri"], row["scan_version"])} for row in table.to_pylist()]
    table = pa.Table.from_pylist(rows, schema=schema.PLAN)
    fail_reading(closed, monkeypatch)
    rows = {row["scan_uri"]: row for row in decoding.decode_table(table, spec=SPEC).to_pylist()}
    statuses = {uri: (row["status"], row["reason"]) for uri, row in rows.items()}
    assert statuses == {
        good: (Status.OK, None),
        changed: (Status.REJECTED, Reason.CHANGED),
        deleted: (Status.REJECTED, Reason.VANISHED),
        large: (Status.REJECTED, Reason.TOO_LARGE),
        closed: (Status.FAILED, Reason.UNREADABLE),
    }
    assert len(rows[good]["pixels"]) == 16 * 16 * 3
    assert not any(str(tmp_path) in (row["detail"] or "") for row in rows.values())


def fail_reading(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk fail for one file (permissions would not: the tests may run as root)."""
    read = os.fstat

    def broken(handle: int) -> os.stat_result:
        if os.path.realpath(f"/proc/self/fd/{handle}") == uri:
            raise OSError(5, "Input/output error")
        return read(handle)

    monkeypatch.setattr(os, "fstat", broken)


def test_decoding_keeps_the_columns_that_came_with_the_scans(tmp_path: Path, scan_folder: ScanFolder) -> None:
    scan_folder(tmp_path, {"a": 1, "b": 1})
    table = decoding.decode_table(labelled(str(tmp_path)), spec=SPEC)
    assert table.schema == pa.schema([*LABELLED, *schema.decoded_fields(16)])
    assert table["label"].to_pylist() == ["a", "b"]
    assert decoding.decode_table(table.select(LABELLED.names).slice(0, 0), spec=SPEC).num_rows == 0
