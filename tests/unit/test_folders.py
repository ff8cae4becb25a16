"""Folders as people lay them out: read as a person would expect, or rejected with the folder and the remedy."""

import unicodedata
from pathlib import Path

import pytest

from mribatch.errors import InputError
from mribatch.sources.label_names import looks_like_split, same_class, split_of
from mribatch.sources.labels import labelled
from mribatch.sources.listing import list_scans
from tests.unit.test_labelled import labels_of, touch, wrong

# Splits


@pytest.mark.parametrize("validation", ["valid", "Valid", "validate", "VALIDATION", "val", "dev"])
def test_a_roboflow_export_has_three_splits(tmp_path: Path, validation: str) -> None:
    scans = [f"{split}/{label}/1.jpg" for split in ("train", validation, "test") for label in ("a", "b")]
    touch(tmp_path, "README.roboflow.txt", "data.yaml", *scans)
    assert {split for _, split in labels_of(tmp_path).values()} == {"training", "validation", "test"}


@pytest.mark.parametrize(
    "name", ["Train_set", "test2", "TestImages", "hold-out", "eval", "evaluation", "train data", "TRAINING_SET"]
)
def test_a_folder_called_like_a_split_is_no_class(tmp_path: Path, name: str) -> None:
    for root in ("alone", "beside"):
        other = "train" if root == "beside" else "other"
        touch(tmp_path / root, f"{name}/a/1.jpg", f"{name}/b/1.jpg", f"{other}/a/1.jpg", f"{other}/b/1.jpg")
        message = wrong(tmp_path / root)
        assert f"{tmp_path}/{root}/{name} has the name of a split" in message
        assert "rename it to train, validation or test" in message


@pytest.mark.parametrize("name", ["attest", "latest", "devil", "contest", "glioma"])
def test_a_class_whose_name_only_contains_that_of_a_split_is_a_class(name: str) -> None:
    assert not looks_like_split(name)
    assert split_of(name) is None


def test_a_folder_beside_splits_is_named_with_the_change(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "unlabeled/1.jpg")
    message = wrong(tmp_path)
    assert f"move {tmp_path}/unlabeled into one of the splits, or out of {tmp_path}" in message


def test_splits_inside_classes_are_no_scans_without_a_split(tmp_path: Path) -> None:
    """Otherwise all of them would be training scans, even the test scans."""
    touch(tmp_path, "a/train/1.jpg", "a/test/1.jpg", "b/train/1.jpg", "b/test/1.jpg")
    assert f"{tmp_path}/a contains folders with the names of splits or other classes (test, train)" in wrong(tmp_path)


# Copies of the data inside it, and folders around it


@pytest.mark.parametrize(
    "copy",
    [
        "brain_tumor_dataset/Training/yes/1.jpg",
        "brain_tumor_dataset/yes/1.jpg",
        "old/2019/brain_tumor_dataset/no/1.jpg",
        "backup/Yes/1.jpg",
        "again/Train/gliom/1.jpg",
    ],
)
def test_a_copy_of_the_data_inside_it_is_no_class(tmp_path: Path, copy: str) -> None:
    touch(tmp_path, "yes/1.jpg", "no/1.jpg", copy)
    message = wrong(tmp_path)
    assert f"the class folder {tmp_path}/{copy.split('/')[0]} contains folders with the names" in message
    assert f"move it out of {tmp_path}" in message


def test_a_copy_beside_splits_and_one_inside_a_split_are_named(tmp_path: Path) -> None:
    classes = ("a/1.jpg", "b/1.jpg")
    touch(tmp_path / "x", *(f"Training/{name}" for name in classes), *(f"copy/Training/{name}" for name in classes))
    assert f"move {tmp_path}/x/copy " in wrong(tmp_path / "x")
    touch(tmp_path / "y", *(f"Training/{name}" for name in classes), *(f"Training/Training/{name}" for name in classes))
    assert f"{tmp_path}/y/Training/Training has the name of a split" in wrong(tmp_path / "y")


def test_a_class_inside_another_class_is_questioned_and_one_inside_itself_is_not(tmp_path: Path) -> None:
    touch(tmp_path / "x", "glioma/1.jpg", "glioma/no tumor/2.jpg", "notumor/1.jpg")
    assert "(no tumor)" in wrong(tmp_path / "x")
    touch(tmp_path / "y", "glioma/glioma/1.jpg", "notumor/patient/1.jpg")
    assert len(labels_of(tmp_path / "y")) == 2


def test_numbers_inside_classes_that_are_numbers_are_patients(tmp_path: Path) -> None:
    touch(tmp_path / "x", "0/1/a.jpg", "0/2/a.jpg", "1/0/a.jpg", "2/a.jpg")
    assert len(labels_of(tmp_path / "x")) == 4
    touch(tmp_path / "y", "0/a.jpg", "1/a.jpg", "archive/0/a.jpg", "archive/1/a.jpg")
    assert f"{tmp_path}/y/archive contains folders with the names" in wrong(tmp_path / "y")


@pytest.mark.parametrize("inner", ["archive", "archive/Brain MRI"])
@pytest.mark.parametrize("split", ["", "Training/"])
def test_a_root_around_the_data_says_which_folder_to_name(tmp_path: Path, inner: str, split: str) -> None:
    touch(tmp_path, "README.md", f"{inner}/{split}a/1.jpg", f"{inner}/{split}b/1.jpg")
    message = wrong(tmp_path)
    assert "found only archive" in message
    assert f"if the classes are the folders in {tmp_path}/{inner}, name that folder" in message


def test_a_single_class_with_patients_does_not_make_them_classes_or_tell_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "glioma/Jane Doe/1.jpg", "glioma/John Doe/1.jpg")
    message = wrong(tmp_path)
    assert "found only glioma" in message
    assert "Doe" not in message


# Names of classes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("glioma", "Glioma"),
        ("no tumor", "notumor"),
        ("no_tumor", "No-Tumor"),
        ("glioma", "gliomas"),
        ("glioma", "glioma - Copy"),
        ("glioma", "glioma (1)"),
        ("glioma", "Copy of glioma"),
        ("Größe", unicodedata.normalize("NFD", "Größe")),
    ],
)
def test_classes_that_look_like_one_are_questioned(tmp_path: Path, first: str, second: str) -> None:
    touch(tmp_path, f"{first}/1.jpg", f"{second}/1.jpg", "other/1.jpg")
    assert "look like the same class: give both one name" in wrong(tmp_path)
    lines = [f"{first}/1.jpg,{first}", f"{second}/1.jpg,{second}"]
    (tmp_path / "m.csv").write_text("\n".join(["uri,label", *lines]))
    assert "look like the same class" in wrong(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("T1", "T2"),
        ("IDH+", "IDH-"),
        ("1.5", "15"),
        ("1-2", "12"),
        ("grade (1)", "grade (2)"),
        ("AD", "ADs"),
        ("1", "10"),
    ],
)
def test_classes_that_differ_in_more_are_two(tmp_path: Path, first: str, second: str) -> None:
    assert same_class(first) != same_class(second)
    touch(tmp_path, f"{first}/1.jpg", f"{second}/1.jpg")
    assert {label for label, _ in labels_of(tmp_path).values()} == {first, second}


def test_the_classes_that_are_named_are_taken_and_no_question_is_asked_of_others(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "copy/a/1.jpg", "A/1.jpg")
    (tmp_path / "empty").mkdir()
    assert labelled(str(tmp_path), classes=("a", "b"))["label"].to_pylist() == ["a", "b"]


# Files beside the class folders


ARCHIVES = ["data.zip", "Brain MRI.tar.gz", "scans.7z", "set.RAR"]
TEXTS = ["README", "Readme.docx", "LICENSE", "CITATION.cff", "labels.tsv"]
OTHERS = ["notebook.ipynb", "train.py", "DICOMDIR", "checksums.sha256", "data.dvc", "thumbs.db"]


@pytest.mark.parametrize("name", [*ARCHIVES, *TEXTS, *OTHERS])
def test_documents_and_archives_beside_classes_are_no_scans(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "x", name, "a/1.jpg", "b/1.jpg")
    assert set(labels_of(tmp_path / "x")) == {"a/1.jpg", "b/1.jpg"}
    touch(tmp_path / "y", f"Training/{name}", "Training/a/1.jpg", "Training/b/1.jpg")
    assert len(labels_of(tmp_path / "y")) == 2


def test_a_stray_scan_is_named_with_the_change(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "preview.png")
    message = wrong(tmp_path)
    assert f"a scan, preview.png, lies directly in {tmp_path}" in message
    assert "move it into the folder of its class, or out of there" in message


def test_a_folder_of_documents_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "docs/paper.pdf", "docs/old/notes.txt")
    assert f"{tmp_path}/docs contains documents only" in wrong(tmp_path)


@pytest.mark.parametrize("split", ["", "train/"])
@pytest.mark.parametrize("names", [("images", "labels"), ("Image", "Mask")])
def test_pictures_and_their_annotations_are_no_classes(tmp_path: Path, names: tuple[str, str], split: str) -> None:
    touch(tmp_path, f"{split}{names[0]}/1.jpg", f"{split}{names[1]}/1.png")
    assert "look like images and their annotations, not like classes" in wrong(tmp_path)


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.json", "scan.jpg"])
def test_a_file_that_is_no_manifest_says_what_one_is(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    assert f"a manifest (.csv, .tsv, .txt, .parquet), got {tmp_path}/{name}" in wrong(tmp_path / name)


def test_of_many_inputs_only_the_first_three_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mribatch")
    with pytest.raises(InputError, match="and 1,997 more: expected a folder"):
        list_scans([str(tmp_path)] * 2000)
    assert caplog.messages[0].endswith("and 1,997 more …")
