"""Wrong use ends with one sentence, the documented exit code and no traceback, before Ray starts."""

import errno
import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mribatch.models.format import Model

ROOT = Path(__file__).parent.parent.parent

ScanFolder = Callable[..., list[str]]
Job = Callable[..., tuple[int, str]]


@pytest.fixture
def job(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Job:
    """Run a job in this process: its exit code and what it wrote to stderr."""
    monkeypatch.setattr(logging.getLogger("mribatch"), "handlers", [])  # given back when the captured stderr closes
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))

    def run(name: str, *argv: str) -> tuple[int, str]:
        code = runpy.run_path(str(ROOT / "jobs" / f"{name}.py"))["main"](argv)
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def scans(tmp_path: Path, scan_folder: ScanFolder) -> str:
    scan_folder(tmp_path / "scans", {"glioma": 3, "notumor": 3})
    return str(tmp_path / "scans")


def one_sentence(said: str, *words: str) -> None:
    error = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(error) == 1, said
    assert "Traceback" not in said
    for word in words:
        assert word in error[0]


def test_a_missing_input(job: Job, tiny_model: Model, tmp_path: Path) -> None:
    code, said = job("score", "--model", tiny_model.uri, "--input", "/no/such/scans", "--output", str(tmp_path / "out"))
    assert code == 2
    one_sentence(said, "/no/such/scans", "check the path")
    assert not (tmp_path / "out").exists(), "nothing half-written is visible"


def test_an_empty_folder(job: Job, tiny_model: Model, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, said = job(
        "score", "--model", tiny_model.uri, "--input", str(tmp_path / "empty"), "--output", str(tmp_path / "o")
    )
    assert code == 2
    one_sentence(said, "empty", "expected a folder or prefix with at least one file")


def test_a_closed_folder_is_named_with_both_ways_out(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def closed(folder: str) -> Any:
        if folder == f"{scans}/glioma":
            raise PermissionError(errno.EACCES, "JOHN^DOE")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)  # the tests may run as root, who may list all
    flags = ("--model", tiny_model.uri, "--input", scans, "--output", str(tmp_path / "o"))
    code, said = job("score", *flags)
    assert code == 2
    one_sentence(said, f"{scans}/glioma", "readable", "--exclude glioma")
    code, said = job("nightly", *flags, "--exclude", "glioma", "--dry-run")
    assert code == 0, said


@pytest.mark.parametrize("output", [".", "..", "../scans", "link"])
def test_an_output_that_holds_the_input_hides_no_scan(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    (tmp_path / "scans" / "link").symlink_to(tmp_path)
    monkeypatch.chdir(scans)
    code, said = job("nightly", "--model", tiny_model.uri, "--input", "glioma", "--output", output, "--dry-run")
    assert code == 0, said


def test_no_model(job: Job, scans: str, tmp_path: Path) -> None:
    code, said = job("score", "--model", str(tmp_path / "none"), "--input", scans, "--output", str(tmp_path / "o"))
    assert code == 2
    one_sentence(said, "no model at", "jobs/train.py")


def altered(model: Model, folder: Path, name: str, change: Callable[[bytes], bytes]) -> str:
    folder.mkdir()
    for path in Path(model.uri).iterdir():
        data = path.read_bytes()
        (folder / path.name).write_bytes(change(data) if path.name == name else data)
    return str(folder)


def test_a_model_whose_weights_were_altered(job: Job, tiny_model: Model, scans: str, tmp_path: Path) -> None:
    swapped = altered(tiny_model, tmp_path / "m", "weights.h5", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    code, said = job("score", "--model", swapped, "--input", scans, "--output", str(tmp_path / "o"))
    assert code == 2
    one_sentence(said, "weights.h5", "expected SHA-256", "copy the model directory again")


def test_a_model_whose_labels_were_altered(job: Job, tiny_model: Model, scans: str, tmp_path: Path) -> None:
    def swap(data: bytes) -> bytes:
        return json.dumps(json.loads(data) | {"labels": ["notumor", "glioma"]}).encode()

    swapped = altered(tiny_model, tmp_path / "m", "model.json", swap)
    code, said = job("score", "--model", swapped, "--input", scans, "--output", str(tmp_path / "o"))
    assert code == 2
    one_sentence(said, "was altered")


def test_an_output_that_is_a_file(job: Job, tiny_model: Model, scans: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    code, said = job("score", "--model", tiny_model.uri, "--input", scans, "--output", str(tmp_path / "file"))
    assert code == 2
    one_sentence(said, "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_bucket_that_is_not_there(job: Job, tiny_model: Model, tmp_path: Path, bucket: str) -> None:
    assert bucket.startswith("s3://")
    code, said = job(
        "score", "--model", tiny_model.uri, "--input", "s3://no-such-bucket-here/x", "--output", str(tmp_path / "o")
    )
    assert code == 2
    one_sentence(said, "no-such-bucket-here")


def test_another_scheme(job: Job, tiny_model: Model, tmp_path: Path) -> None:
    code, said = job("score", "--model", tiny_model.uri, "--input", "gs://bucket/x", "--output", str(tmp_path / "o"))
    assert code == 2
    one_sentence(said, "s3://bucket/prefix", "gs://bucket/x")


def test_flags_out_of_range(job: Job, tiny_model: Model, scans: str, tmp_path: Path) -> None:
    code, said = job(
        "score", "--model", tiny_model.uri, "--input", scans, "--output", str(tmp_path), "--batch-size", "0"
    )
    assert code == 2
    one_sentence(said, "--batch-size", "got 0")


def test_unknown_flags_and_missing_ones_end_with_2() -> None:
    for argv in (["--modle", "x"], []):
        done = subprocess.run([sys.executable, str(ROOT / "jobs/score.py"), *argv], capture_output=True, text=True)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_one_class_only(job: Job, tmp_path: Path, scan_folder: ScanFolder) -> None:
    scan_folder(tmp_path / "data", {"glioma": 3})
    code, said = job("train", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "m"), "--backbone", "cnn")
    assert code == 2
    one_sentence(said, "two classes", "glioma")


def test_a_label_without_scans(job: Job, tmp_path: Path, scans: str) -> None:
    (Path(scans) / "pituitary").mkdir()
    code, said = job("train", "--data", scans, "--output", str(tmp_path / "m"), "--backbone", "cnn")
    assert code == 2
    one_sentence(said, "pituitary")


def test_an_unknown_class_folder(job: Job, tiny_model: Model, tmp_path: Path, scan_folder: ScanFolder) -> None:
    scan_folder(tmp_path / "data", {"glioma": 2, "stroke": 2})
    code, said = job(
        "evaluate", "--model", tiny_model.uri, "--data", str(tmp_path / "data"), "--output", str(tmp_path / "o")
    )
    assert code == 2
    one_sentence(said, "stroke", "glioma, notumor")


def no_ray(*_: object, **__: object) -> None:
    raise RuntimeError("this is as far as it goes")


def on_labelled(name: str, data: str, model: Model, folder: Path) -> list[str]:
    """The command line of a job that reads labelled data."""
    shutil.copytree(model.uri, folder / "models" / "one")
    flags = {
        "train": ["--backbone", "cnn"],
        "baselines": [],
        "evaluate": ["--model", model.uri],
        "promote": ["--models", str(folder / "models"), "--candidate", "one"],
    }
    return ["--data", data, "--output", str(folder / "o"), *flags[name]]


@pytest.mark.parametrize("name", ["train", "baselines", "evaluate", "promote"])
def test_a_copy_of_the_data_inside_it(name: str, job: Job, tiny_model: Model, scans: str, tmp_path: Path) -> None:
    shutil.copytree(scans, f"{scans}/brain_tumor_dataset/Training")
    code, said = job(name, *on_labelled(name, scans, tiny_model, tmp_path))
    assert code == 2
    one_sentence(said, f"the class folder {scans}/brain_tumor_dataset", f"move it out of {scans}")


@pytest.mark.parametrize("name", ["train", "baselines", "evaluate", "promote"])
def test_classes_and_counts_are_shown_before_ray_starts(
    name: str, job: Job, tiny_model: Model, scans: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", no_ray)
    code, said = job(name, *on_labelled(name, scans, tiny_model, tmp_path))
    assert code == 1
    assert said.index(f"6 labelled scans of 2 classes in {scans}") < said.index("this is as far as it goes")
    assert [line.split() for line in said.splitlines() if line.startswith("  ")] == [
        ["class", "scans"], ["glioma", "3"], ["notumor", "3"],
    ]  # fmt: skip
    assert "warning: very few scans of glioma (3), notumor (3)" in said


def test_flags_that_do_nothing_are_told(
    job: Job, scans: str, tmp_path: Path, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", no_ray)
    places = ["--data", scans, "--output", str(tmp_path / "m")]
    code, said = job("train", *places, "--backbone", "cnn", "--paper-protocol", "--validation-fraction", "0.3")
    assert code == 2
    one_sentence(said, "--validation-fraction is not used with --paper-protocol")
    _, said = job("baselines", *places, "--models", "svm", "--deep-epochs", "9")
    assert "warning: not used by any of --models: --deep-epochs\n" in said
    Path(scans).rename(tmp_path / "train")
    shutil.copytree(tmp_path / "train", tmp_path / "set" / "train")
    shutil.copytree(tmp_path / "train", tmp_path / "set" / "valid")
    places[1] = str(tmp_path / "set")
    _, said = job("train", *places, "--backbone", "cnn", "--start-from", tiny_model.uri, "--backbone-weights", "none",
                  "--validation-fraction", "0.3")  # fmt: skip
    assert "warning: --validation-fraction is not used" in said
    assert "warning: --backbone-weights is not used: --start-from brings all weights" in said
    _, said = job("train", *places, "--backbone", "cnn", "--start-from", tiny_model.uri)
    assert "not used" not in said


def test_the_imagenet_weights_file_is_looked_for_first(job: Job, scans: str, tmp_path: Path) -> None:
    code, said = job(
        "train", "--data", scans, "--output", str(tmp_path / "m"), "--backbone-weights", str(tmp_path / "w.h5")
    )
    assert code == 2
    one_sentence(said, "w.h5")


@pytest.mark.parametrize(
    ("name", "flags"),
    [("train", ["--backbone-weights"]), ("baselines", ["--models", "frozen_svm", "--xception-weights"])],
)
def test_a_weights_file_of_another_kind_is_refused_before_anything_starts(
    job: Job, scans: str, tmp_path: Path, name: str, flags: list[str]
) -> None:
    (tmp_path / "w.h5").write_bytes(b"<html>403 Forbidden</html>")
    code, said = job(name, "--data", scans, "--output", str(tmp_path / "m"), *flags, str(tmp_path / "w.h5"))
    assert code == 2
    one_sentence(said, "of xception without its top", "got a web page", "w.h5")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("flag", ["--output", "--storage"])
def test_what_a_training_is_to_write_is_tried_before_it_starts(
    job: Job, scans: str, tmp_path: Path, bucket: str, flag: str
) -> None:
    (tmp_path / "file").write_text("mine")
    places = {"--output": str(tmp_path / "m"), "--storage": str(tmp_path / "s")}
    for place, words in (
        (str(tmp_path / "file"), ("expected a folder at", str(tmp_path / "file"))),
        (f"{bucket}-is-not-there/x", ("no bucket", "check the name")),
    ):
        flags = [word for pair in (places | {flag: place}).items() for word in pair]
        code, said = job("train", "--data", scans, "--backbone", "cnn", *flags)
        assert code == 2
        one_sentence(said, *words)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_an_evaluation_is_to_write_is_tried_before_it_starts(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    code, said = job("evaluate", "--model", tiny_model.uri, "--data", scans, "--output", str(tmp_path / "file"))
    assert code == 2
    one_sentence(said, "expected a folder at", str(tmp_path / "file"))


def test_help_explains_itself_and_loads_nothing_that_talks() -> None:
    names = ["train", "evaluate", "score", "nightly", "promote", "compact"]
    program = (
        "import contextlib, runpy, sys\n"
        "for name in sys.argv[1:]:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        runpy.run_path(f'jobs/{name}.py')['main'](['--help'])\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.count("Required.") >= 2 * len(names)
    assert done.stdout.endswith("False\n"), "TensorFlow was loaded"
    assert done.stderr == "", "something that talks was loaded"


def test_a_nights_report_that_cannot_be_written_is_found_before_the_work(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    flags = ["--model", tiny_model.uri, "--input", scans, "--output", str(tmp_path / "out")]
    code, said = job("nightly", *flags, "--report", str(tmp_path / "file"))
    assert code == 2
    one_sentence(said, str(tmp_path / "file"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001", "somewhere"])
def test_an_address_of_a_cluster_that_cannot_be_one_is_refused(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    code, said = job("score", "--model", tiny_model.uri, "--input", scans, "--output", str(tmp_path / "out"))
    assert code == 2
    one_sentence(
        said, f"RAY_ADDRESS={address}" if "//" in address else "expected RAY_ADDRESS=HOST:PORT", "unset RAY_ADDRESS"
    )


@pytest.mark.parametrize("name", ["train", "evaluate", "score", "nightly", "promote", "compact", "baselines"])
def test_a_reader_that_takes_one_line_only_changes_no_exit_code(name: str) -> None:
    command = f"{sys.executable} jobs/{name}.py --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_a_comparison_without_internet_names_its_own_flag_in_one_sentence(scans: str, tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    flags = ["--data", scans, "--output", str(tmp_path / "out"), "--models", "frozen_logistic", "--image-side", "71"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs/baselines.py"), *flags],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | nowhere | {"KERAS_HOME": str(tmp_path / "keras")},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    one_sentence(done.stderr, "could not be downloaded", "--xception-weights FILE")
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not any(word in done.stderr for word in ("Traceback", "ray::", "  File ")), "no stack of another process"
