"""`evaluate` on a real Ray session: repeated inside the labelled folder, and with scans that cannot be read."""

import logging
from pathlib import Path
from typing import Any

import pytest

from mribatch.commands.evaluate import Evaluated, evaluate
from mribatch.models.format import Model
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.sources.listing import list_scans
from mribatch.stores import uris
from tests.conftest import write_scans

pytestmark = pytest.mark.usefixtures("ray_session")


def test_an_evaluation_inside_the_labelled_folder_can_be_repeated(tiny_model: Model, tmp_path: Path) -> None:
    scans = write_scans(tmp_path, {"glioma": 4, "notumor": 4})

    def run(**changes: Any) -> Evaluated:
        data = changes.pop("data", tmp_path)
        return evaluate(EvaluateConfig(model=tiny_model.uri, data=data, **changes))

    first = run(output=tmp_path / "evaluation")
    assert first.rows["scan_uri"].to_pylist() == scans
    again = run(output=tmp_path / "evaluation")
    assert (again.scored.planned, again.numbers["scans"]) == (0, 8)
    assert run(output=tmp_path).rows["scan_uri"].to_pylist() == scans, "output and input are the same folder"
    assert list_scans([str(tmp_path)])["scan_uri"].to_pylist() == scans
    part = run(output=tmp_path / "part", exclude="*/*_0003.*")
    assert part.numbers["scans"] == 6


def test_the_gallery_leaves_out_a_scan_that_raises_in_decoding(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scans = write_scans(tmp_path / "scans", {"glioma": 3, "notumor": 3})
    config = EvaluateConfig(model=tiny_model.uri, data=tmp_path / "scans", output=tmp_path / "out")  # type: ignore[arg-type]
    evaluate(config)
    real = uris.read_version

    def odd(uri: str, version: str) -> bytes:
        if uri == scans[0]:
            raise OverflowError(uri)
        return real(uri, version)

    monkeypatch.setattr(uris, "read_version", odd)
    with caplog.at_level(logging.WARNING, "mribatch"):
        assert evaluate(config).numbers["scans"] == 6
    (warning,) = (message for message in caplog.messages if "gallery" in message)
    assert "OverflowError in" in warning
    assert scans[0] not in warning
