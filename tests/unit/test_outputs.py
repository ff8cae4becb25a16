"""Our own outputs are recognized by their marks: no file of a command is a scan, and no scan is taken for an output."""

from pathlib import Path

import pytest

from mribatch.errors import InputError
from mribatch.sources.listing import list_scans
from mribatch.sources.outputs import OwnOutputs

RUN = "20250101T000000Z-abc123"
PREDICTIONS = (
    "_runs/0123456789ab.lock-1",
    f"_runs/{RUN}.json",
    "_runs/seen",
    f"_nights/{RUN}/nightly.json",
    f"_nights/{RUN}/nightly.html",
    f"model=0123456789ab/part-{RUN}-0f0f-8.parquet",
)
EVALUATION = (
    *(f"predictions/{name}" for name in PREDICTIONS),
    "metrics.json",
    "classification_report.txt",
    "confusion_matrix.png",
    "roc.png",
    "precision_recall.png",
    "reliability.png",
    "scans.png",
    "training_curves.png",
    "report.html",
    "patients.json",
    "patients.html",
)
MODEL = (
    "model.json",
    "weights.h5",
    "MODEL_CARD.md",
    "history.parquet",
    "curves.png",
    "training_scans.parquet",
    "referral.npz",
)
CLASSICAL = ("model.json", "classifier.skops", "backbone.h5", "MODEL_CARD.md")
CHECKPOINTS = (
    "run/checkpoint_manager_snapshot.json",
    *(
        f"run/checkpoint_2025-01-01_00-00-00.000000/{name}"
        for name in ("state.json", "best.weights.h5", "optimizer.npz")
    ),
)
COMPARISON = (
    "_runs/comparison.lock-3",
    "answers/svm-1.parquet",
    "work/split-1.parquet",
    *(f"models/svm/{name}" for name in CLASSICAL),
    *(f"work/cnn-2/{name}" for name in MODEL),
    *(f"work/{name}" for name in CHECKPOINTS),
    *(f"work/predictions/{name}" for name in PREDICTIONS),
    "accuracy.png",
    "confusion_svm.png",
    "comparison.parquet",
    "comparison.md",
    "comparison.html",
)
MODELS = (*(f"v1/{name}" for name in MODEL), f"_promotions/{RUN}.json", "CURRENT")
REPORT = ("nightly.json", "nightly.html")
EXPLANATIONS = ("explanations.html", "explanations.parquet", "overlay-0001.png")
AUDIT = ("audit.json", "audit.html", "pairs.parquet", "clusters.parquet", "suspects.parquet")
ALL = {
    "predictions": PREDICTIONS,
    "evaluation": EVALUATION,
    "model": MODEL,
    "classical": CLASSICAL,
    "_training": CHECKPOINTS,
    "comparison": COMPARISON,
    "models": MODELS,
    "report": REPORT,
    "explanations": EXPLANATIONS,
    "audit": AUDIT,
    "inspection": ("inspection.parquet",),
}
SCANS = ("a.png", "glioma/b.jpg", "glioma/scans.png", "predictions.png", "x/model.png", "Model=1/c.jpg")


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def scans_in(root: Path, *inputs: Path) -> list[str]:
    uris = list_scans([str(uri) for uri in inputs or (root,)])["scan_uri"].to_pylist()
    return [uri.removeprefix(f"{root}/") for uri in uris]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("place", ["", "out", "glioma/deep/out"])
def test_an_output_of_any_kind_is_passed_over_wherever_it_lies(tmp_path: Path, kind: str, place: str) -> None:
    fill(tmp_path, *SCANS)
    fill(tmp_path / place, *ALL[kind])
    assert set(scans_in(tmp_path)) == set(SCANS)


def test_an_output_reached_through_a_link_is_passed_over_too(tmp_path: Path) -> None:
    fill(tmp_path / "scans", *SCANS)
    fill(tmp_path / "elsewhere", *EVALUATION)
    (tmp_path / "scans" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "other").symlink_to(tmp_path / "scans")
    assert len(scans_in(tmp_path, tmp_path / "scans")) == len(SCANS)
    assert len(scans_in(tmp_path, tmp_path / "other", tmp_path / "elsewhere" / ".." / "scans")) == 2 * len(SCANS)


def test_an_output_that_holds_the_input_hides_no_scan(tmp_path: Path) -> None:
    fill(tmp_path, *(f"samples/{name}" for name in SCANS), *PREDICTIONS, *EVALUATION)
    assert set(scans_in(tmp_path / "samples")) == set(SCANS)
    assert set(scans_in(tmp_path)) == {f"samples/{name}" for name in SCANS}


def test_what_a_person_put_into_an_output_is_still_a_scan(tmp_path: Path) -> None:
    fill(tmp_path, *EVALUATION, "mine.jpg", "predictions/mine.jpg", "predictions/deep/mine.jpg")
    assert scans_in(tmp_path) == ["mine.jpg", "predictions/deep/mine.jpg", "predictions/mine.jpg"]


@pytest.mark.parametrize(
    "names",
    [
        ("scans.png", "roc.png", "curves.png", "accuracy.png", "confusion_matrix.png"),
        ("report.html",),
        ("audit.html", "clusters.parquet"),
        ("metrics.json", "scans.png"),
        ("model.json", "curves.png"),
        ("nightly.html",),
        ("CURRENT", "v1/a.png"),
        ("_runs/a.png", "_nights/a.png", "_promotions/a.png"),
        ("checkpoint_1/a.png", "state.json"),
        ("answers/svm-1.parquet", "work/split-1.parquet"),
        ("model=0123456789ab/a.png",),
        ("predictions/a.png", "predictions/part-1.parquet"),
        (f"{RUN}/a.png",),
    ],
)
def test_a_like_name_alone_is_no_mark(tmp_path: Path, names: tuple[str, ...]) -> None:
    fill(tmp_path, *names)
    assert scans_in(tmp_path) == sorted(names)


def test_half_an_output_that_a_killed_run_left_is_known(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    fill(tmp_path / "score", "_runs/0123456789ab.lock-1")
    fill(tmp_path / "evaluation", "predictions/_runs/0123456789ab.lock-1", "metrics.json")
    fill(tmp_path / "model", "weights.h5", "MODEL_CARD.md")
    fill(tmp_path / "comparison", "_runs/comparison.lock-1", "answers/svm-1.parquet", "comparison.parquet")
    fill(tmp_path / "night", f"_nights/{RUN}/nightly.json")
    assert scans_in(tmp_path) == ["a.png"]


def test_on_s3_the_marks_are_the_same_and_the_count_is_of_whole_outputs() -> None:
    paths = [f"s3://bucket/{kind}/{name}" for kind, names in ALL.items() for name in names]
    outputs = OwnOutputs([*paths, *(f"s3://bucket/{name}" for name in SCANS)])
    assert all(outputs.hold(path) for path in paths)
    assert not any(outputs.hold(f"s3://bucket/{name}") for name in SCANS)
    assert outputs.folders == len(ALL)
    assert OwnOutputs([]).folders == 0


def test_what_was_passed_over_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, "a.png", *(f"one/{name}" for name in PREDICTIONS), *(f"two/{name}" for name in EVALUATION))
    with caplog.at_level("INFO", "mribatch"):
        assert scans_in(tmp_path) == ["a.png"]
    count = len(PREDICTIONS) + len(EVALUATION)
    assert caplog.messages[1:] == [f"ignored 2 folders of mribatch's own output ({count} files)"]


def test_an_input_of_outputs_only_says_so(tmp_path: Path) -> None:
    fill(tmp_path, *PREDICTIONS)
    with pytest.raises(InputError, match="at least one file that is not mribatch's own output"):
        list_scans([str(tmp_path)])
