"""`evaluate` on a real Ray session: repeated inside the labelled folder, and with scans that cannot be read."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mribatch.commands.audit import audit
from mribatch.commands.evaluate import Measured, evaluate
from mribatch.errors import InputError
from mribatch.models.format import Model
from mribatch.settings.audit import AuditConfig
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.sources.listing import list_scans
from mribatch.stores import uris
from tests.conftest import write_scans

pytestmark = pytest.mark.usefixtures("ray_session")


def test_an_evaluation_inside_the_labelled_folder_can_be_repeated(tiny_model: Model, tmp_path: Path) -> None:
    scans = write_scans(tmp_path, {"glioma": 4, "notumor": 4})

    def run(**changes: Any) -> Measured:
        data = changes.pop("data", tmp_path)
        return evaluate(EvaluateConfig(model=tiny_model.uri, data=data, **changes))

    first = run(output=tmp_path / "evaluation")
    page, wrong = (
        (tmp_path / "evaluation" / "report.html").read_text(),
        first.numbers["scans"] * (1 - first.numbers["accuracy"]),
    )
    assert page.count('<span class="scan"><img') == round(wrong), "each wrong answer has its picture"
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


def test_scans_with_a_near_copy_among_the_training_scans_are_judged_apart(tiny_model: Model, tmp_path: Path) -> None:
    training = write_scans(tmp_path / "data" / "Training", {"glioma": 4, "notumor": 4})
    for path in map(Path, write_scans(tmp_path / "data" / "Testing", {"glioma": 8, "notumor": 4})):
        if str(path).replace("Testing", "Training") in training:
            Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
                path.with_name(f"mirrored-{path.stem}.png")
            )
            path.unlink()
    write_scans(tmp_path / "other", {"glioma": 2, "notumor": 6})
    settings: dict[str, Any] = {"model": tiny_model.uri, "output": str(tmp_path / "out")}
    beside: dict[str, Any] = {"other_source": str(tmp_path / "other")}
    done = evaluate(EvaluateConfig(data=str(tmp_path / "data"), **settings, **beside))
    published, apart, other = done.numbers["evidence"].values()
    assert (published["scans"], apart["scans"], apart["left_out"]) == (12, 4, 8)
    assert apart["per_class"]["notumor"] == {"scans": 0, "right": 0}
    assert (other["scans"], other["left_out"]) == (2, 6), "near copies of training scans are no other source"
    assert "notumor no evidence" in done.table()
    assert "Three sets of scans" in Path(done.report).read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mribatch.commands.groups.compared", lambda _: pytest.fail("compared again"))
        again = evaluate(EvaluateConfig(data=str(tmp_path / "data"), **settings, **beside))
    assert again.numbers["evidence"] == done.numbers["evidence"]
    audited = audit(AuditConfig(data=str(tmp_path / "data"), output=str(tmp_path / "audit")))
    assert audited.exit_code == 0
    groups = str(tmp_path / "audit" / "clusters.parquet")
    given = evaluate(EvaluateConfig(data=str(tmp_path / "data"), groups=groups, **settings))
    assert given.numbers["evidence"]["groups_apart"]["scans"] == 4
    with pytest.raises(InputError, match=r"--groups .* lacks 2 of the"):
        evaluate(EvaluateConfig(data=str(tmp_path / "data"), groups=groups, **settings, **beside))


def test_patients_are_judged_by_what_their_slices_say_together(tiny_model: Model, tmp_path: Path) -> None:
    scans = write_scans(tmp_path / "scans", {"glioma": 12, "notumor": 12})
    lines = [f"{uri},{Path(uri).parent.name},{Path(uri).parent.name} {n % 12 // 3}" for n, uri in enumerate(scans)]
    (tmp_path / "m.csv").write_text("\n".join(["uri,label,patient_id", *lines]))
    settings: dict[str, Any] = {
        "model": tiny_model.uri,
        "data": str(tmp_path / "m.csv"),
        "output": str(tmp_path / "out"),
    }
    slices = evaluate(EvaluateConfig(**settings))
    done = evaluate(EvaluateConfig(**settings, level="study"))
    assert (slices.scored.planned, done.scored.planned) == (24, 0), "slices are scored once for both levels"
    numbers = json.loads((tmp_path / "out" / "patients.json").read_text())
    assert (numbers["patients"], numbers["slices"], numbers["by_label"]) == (8, 24, {"glioma": 4, "notumor": 4})
    finding = numbers["findings"]["suspicious"]
    assert finding["chosen"] in finding["statistics"]
    assert finding["statistics"]["mean_suspicion"]["sensitivity"]["of"] == 4
    assert set(finding["not_measured_statistics"]) >= {"longest_run"}, "pictures without headers have no positions"
    for text in (done.table(), Path(done.report).read_text()):
        assert "would choose" in text
        assert "glioma 0" not in text, "a patient's name"
    assert list_scans([str(tmp_path)])["scan_uri"].to_pylist() == sorted([str(tmp_path / "m.csv"), *scans])
