"""`evaluate` with a real model: which scans count, which ones --apart-from leaves out, and how both are shown."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from mribatch.commands.evaluate import Measured, evaluate
from mribatch.errors import InputError
from mribatch.models.format import Model
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.stores import uris
from tests.conftest import write_scans

pytestmark = pytest.mark.usefixtures("ray_session")

COPIES = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write training and test scans of two classes. Three of the test scans are copies of training scans."""
    root = tmp_path_factory.mktemp("evaluated") / "data"
    write_scans(root / "Training", {"glioma": 6, "notumor": 6})
    write_scans(root / "Testing", {"glioma": 9, "notumor": 9})
    for path in [path for label in ("glioma", "notumor") for path in (root / "Training" / label).iterdir()]:
        (root / "Testing" / path.parent.name / path.name).unlink()  # `write_scans` writes the same scans at each place
    for path in sorted((root / "Training" / "glioma").iterdir())[:COPIES]:
        shutil.copy(path, root / "Testing" / "notumor" / f"copy-{path.name}")
    return root


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one output for all tests, so that the scans are scored once."""
    return tmp_path_factory.mktemp("evaluation")


def evaluated(model: Model, data: Path | str, output: Path, *apart_from: Path | str) -> Measured:
    known = tuple(map(str, apart_from))
    return evaluate(EvaluateConfig(model=model.uri, data=str(data), output=str(output), apart_from=known))


def numbers(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "metrics.json").read_text()))


def manifest(place: Path, data: Path, folder: str, ending: str = ".csv", *, label: bool = False) -> Path:
    """Write a manifest of the scans in a folder of the data."""
    lines = [f"{path};{path.parent.name}" if label else str(path) for path in sorted((data / folder).rglob("*.*"))]
    path = place / f"{folder}{ending}"
    path.write_text("\n".join(["URI;Label" if label else "URI", *lines]))
    return path


@pytest.mark.parametrize("how", ["folder", "root", "manifest", "uris only", "tsv", "two"])
def test_copies_of_known_scans_are_left_out_however_those_are_named(
    how: str, tiny_model: Model, data: Path, output: Path, tmp_path: Path
) -> None:
    known = {
        "folder": [data / "Training"],
        "root": [data],  # its own test scans are what is evaluated
        "manifest": [manifest(tmp_path, data, "Training", label=True)],
        "uris only": [manifest(tmp_path, data, "Training")],
        "tsv": [manifest(tmp_path, data, "Training", ".TSV", label=True)],
        "two": [data / "Training" / "glioma", data / "Training" / "notumor" / "*.png"],
    }[how]
    done = evaluated(tiny_model, data, output, *known)
    expected = {
        "scans": 9 if how == "two" else 12,
        "test_scans_ignored": 6 + COPIES if how == "root" else 0,
        "evaluated": 6 + COPIES,
        "left_out": COPIES,
    }
    assert numbers(output)["apart_from"] == expected
    assert (done.numbers["scans"], done.numbers["left_out"]) == (6, COPIES)
    line = f"{COPIES} of the {6 + COPIES} evaluated scans are copies of them and were left out"
    assert line in done.table()
    assert line in (output / "report.html").read_text()


def test_known_scans_may_be_on_s3_and_listed_in_a_manifest_there(
    tiny_model: Model, data: Path, output: Path, bucket: str
) -> None:
    names = [path.relative_to(data / "Training").as_posix() for path in (data / "Training").rglob("*.*")]
    for name in names:
        uris.put(f"{bucket}/scans/{name}", (data / "Training" / name).read_bytes())
    uris.put(f"{bucket}/scans/known.csv", "\n".join(["uri", *names]).encode("utf-16"))
    for known in (f"{bucket}/scans", f"{bucket}/scans/known.csv"):
        assert evaluated(tiny_model, data, output, known).numbers["apart_from"]["left_out"] == COPIES


def test_finding_no_copies_is_reported(tiny_model: Model, data: Path, output: Path, tmp_path: Path) -> None:
    write_scans(tmp_path / "strange", {"x": 4})
    done = evaluated(tiny_model, data, output, tmp_path / "strange")
    line = f"--apart-from: 4 scans read, 0 of the {6 + COPIES} evaluated scans are copies of them"
    assert line in done.table()
    assert line in (output / "report.html").read_text()
    assert numbers(output)["apart_from"]["left_out"] == 0
    assert "apart-from" not in evaluated(tiny_model, data, output).table()
    assert numbers(output)["apart_from"] is None


def test_leaving_out_every_scan_is_an_error_that_says_what_to_name(
    tiny_model: Model, data: Path, output: Path, tmp_path: Path
) -> None:
    for known in (data / "Testing", manifest(tmp_path, data, "Testing")):
        message = f"all {6 + COPIES} scans .* name the training scans alone in --apart-from"
        with pytest.raises(InputError, match=message):
            evaluated(tiny_model, data, output, known)


def test_missing_known_scans_end_an_evaluation_before_anything_is_scored(
    tiny_model: Model, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "known.csv").write_text("uri\ngone.jpg\n")
    with pytest.raises(InputError, match=r"1 of 1 scans in the manifest .*known.csv do not exist, the first in row 1"):
        evaluated(tiny_model, data, tmp_path / "out", tmp_path / "known.csv")
    assert not (tmp_path / "out").exists()


def test_the_evaluated_scans_are_shown_and_a_warning_given_if_there_are_only_training_scans(
    tiny_model: Model, data: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mribatch"):
        evaluated(tiny_model, data, output)
    log = "\n".join(record.getMessage() for record in caplog.records)
    assert f"{18 + COPIES} labelled scans of 2 classes in {data}" in log
    assert f"evaluating {6 + COPIES} of {18 + COPIES} scans" in log
    assert "no test scans" not in log
    (data.parent / "only").mkdir()
    shutil.copytree(data / "Training", data.parent / "only" / "train")
    caplog.clear()
    evaluated(tiny_model, data.parent / "only", output)
    assert "has training scans but no test scans" in caplog.text
