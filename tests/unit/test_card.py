"""A model's card shows its test results and commands that anybody can run; the shipped model agrees with its card."""

import io
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tyro
from PIL import Image

from mribatch.commands.describe import Evidence, describe
from mribatch.errors import InputError, ModelError, StorageMissing
from mribatch.models import card, directory, recipe
from mribatch.models.format import Model
from mribatch.reports import figures
from mribatch.settings.compare import BaselinesConfig
from mribatch.settings.score import ScoreConfig
from mribatch.settings.train import TrainConfig
from tests.conftest import ROOT

SHIPPED = ROOT / "models" / "brain-mri-v2"

FACTS: dict[str, Any] = {
    "labels": ["glioma", "notumor"],
    "backbone": "cnn",
    "image_side_px": 32,
    "training": {
        "command": "python jobs/train.py --data LABELLED --output OUTPUT --backbone cnn",
        "data": {
            "scans": 9,
            "different_images": 8,
            "rejected": 1,
            "by_label": {"glioma": 4, "notumor": 5},
            "content_sha256": "0" * 64,
            "split": {"protocol": "by content", "train": 7, "validation": 2, "test": 0, "set_aside": 0},
        },
        "kept": "last",
        "epoch": 2,
        "epochs": 2,
        "hours": 0.1,
        "started_from": [],
    },
    "metrics": {"val_loss": 0.1, "val_accuracy": 0.9},
    "libraries": {"mribatch": "0"},
    "created_at": "2025-01-01T00:00:00+00:00",
}


def numbers(digest: str, right: int, scans: int) -> dict[str, Any]:
    """Return the part of metrics.json that a card needs; all scans are gliomas."""
    return {
        "model_digest": digest,
        "scans": scans,
        "accuracy": right / scans,
        "accuracy_95": [0.2, 0.4],
        "balanced_accuracy": right / scans,
        "mean_confidence": 0.95,
        "per_class": {"glioma": {"recall": right / scans, "support": scans}, "notumor": {"recall": 0.0, "support": 0}},
    }


# Test results


def test_a_card_without_evidence_says_so_before_anything_else() -> None:
    text = card.model_card(FACTS)
    assert text.count("| no evidence |") == len(card.RELATIONS) == 3
    assert text.index("There is no evidence from another source") < text.index("Classifies one brain-MRI image")
    validation = text[text.index("## Validation") :]
    assert "include near copies of them" in validation
    assert "public collection" not in text, "the data of a model is not known to be public"


def test_evidence_is_shown_with_its_interval_its_confidence_and_its_scans() -> None:
    evidence = {
        "published": card.evidence_of(numbers("", 99, 100), "The testing scans."),
        "other_source": card.evidence_of(numbers("", 30, 100), "Scans of another hospital."),
    }
    text = card.model_card(FACTS | {"evidence": evidence})
    assert "accuracy is 30.00% at a mean confidence of 95.00%" in text[: text.index("99.00%")]
    assert "| another source | 100 | 30 | 30.00% (20.00% to 40.00%) | 30.00% | 95.00% |" in text
    assert text.count("| no evidence |") == 1
    assert "`OTHER.csv`: Scans of another hospital. Correct by class: glioma 30 of 100, notumor no scans." in text
    assert "--data TESTING" in text
    assert "--data APART.csv" not in text


def test_the_card_of_a_classical_model_shows_missing_evidence_too() -> None:
    data = {"scans": 9, "different_images": 8, "train": 7, "test": 2, "split": "by content"}
    training = FACTS["training"] | {"chosen": {}, "data": data}
    text = card.classical_card("SVM", FACTS | {"head": {"features": "pixels"}, "training": training})
    assert text.count("| no evidence |") == 3
    assert "patient data" in text


# Commands that others can run


def test_a_portable_command_has_no_local_paths() -> None:
    config = TrainConfig(
        data="/mnt/hospital/scans",
        groups="/mnt/audit/clusters.parquet",
        output="../keep/v3",
        backbone_weights="/opt/w.h5",
        epochs=3,
        epoch_sides=(128, 160),
        storage="/scratch",
        run_name="mine",
        paper_protocol=True,
    )
    command = recipe.portable(config.command("jobs/train.py"))
    assert not any(place in command for place in ("/mnt", "/opt", "/scratch", "..", "mine"))
    parsed = tyro.cli(TrainConfig, args=shlex.split(command)[2:])
    assert (parsed.data, parsed.output, parsed.backbone_weights) == ("LABELLED", "OUTPUT", "WEIGHTS")
    assert (parsed.epochs, parsed.epoch_sides, parsed.paper_protocol) == (3, (128, 160), True)
    assert (parsed.storage, parsed.run_name) == (None, None)
    assert recipe.portable(command) == command
    assert set(recipe.meanings([command])) == {"LABELLED", "CLUSTERS", "OUTPUT", "WEIGHTS"}


@pytest.mark.parametrize(
    ("data", "placeholder"),
    [
        ("a/set", "LABELLED"),
        ("a/Training/", "LABELLED/Training"),
        ("s3://b/m.parquet", "LABELLED.csv"),
        ("x.CSV", "LABELLED.csv"),
    ],
)
def test_labelled_scans_keep_the_part_of_their_path_that_matters(data: str, placeholder: str) -> None:
    assert recipe.portable(f"python jobs/train.py --data {data}") == f"python jobs/train.py --data {placeholder}"


def test_a_portable_comparison_has_no_local_paths_either() -> None:
    config = BaselinesConfig(data="/d", output="/o", xception_weights="/w.h5", resnet50v2_weights="none", seed=3)
    command = recipe.portable(config.command("jobs/baselines.py"))
    assert command == (
        "python jobs/baselines.py --data LABELLED --output OUTPUT --xception-weights XCEPTION_WEIGHTS "
        "--resnet50v2-weights none --seed 3"
    )
    assert set(recipe.meanings([command])) == {"LABELLED", "OUTPUT", "XCEPTION_WEIGHTS"}


def train_command(output: str, start: str | None = None) -> str:
    return TrainConfig(data="d", output=output, start_from=start, backbone="cnn").command("jobs/train.py")


def test_each_training_of_a_chain_starts_from_the_one_before() -> None:
    first, second, third = recipe.chain([train_command("/a"), train_command("/b", "/a"), train_command("/c", "/x/b")])
    assert "--output models/stage-1" in first
    assert "--start-from" not in first
    assert "--output models/stage-2 --backbone cnn --start-from models/stage-1" in second
    assert "--output OUTPUT --backbone cnn --start-from models/stage-2" in third


def test_a_chain_whose_beginning_is_not_recorded_says_so() -> None:
    training = FACTS["training"] | {
        "command": train_command("/b", "/a"),
        "started_from": [{"digest": "0123456789ab", "command": ""}],
    }
    text = card.model_card(FACTS | {"training": training})
    assert "Started from model 0123456789ab (START below), whose training is not recorded." in text
    assert "--start-from START" in text
    assert "stage-1" not in text


# Describing a model again


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Return a copy of the shipped model as an earlier version left it: with local paths and without evidence."""
    shutil.copytree(SHIPPED, tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "model.json").read_text())
    del facts["evidence"]
    facts["training"]["command"] = train_command("../keep/v3", "models/other").replace("cnn", "xception")
    (tmp_path / "model" / "model.json").write_text(json.dumps(facts))
    return directory.load_model(str(tmp_path / "model"))


def evaluation(folder: Path, digest: str, right: int) -> Evidence:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(numbers(digest, right, 100)))
    return Evidence(str(folder), f"{folder.name}.")


def test_one_evaluation_gives_evidence_of_each_set_that_it_measured(model: Model, tmp_path: Path) -> None:
    sets = {
        "published": card.evidence_of(numbers("", 99, 100), "all"),
        "groups_apart": card.evidence_of(numbers("", 19, 20), "some") | {"left_out": 80},
        "other_source": {"not_measured": "pass --other-source"},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(numbers(model.digest, 99, 100) | {"evidence": sets}))
    evaluated = Evidence(str(tmp_path), "Chosen so.")
    stored = describe(model.uri, {"published": evaluated, "groups_apart": evaluated}).facts["evidence"]
    assert (stored["published"]["scans"], stored["groups_apart"]["scans"]) == (100, 20)
    assert stored["groups_apart"] == card.evidence_of(numbers("", 19, 20), "Chosen so.")


def test_a_model_is_described_again_with_evidence_and_keeps_its_digest(model: Model, tmp_path: Path) -> None:
    describe(model.uri, {"published": evaluation(tmp_path / "a", model.digest, 99)})
    described = describe(model.uri, {"other_source": evaluation(tmp_path / "b", model.digest, 31)})
    assert described.digest == model.digest == directory.load_model(model.uri).digest
    assert set(described.facts["evidence"]) == {"published", "other_source"}, "what is not named stays"
    text = (Path(model.uri) / "MODEL_CARD.md").read_text()
    assert text.startswith(f"# Model {model.digest}\n")
    assert "99.00%" in text
    assert "31.00%" in text
    assert "keep" not in (Path(model.uri) / "model.json").read_text().replace('"kept"', "").replace("--keep last", "")


def healthy(folder: Path, digest: str) -> Evidence:
    folder.mkdir()
    by_kind = {
        "anatomical": {"slices": 90, "default": 88, "tumours": 9},
        "secondary_capture": {"slices": 10, "default": 0, "tumours": 10},
    }
    counts = {"model_digest": digest, "by_kind": by_kind, "default": {"slices": 88, "tumours": 8}}
    (folder / "healthy.json").write_text(json.dumps(counts))
    return Evidence(str(folder / "healthy.json"), "Volunteers.")


def test_a_card_says_how_many_slices_of_healthy_people_get_a_tumour_class(model: Model, tmp_path: Path) -> None:
    described = describe(model.uri, healthy=healthy(tmp_path / "a", model.digest))
    describe(model.uri, {"published": evaluation(tmp_path / "b", model.digest, 99)})
    text = (Path(model.uri) / "MODEL_CARD.md").read_text()
    assert "| anatomical | 90 | 88 | 9 | 10.00% (5.35% to 17.92%) |" in text
    assert "| secondary capture | 10 | 0 | 10 | 100.00% (72.25% to 100.00%) |" in text
    assert "| **with `--select all`** | 100 | 88 | 19 | 19.00% " in text
    assert "| **by default** | 88 | 88 | 8 | 9.09% " in text
    assert described.digest == model.digest
    with pytest.raises(ModelError):
        describe(model.uri, healthy=healthy(tmp_path / "c", "0" * 12))


def test_evidence_of_another_model_of_another_kind_or_missing_is_refused(model: Model, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in Path(model.uri).iterdir()}
    for kind, digest, error in (("other_source", "0" * 12, ModelError), ("hearsay", model.digest, InputError)):
        with pytest.raises(error):
            describe(model.uri, {kind: evaluation(tmp_path / kind, digest, 1)})
    with pytest.raises(StorageMissing):
        describe(model.uri, {"published": Evidence(str(tmp_path / "nowhere"), "")})
    assert {path.name: path.read_bytes() for path in Path(model.uri).iterdir()} == before


def test_facts_of_another_model_do_not_replace_those_of_this_one(model: Model) -> None:
    with pytest.raises(ModelError, match="those of another model"):
        directory.redescribe(model, model.facts | {"image_side_px": 96}, "")


# The shipped model


@pytest.fixture(scope="module")
def shipped() -> Model:
    return directory.load_model(str(SHIPPED))


def test_the_shipped_card_and_curves_are_those_of_its_facts_and_history(shipped: Model) -> None:
    text = directory.fill_in(card.model_card(shipped.facts), shipped)
    assert (SHIPPED / "MODEL_CARD.md").read_text() == text
    history = pq.read_table(SHIPPED / "history.parquet")
    drawn = Image.open(io.BytesIO(figures.training_curves(history, shipped.facts["training"]["epoch"])))
    kept = Image.open(SHIPPED / "curves.png")
    assert kept.size == drawn.size
    difference = np.abs(np.asarray(kept.convert("L"), np.int16) - np.asarray(drawn.convert("L"), np.int16))
    assert (difference > 64).mean() < 0.001, "another machine may draw edges differently, but not the ring elsewhere"


def test_the_metrics_and_the_epoch_of_the_shipped_model_are_those_of_its_history(shipped: Model) -> None:
    rows = {row["epoch"]: row for row in pq.read_table(SHIPPED / "history.parquet").to_pylist()}
    kept = rows[shipped.facts["training"]["epoch"]]
    assert shipped.facts["metrics"] == {name: kept[name] for name in shipped.facts["metrics"]}
    assert shipped.facts["training"]["kept"] == "last"
    assert kept["epoch"] == max(rows)


def test_the_shipped_model_names_no_place_that_others_lack(shipped: Model) -> None:
    for name in ("MODEL_CARD.md", "model.json"):
        text = (SHIPPED / name).read_text()
        assert "../" not in text
        assert "/v3" not in text
    commands = re.findall(r"^python jobs/train\.py .*$", (SHIPPED / "MODEL_CARD.md").read_text(), re.MULTILINE)
    stages = [tyro.cli(TrainConfig, args=shlex.split(command)[2:]) for command in commands]
    assert [stage.start_from for stage in stages] == [None, *(stage.output for stage in stages[:-1])]
    assert (stages[0].backbone, stages[-1].image_side) == (shipped.backbone, shipped.image_spec.side_px)


def test_the_first_command_of_the_shipped_card_can_be_run_as_it_stands() -> None:
    command = re.search(r"^mribatch score (.*)$", (SHIPPED / "MODEL_CARD.md").read_text(), re.MULTILINE)
    assert command
    config = tyro.cli(ScoreConfig, args=shlex.split(command[1]))
    assert (ROOT / "models" / config.model).samefile(SHIPPED)
    assert all((ROOT / place).exists() for place in config.input)


def test_the_shipped_card_shows_the_three_figures_before_anything_else(shipped: Model) -> None:
    results = (SHIPPED / "MODEL_CARD.md").read_text().split("\n## ")[1]
    assert results.startswith("Test results\n")
    for key, (description, place) in card.RELATIONS.items():
        result = shipped.facts["evidence"][key]
        row = f"| {description} | {result['scans']} | {result['right']} | {result['right'] / result['scans']:.2%} ("
        assert row in results
        assert f"--data {place} " in results


def test_the_three_figures_of_the_shipped_model_stand_at_the_top_of_the_readme_and_in_the_manual(
    shipped: Model,
) -> None:
    readme, manual = (ROOT / "README.md").read_text(), (ROOT / "docs" / "evaluating.md").read_text()
    top, section = readme[: readme.index("\n## ")], manual[manual.index("## The shipped model") :]
    section = section[: section.index("\n## ", 3)]
    for key in card.RELATIONS:
        result = shipped.facts["evidence"][key]
        share = result["right"] / result["scans"]
        assert f"{share:.1%}" in top, key
        assert re.search(rf"\| {result['scans']} \| {result['right']} \| \**{share:.2%}", section), key


def test_the_best_figure_of_the_shipped_model_is_never_shown_alone(shipped: Model) -> None:
    evidence = {key: shipped.facts["evidence"][key] for key in ("published", "other_source")}
    best, worst = (result["right"] / result["scans"] for result in evidence.values())
    for path in (ROOT / "README.md", SHIPPED / "MODEL_CARD.md", *(ROOT / "docs").glob("*.md")):
        for part in re.split(r"^## ", path.read_text(), flags=re.MULTILINE):
            claims = [line for line in part.splitlines() if re.search("655|[Tt]esting|right on|published", line)]
            if any(f"{best:.2%}" in line or f"{best:.1%}" in line for line in claims):
                assert f"{worst:.2%}" in part or f"{worst:.1%}" in part, part[:60]
