"""What every command shows of labelled data before it begins: classes, counts, and what is odd about them."""

import logging
from pathlib import Path

import pytest

from mribatch.commands.classes import list_labelled
from tests.unit.test_labelled import touch


def lines(root: Path, caplog: pytest.LogCaptureFixture, classes: tuple[str, ...] = ()) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "mribatch"):
        list_labelled(str(root), classes=classes)
    messages = [record.getMessage() for record in caplog.records]
    return "\n".join(message for message in messages if not message.endswith("…")).splitlines()


def fill(root: Path, counts: dict[str, int]) -> None:
    touch(root, *(f"{folder}/{number}.jpg" for folder, count in counts.items() for number in range(count)))


def test_classes_are_shown_with_their_counts_by_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, {"Training/glioma": 12, "Training/notumor": 7, "Testing/glioma": 5, "valid/notumor": 6})
    shown_lines = lines(tmp_path, caplog)
    assert shown_lines[0] == f"30 labelled scans of 2 classes in {tmp_path}"
    assert [line.split() for line in shown_lines[1:]] == [
        ["class", "training", "validation", "test"],
        ["glioma", "12", "0", "5"],
        ["notumor", "7", "6", "0"],
    ]


def test_classes_without_splits_are_one_column(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, {"glioma": 12, "notumor": 7, "other": 9})
    shown_lines = lines(tmp_path, caplog)
    assert [line.split() for line in shown_lines[1:]] == [
        ["class", "scans"],
        ["glioma", "12"],
        ["notumor", "7"],
        ["other", "9"],
    ]
    assert lines(tmp_path, caplog, ("glioma", "notumor"))[0] == f"19 labelled scans of 2 classes in {tmp_path}"


def test_classes_that_are_far_smaller_are_questioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, {"glioma": 1001, "notumor": 10, "cache": 4})
    shown_lines = lines(tmp_path, caplog)[-1]
    assert (
        shown_lines
        == "warning: very few scans of cache (4), notumor (10), but 1,001 of the largest class: are these classes?"
    )
    (tmp_path / "notumor" / "more.jpg").write_bytes(b"")
    assert "notumor" not in lines(tmp_path, caplog)[-1]


@pytest.mark.parametrize("name", ["predictions", "Results", "backup", "_runs", "tmp"])
def test_a_class_called_like_an_output_is_questioned(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, {"glioma": 5, name: 5})
    assert lines(tmp_path, caplog)[-1] == f"warning: is {name} a class? If not, move the folder out, or use a manifest"


def test_hundreds_of_folders_that_are_patients_fill_no_screen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, {f"P{number:03}": 3 for number in range(200)})
    shown_lines = lines(tmp_path, caplog)
    assert len(shown_lines) == 2 + 40 + 1 + 1
    assert "… and 160 more classes" in shown_lines[-2]
    assert "P004 (3) and 195 more, but 3 of the largest class: are these classes?" in shown_lines[-1]
