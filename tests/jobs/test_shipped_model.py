"""What a new user sees first: the shipped model on the sample scans."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(
    not (ROOT / "models/brain-mri-v1/model.json").exists(),
    reason="models/brain-mri-v1 is not shipped yet: still training",
)


def test_the_demo_gets_all_17_samples_right_and_says_where_everything_is(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "jobs/evaluate.py",
        "--model",
        "models/brain-mri-v1",
        "--data",
        "samples",
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "WRONG" not in done.stdout
    assert "accuracy 1.0000" in done.stdout
    assert str(tmp_path / "report.html") in done.stdout
    assert "Traceback" not in done.stderr
    assert len(pd.read_parquet(tmp_path / "predictions")) == 17
    assert json.loads((tmp_path / "metrics.json").read_text())["scans"] == 17
    page = (tmp_path / "report.html").read_text()
    assert "not a medical device" in page
    names = {"confusion_matrix", "roc", "reliability", "scans", "training_curves"}
    assert {path.stem for path in tmp_path.glob("*.png")} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))
