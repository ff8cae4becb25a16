"""Wrong use ends in one sentence, with the documented exit code and no traceback, before Ray starts."""

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
from tests.conftest import ROOT, ScanFolder, as_flags

Job = Callable[..., tuple[int, str]]


@pytest.fixture
def job(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Job:
    """Return a function that runs a job in this process and returns its exit code and stderr."""
    monkeypatch.setattr(logging.getLogger("mribatch"), "handlers", [])  # restored when the captured stderr closes
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))

    def run(name: str, *argv: str) -> tuple[int, str]:
        code = runpy.run_path(str(ROOT / "jobs" / f"{name}.py"))["main"](argv)
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def scans(tmp_path: Path, scan_folder: ScanFolder) -> str:
    scan_folder(tmp_path / "scans", {"glioma": 3, "notumor": 3})
    return str(tmp_path / "scans")


def assert_one_sentence(stderr: str, *words: str) -> None:
    """Check that there is one error line that contains these words, and no traceback."""
    error = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1, stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in error[0]


def test_a_missing_input_is_refused(job: Job, tiny_model: Model, tmp_path: Path) -> None:
    code, stderr = job("score", *as_flags(model=tiny_model.uri, input="/no/such/scans", output=tmp_path / "out"))
    assert code == 2
    assert_one_sentence(stderr, "/no/such/scans", "check the path")
    assert not (tmp_path / "out").exists(), "nothing was written"


def test_an_empty_folder_is_refused(job: Job, tiny_model: Model, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, stderr = job("score", *as_flags(model=tiny_model.uri, input=tmp_path / "empty", output=tmp_path / "o"))
    assert code == 2
    assert_one_sentence(stderr, "empty", "expected a folder or prefix with at least one file")


def test_a_closed_folder_is_named_with_both_remedies(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def closed(folder: str) -> Any:
        if folder == f"{scans}/glioma":
            raise PermissionError(errno.EACCES, "JOHN^DOE")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)  # the tests may run as root, who may list any folder
    flags = as_flags(model=tiny_model.uri, input=scans, output=tmp_path / "o")
    code, stderr = job("score", *flags)
    assert code == 2
    assert_one_sentence(stderr, f"{scans}/glioma", "readable", "--exclude glioma")
    code, stderr = job("nightly", *flags, "--exclude", "glioma", "--dry-run")
    assert code == 0, stderr


@pytest.mark.parametrize("output", [".", "..", "../scans", "link"])
def test_an_output_that_contains_the_input_hides_no_scan(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    (tmp_path / "scans" / "link").symlink_to(tmp_path)
    monkeypatch.chdir(scans)
    code, stderr = job("nightly", *as_flags(model=tiny_model.uri, input="glioma", output=output), "--dry-run")
    assert code == 0, stderr


def test_a_missing_model_is_refused(job: Job, scans: str, tmp_path: Path) -> None:
    code, stderr = job("score", *as_flags(model=tmp_path / "none", input=scans, output=tmp_path / "o"))
    assert code == 2
    assert_one_sentence(stderr, "no model at", "mribatch train")


def altered(model: Model, folder: Path, name: str, change: Callable[[bytes], bytes]) -> str:
    """Copy a model directory with one file changed."""
    folder.mkdir()
    for path in Path(model.uri).iterdir():
        data = path.read_bytes()
        (folder / path.name).write_bytes(change(data) if path.name == name else data)
    return str(folder)


def test_a_model_with_altered_weights_is_refused(job: Job, tiny_model: Model, scans: str, tmp_path: Path) -> None:
    swapped = altered(tiny_model, tmp_path / "m", "weights.h5", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    code, stderr = job("score", *as_flags(model=swapped, input=scans, output=tmp_path / "o"))
    assert code == 2
    assert_one_sentence(stderr, "weights.h5", "expected SHA-256", "copy the complete model directory again")


def test_a_model_with_altered_labels_is_refused(job: Job, tiny_model: Model, scans: str, tmp_path: Path) -> None:
    def swap(data: bytes) -> bytes:
        return json.dumps(json.loads(data) | {"labels": ["notumor", "glioma"]}).encode()

    swapped = altered(tiny_model, tmp_path / "m", "model.json", swap)
    code, stderr = job("score", *as_flags(model=swapped, input=scans, output=tmp_path / "o"))
    assert code == 2
    assert_one_sentence(stderr, "was altered")


def test_an_output_that_is_a_file_is_refused_and_kept(job: Job, tiny_model: Model, scans: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    code, stderr = job("score", *as_flags(model=tiny_model.uri, input=scans, output=tmp_path / "file"))
    assert code == 2
    assert_one_sentence(stderr, "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_missing_bucket_is_refused(job: Job, tiny_model: Model, tmp_path: Path, bucket: str) -> None:
    assert bucket.startswith("s3://")
    scans = "s3://no-such-bucket-here/x"
    code, stderr = job("score", *as_flags(model=tiny_model.uri, input=scans, output=tmp_path / "o"))
    assert code == 2
    assert_one_sentence(stderr, "no-such-bucket-here")


def test_an_unknown_uri_scheme_is_refused(job: Job, tiny_model: Model, tmp_path: Path) -> None:
    code, stderr = job("score", *as_flags(model=tiny_model.uri, input="gs://bucket/x", output=tmp_path / "o"))
    assert code == 2
    assert_one_sentence(stderr, "s3://bucket/prefix", "gs://bucket/x")


def test_a_flag_out_of_range_is_refused(job: Job, tiny_model: Model, scans: str, tmp_path: Path) -> None:
    code, stderr = job("score", *as_flags(model=tiny_model.uri, input=scans, output=tmp_path, batch_size=0))
    assert code == 2
    assert_one_sentence(stderr, "--batch-size", "got 0")


def test_unknown_and_missing_flags_exit_with_2() -> None:
    for argv in (["--modle", "x"], []):
        done = subprocess.run([sys.executable, str(ROOT / "jobs/score.py"), *argv], capture_output=True, text=True)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_training_on_one_class_is_refused(job: Job, tmp_path: Path, scan_folder: ScanFolder) -> None:
    scan_folder(tmp_path / "data", {"glioma": 3})
    code, stderr = job("train", *as_flags(data=tmp_path / "data", output=tmp_path / "m", backbone="cnn"))
    assert code == 2
    assert_one_sentence(stderr, "two classes", "glioma")


def test_a_class_folder_without_scans_is_refused(job: Job, tmp_path: Path, scans: str) -> None:
    (Path(scans) / "pituitary").mkdir()
    code, stderr = job("train", *as_flags(data=scans, output=tmp_path / "m", backbone="cnn"))
    assert code == 2
    assert_one_sentence(stderr, "pituitary")


def test_a_class_unknown_to_the_model_is_refused(
    job: Job, tiny_model: Model, tmp_path: Path, scan_folder: ScanFolder
) -> None:
    scan_folder(tmp_path / "data", {"glioma": 2, "stroke": 2})
    code, stderr = job("evaluate", *as_flags(model=tiny_model.uri, data=tmp_path / "data", output=tmp_path / "o"))
    assert code == 2
    assert_one_sentence(stderr, "stroke", "glioma, notumor")


def no_ray(*_: object, **__: object) -> None:
    raise RuntimeError("Ray is about to start")


def on_labelled(name: str, data: str, model: Model, folder: Path) -> list[str]:
    """Return the flags of a job that reads labelled data."""
    shutil.copytree(model.uri, folder / "models" / "one")
    flags = {
        "train": ["--backbone", "cnn"],
        "baselines": [],
        "evaluate": ["--model", model.uri],
        "promote": ["--models", str(folder / "models"), "--candidate", "one"],
    }
    return ["--data", data, "--output", str(folder / "o"), *flags[name]]


@pytest.mark.parametrize("name", ["train", "baselines", "evaluate", "promote"])
def test_a_copy_of_the_data_inside_the_data_is_refused(
    name: str, job: Job, tiny_model: Model, scans: str, tmp_path: Path
) -> None:
    shutil.copytree(scans, f"{scans}/brain_tumor_dataset/Training")
    code, stderr = job(name, *on_labelled(name, scans, tiny_model, tmp_path))
    assert code == 2
    assert_one_sentence(stderr, f"the class folder {scans}/brain_tumor_dataset", f"move it out of {scans}")


@pytest.mark.parametrize("name", ["train", "baselines", "evaluate", "promote"])
def test_classes_and_counts_are_shown_before_ray_starts(
    name: str, job: Job, tiny_model: Model, scans: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", no_ray)
    monkeypatch.setenv("RAY_ADDRESS", "local")  # few scans are scored without Ray otherwise
    code, stderr = job(name, *on_labelled(name, scans, tiny_model, tmp_path))
    assert code == 1
    assert stderr.index(f"6 labelled scans of 2 classes in {scans}") < stderr.index("Ray is about to start")
    table = [line.split() for line in stderr.splitlines() if line.startswith("  ")]
    assert table == [["class", "scans"], ["glioma", "3"], ["notumor", "3"]]
    assert "warning: very few scans of glioma (3), notumor (3)" in stderr


def test_flags_without_effect_are_reported(
    job: Job, scans: str, tmp_path: Path, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", no_ray)
    places = as_flags(data=scans, output=tmp_path / "m")
    code, stderr = job("train", *places, "--backbone", "cnn", "--paper-protocol", "--validation-fraction", "0.3")
    assert code == 2
    assert_one_sentence(stderr, "--validation-fraction is not used with --paper-protocol")
    _, stderr = job("baselines", *places, "--models", "svm", "--deep-epochs", "9")
    assert "warning: not used by any of --models: --deep-epochs\n" in stderr
    Path(scans).rename(tmp_path / "train")
    shutil.copytree(tmp_path / "train", tmp_path / "set" / "train")
    shutil.copytree(tmp_path / "train", tmp_path / "set" / "valid")
    flags = as_flags(data=tmp_path / "set", output=tmp_path / "m", backbone="cnn", start_from=tiny_model.uri)
    _, stderr = job("train", *flags, "--backbone-weights", "none", "--validation-fraction", "0.3")
    assert "warning: --validation-fraction is not used" in stderr
    assert "warning: --backbone-weights is not used: --start-from brings all weights" in stderr
    _, stderr = job("train", *flags)
    assert "not used" not in stderr


def test_a_missing_imagenet_weights_file_is_reported_first(job: Job, scans: str, tmp_path: Path) -> None:
    code, stderr = job("train", *as_flags(data=scans, output=tmp_path / "m", backbone_weights=tmp_path / "w.h5"))
    assert code == 2
    assert_one_sentence(stderr, "w.h5")


@pytest.mark.parametrize(
    ("name", "flags"),
    [("train", ["--backbone-weights"]), ("baselines", ["--models", "frozen_svm", "--xception-weights"])],
)
def test_a_weights_file_of_another_kind_is_refused_before_anything_starts(
    job: Job, scans: str, tmp_path: Path, name: str, flags: list[str]
) -> None:
    (tmp_path / "w.h5").write_bytes(b"<html>403 Forbidden</html>")
    code, stderr = job(name, "--data", scans, "--output", str(tmp_path / "m"), *flags, str(tmp_path / "w.h5"))
    assert code == 2
    assert_one_sentence(stderr, "of xception without its top", "got a web page", "w.h5")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("flag", ["--output", "--storage"])
def test_a_training_tries_its_outputs_before_it_starts(
    job: Job, scans: str, tmp_path: Path, bucket: str, flag: str
) -> None:
    (tmp_path / "file").write_text("mine")
    places = {"--output": str(tmp_path / "m"), "--storage": str(tmp_path / "s")}
    for place, words in (
        (str(tmp_path / "file"), ("expected a folder at", str(tmp_path / "file"))),
        (f"{bucket}-is-not-there/x", ("no bucket", "check the name")),
    ):
        flags = [word for pair in (places | {flag: place}).items() for word in pair]
        code, stderr = job("train", "--data", scans, "--backbone", "cnn", *flags)
        assert code == 2
        assert_one_sentence(stderr, *words)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_evaluation_tries_its_output_before_it_starts(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    code, stderr = job("evaluate", *as_flags(model=tiny_model.uri, data=scans, output=tmp_path / "file"))
    assert code == 2
    assert_one_sentence(stderr, "expected a folder at", str(tmp_path / "file"))


def test_help_is_complete_and_loads_neither_tensorflow_nor_anything_that_writes_to_stderr() -> None:
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
    assert done.stderr == "", "something that writes to stderr was loaded"


def test_a_night_tries_its_report_folder_before_it_starts(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    flags = as_flags(model=tiny_model.uri, input=scans, output=tmp_path / "out", report=tmp_path / "file")
    code, stderr = job("nightly", *flags)
    assert code == 2
    assert_one_sentence(stderr, str(tmp_path / "file"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001", "somewhere"])
def test_an_impossible_address_of_a_cluster_is_refused(
    job: Job, tiny_model: Model, scans: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    code, stderr = job("score", *as_flags(model=tiny_model.uri, input=scans, output=tmp_path / "out"))
    assert code == 2
    expected = f"RAY_ADDRESS={address}" if "//" in address else "expected RAY_ADDRESS=HOST:PORT"
    assert_one_sentence(stderr, expected, "unset RAY_ADDRESS")


@pytest.mark.parametrize("name", ["train", "evaluate", "score", "nightly", "promote", "compact", "baselines"])
def test_a_reader_that_closes_after_one_line_does_not_change_the_exit_code(name: str) -> None:
    command = f"{sys.executable} jobs/{name}.py --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_a_comparison_without_internet_names_its_flag_for_weights_in_one_sentence(scans: str, tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    flags = as_flags(data=scans, output=tmp_path / "out", models="frozen_logistic", image_side=71)
    command = [sys.executable, str(ROOT / "jobs/baselines.py"), *flags]
    environment = os.environ | nowhere | {"KERAS_HOME": str(tmp_path / "keras")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 2, done.stderr
    assert_one_sentence(done.stderr, "could not be downloaded", "--xception-weights FILE")
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not any(word in done.stderr for word in ("Traceback", "ray::", "  File ")), "no traceback of another process"
