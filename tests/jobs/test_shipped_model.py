"""The demo: the shipped model on the sample scans."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mribatch.reports import figures
from tests.conftest import ROOT, as_flags


def evaluated(output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    flags = as_flags(model="models/brain-mri-v2", data="samples", output=output)
    command = [sys.executable, "jobs/evaluate.py", *flags, *more]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


Demo = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run `make demo` into a temporary folder."""
    output = tmp_path_factory.mktemp("demo")
    return output, evaluated(output)


def test_the_demo_classifies_all_17_samples_correctly_and_names_its_files(demo: Demo) -> None:
    output, done = demo
    assert done.returncode == 0, done.stderr
    assert "WRONG" not in done.stdout
    assert "accuracy 100.00% (95% interval 81.57% to 100.00%) on 17 scans" in done.stdout
    assert str(output / "report.html") in done.stdout
    assert "Traceback" not in done.stderr
    assert len(pd.read_parquet(output / "predictions")) == 17
    assert json.loads((output / "metrics.json").read_text())["scans"] == 17
    page = (output / "report.html").read_text()
    assert "not a medical device" in page
    names = {"confusion_matrix", "precision_recall", "roc", "reliability", "scans", "training_curves"}
    assert {path.stem for path in output.glob("*.png")} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in output.glob("*.png"))
    model = ROOT / "models/brain-mri-v2"
    kept = json.loads((model / "model.json").read_text())["training"]["epoch"]
    curves = figures.training_curves(pq.read_table(model / "history.parquet"), kept)
    assert (output / "training_curves.png").read_bytes() == curves, f"epoch {kept} was kept"


def test_an_evaluation_says_what_it_left_out_and_reports_the_mean_confidence(demo: Demo) -> None:
    output, done = demo
    assert re.search(r"balanced accuracy 100\.00% · mean confidence 97\.", done.stdout)
    sentence = "this evaluation left out neither copies nor near copies"
    assert f"copies of training scans: {sentence}" in done.stdout
    assert sentence in (output / "report.html").read_text()


def test_copies_of_training_scans_are_left_out_of_an_evaluation(demo: Demo) -> None:
    output, _ = demo
    known = len(list((ROOT / "samples/glioma").iterdir()))
    done = evaluated(output, "--apart-from", "samples/glioma")
    assert done.returncode == 0, done.stderr
    assert f"{known} of the 17 evaluated scans are copies of them and were left out" in done.stdout
    assert "near copies were not" in done.stdout
    assert "no scans of glioma: balanced accuracy is over the other classes" in done.stdout
    numbers = json.loads((output / "metrics.json").read_text())
    assert (numbers["scans"], numbers["left_out"]) == (17 - known, known)


def test_an_evaluation_that_leaves_out_every_scan_is_refused(demo: Demo) -> None:
    output, _ = demo
    done = evaluated(output, "--apart-from", "samples")
    assert done.returncode == 2
    assert "all 17 scans" in done.stderr
