"""`promote`: a better model becomes the current one, a worse one only by force, and a record keeps the result."""

import dataclasses
import json
import logging
import re
import shutil
from pathlib import Path

import pytest

from mribatch.commands.promote import Promotion, promote
from mribatch.errors import ModelError, MribatchError
from mribatch.models import directory
from mribatch.settings.evaluate import PromoteConfig
from mribatch.sources.listing import list_scans
from tests.conftest import make_model, write_scans

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Make two random networks with the same labels and one with others, and labelled scans."""
    (tmp_path / "models").mkdir()
    for name, seed in {"one": 1, "two": 3}.items():
        make_model(tmp_path / "models" / name, seed=seed)
    make_model(tmp_path / "models" / "stranger", labels=("cat", "dog"))
    write_scans(tmp_path / "labelled", {"glioma": 20, "notumor": 12})
    return tmp_path / "models"


def try_to_promote(models: Path, candidate: str, *, force: bool = False) -> Promotion:
    data, output = str(models.parent / "labelled"), str(models.parent / "promotion")
    return promote(PromoteConfig(models=str(models), candidate=candidate, data=data, output=output, force=force))


def records(models: Path) -> list[dict[str, object]]:
    files = (models / "_promotions").iterdir()
    return sorted((json.loads(path.read_text()) for path in files), key=lambda record: str(record["at"]))


def test_the_better_model_is_promoted_and_the_worse_one_only_by_force(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = try_to_promote(models, "one")
    assert (first.exit_code, first.current, first.duel) == (0, None, None)
    assert first.table() == "there was no current model to compare it with\none is the current model now"
    assert (models / "CURRENT").read_text() == "one\n"
    caplog.clear()
    with caplog.at_level(logging.INFO, "mribatch"):
        second = try_to_promote(models, "two")
    assert caplog.text.count("32 labelled scans of 2 classes") == 1, "the labels are read once for both models"
    duel = second.duel
    assert duel is not None
    assert duel.scans == 32
    assert duel.candidate_right - duel.current_right == duel.only_candidate_right - duel.only_current_right
    assert second.promoted == (duel.candidate_right >= duel.current_right)
    better, worse = ("two", "one") if second.promoted else ("one", "two")
    assert duel.candidate_right != duel.current_right, "the two networks must differ, or this test shows nothing"
    assert directory.load_model(str(models)).uri.endswith(better)
    refused = try_to_promote(models, worse)
    assert (refused.exit_code, refused.promoted) == (1, False)
    assert "refused" in refused.table()
    assert (models / "CURRENT").read_text() == f"{better}\n"
    forced = try_to_promote(models, worse, force=True)
    assert (forced.exit_code, forced.forced) == (0, True)
    assert (models / "CURRENT").read_text() == f"{worse}\n"
    kept = records(models)
    assert [record["promoted"] for record in kept] == [True, second.promoted, False, True]
    assert kept[-1]["forced"] is True
    assert "is the current model already" in try_to_promote(models, worse).table()
    listed = list_scans([str(models.parent)], ["models/*.weights.h5"])["scan_uri"].to_pylist()
    assert listed == sorted(map(str, (models.parent / "labelled").rglob("*.*"))), (
        "files of models and evaluations are not scans"
    )


def test_a_model_with_other_labels_and_a_missing_model_are_refused(models: Path) -> None:
    (models / "CURRENT").write_text("one\n")
    with pytest.raises(ModelError, match="cat, dog"):
        try_to_promote(models, "stranger")
    with pytest.raises(ModelError, match=r"no model directory three in .* one, stranger, two: correct --candidate"):
        try_to_promote(models, "three")
    shutil.rmtree(models / "one")
    with pytest.raises(ModelError, match=r"CURRENT .* 'one'"):
        try_to_promote(models, "two")
    assert not (models / "_promotions").exists()


def test_every_refusal_of_promote_names_only_its_own_flags(models: Path) -> None:
    own = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(PromoteConfig)}

    def refused(candidate: str, expected: str, folder: Path = models) -> None:
        with pytest.raises(MribatchError, match=expected) as caught:
            try_to_promote(folder, candidate)
        assert set(re.findall(r"--[a-z-]+", str(caught.value))) <= own

    weights = models / "two" / "weights.h5"
    intact = weights.read_bytes()
    weights.write_bytes(intact[:-1])
    refused("two", "expected SHA-256")
    weights.unlink()
    refused("two", r"weights\.h5 is missing")
    weights.write_bytes(intact)
    (models / "empty").mkdir()
    refused("empty", r"no model at|no model\.json in")
    refused("two", "which has none: correct --candidate or --models", folder=models / "nowhere")
    (models / "CURRENT").write_text("one\n")
    refused("stranger", "cat, dog.*correct --candidate")
    for number in range(20):
        (models.parent / "labelled" / "glioma" / f"{number}.jpg").write_bytes(b"no scan")
    refused("two", r"failed more scans .* than --max-reject-rate 0\.05 allows, so nothing was promoted")
    assert not (models / "_promotions").exists()
