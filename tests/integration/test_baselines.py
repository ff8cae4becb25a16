"""`compare` on a real Ray session: it learns, leaks no copies, resumes, and its models score scans."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mribatch.commands.compare import compare
from mribatch.commands.score import score
from mribatch.errors import InputError
from mribatch.settings.compare import BaselinesConfig
from mribatch.settings.score import ScoreConfig
from mribatch.sources.listing import list_scans
from mribatch.stores import uris

pytestmark = pytest.mark.usefixtures("ray_session")

ScanFolder = Callable[..., list[str]]
QUICK = ("knn", "gaussian_nb")
CLASSICAL = (*QUICK, "frozen_logistic")


def settings(data: Path | str, output: Path | str, **changes: Any) -> BaselinesConfig:
    quick: dict[str, Any] = {"image_side": 72, "repeats": 2, "models": QUICK, "xception_weights": "none"}
    return BaselinesConfig(data=str(data), output=str(output), **{**quick, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, scan_folder: ScanFolder) -> Path:
    """Write 60 scans of three classes, and copies of 15 of them."""
    root = tmp_path_factory.mktemp("compared") / "data"
    scan_folder(root, {"glioma": 24, "notumor": 24, "pituitary": 12})
    for number, path in enumerate(sorted(root.rglob("*_*.*"))[::4]):
        shutil.copy(path, path.with_stem(f"copy{number}"))
    return root


@pytest.fixture(scope="module")
def comparison(ray_session: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """Return the output of a comparison of the cnn with classical models, on pixels and on frozen features."""
    output, models = tmp_path_factory.mktemp("compared") / "out", (*CLASSICAL, "cnn")
    compare(settings(data, output, models=models, classes=("notumor", "glioma"), deep_epochs=1, batch_size=8))
    return output


def test_every_model_has_a_row_for_each_split_and_no_split_separates_copies(comparison: Path) -> None:
    rows = pq.read_table(comparison / "comparison.parquet").to_pylist()
    assert {(row["model"], row["split"]) for row in rows} == {
        *((name, split) for name in CLASSICAL for split in (1, 2)),
        ("cnn", 1),
    }
    assert {row["test_scans_with_copy"] for row in rows} == {0}
    trained_on = {row["model"]: row["train_scans"] for row in rows if row["split"] == 1}
    held_out = next(row["test_scans"] for row in rows if row["split"] == 1)
    assert trained_on["knn"] == 24 + 24 + 12 - held_out
    assert trained_on["cnn"] < trained_on["knn"], "the cnn sets validation scans aside"
    assert all(row["tp"] + row["fp"] + row["tn"] + row["fn"] == row["test_scans"] for row in rows)
    assert all(row["scans_per_s"] > 0 and row["fit_s"] > 0 and row["size_bytes"] > 1000 for row in rows)


def test_no_listing_takes_the_files_of_a_comparison_for_scans(comparison: Path) -> None:
    with pytest.raises(InputError, match="at least one file that is not mribatch's own output"):
        list_scans([str(comparison)])


def test_a_comparison_writes_its_page_its_tables_and_its_figures(comparison: Path) -> None:
    files = {path.name for path in comparison.iterdir() if path.is_file()}
    assert {"comparison.html", "comparison.md", "comparison.parquet", "accuracy.png", "confusion_knn.png"} <= files
    assert "k-nearest neighbours" in (comparison / "comparison.md").read_text()
    (record,) = (comparison / "work" / "predictions" / "_runs").glob("*Z-*.json")
    assert json.loads(record.read_text())["config"]["identifiers"] == "none", "no key file is made for a comparison"


@pytest.mark.parametrize("name", ["knn", "frozen_logistic"])
def test_a_fitted_model_scores_scans_as_in_the_comparison(name: str, comparison: Path, data: Path) -> None:
    output, model = comparison.parent / f"scored-{name}", comparison / "models" / name
    scored = score(ScoreConfig(model=str(model), input=(str(data / "glioma"),), output=str(output)))
    assert scored.exit_code == 0
    now = {row["scan_uri"]: row["p_glioma"] for row in pq.read_table(output).to_pylist()}
    then = pq.read_table(comparison / "answers" / f"{name}-1.parquet").to_pylist()
    compared = [(now[row["scan_uri"]], row["p_glioma"]) for row in then if row["scan_uri"] in now]
    assert compared
    np.testing.assert_allclose(*zip(*compared, strict=True), atol=2e-3)


def test_a_rerun_fits_only_what_is_missing_and_the_same_seed_gives_the_same_numbers(
    comparison: Path, data: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(comparison, again)
    for lost in (again / "models" / "knn", again / "answers" / "gaussian_nb-2.parquet"):
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    before = {path.name: path.stat().st_mtime_ns for path in (again / "answers").iterdir()}
    compare(settings(data, again, models=QUICK, classes=("notumor", "glioma"), deep_epochs=1, batch_size=8))
    after = {path.name: path.stat().st_mtime_ns for path in (again / "answers").iterdir()}
    fitted = {"knn-1.parquet", "gaussian_nb-2.parquet"}  # of the first split, the model is kept beside its answers
    assert {name for name in after if after[name] != before.get(name)} == fitted
    assert (again / "models" / "knn").exists()
    for name in fitted:
        ours, theirs = (pq.read_table(place / "answers" / name) for place in (again, comparison))
        assert ours.equals(theirs), "they do not depend on the run or on the other models in it"


def test_near_copies_stay_together_and_another_source_is_scored(tmp_path: Path, scan_folder: ScanFolder) -> None:
    """Turn each second scan into a mirrored, brighter copy of another one, with new bytes and pixels."""
    names = scan_folder(tmp_path / "data", {"glioma": 12, "notumor": 12})
    for original, name in zip(names[::2], names[1::2], strict=True):
        picture = Image.open(original).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture.point(lambda level: min(255, round(level * 1.1))).save(Path(name).with_suffix(".png"))
        Path(name).unlink()
    scan_folder(tmp_path / "other", {"glioma": 3, "notumor": 3, "pituitary": 1})
    compared = compare(
        settings(
            *(tmp_path / "data", tmp_path / "out"),
            models=("gaussian_nb",),
            classes=("glioma", "notumor"),
            other_source=str(tmp_path / "other"),
        )
    )
    (contender,) = compared.contenders
    for answers in sorted((tmp_path / "out" / "answers").iterdir()):
        tested = {Path(uri).stem for uri in pq.read_table(answers)["scan_uri"].to_pylist()}
        pairs = {f"{name[:-4]}{int(name[-4:]) // 2 * 2 + offset:04d}" for name in tested for offset in (0, 1)}
        assert tested == pairs, "a scan and its near copy are on one side"
    assert not any(copies.any() for copies in contender.has_copy)
    assert contender.other is not None
    assert len(contender.other.truth) == 6, "the class that is not compared is left out"
    assert "other source" in compared.table()


@pytest.mark.slow
def test_models_trained_on_shuffled_labels_are_right_by_chance(tmp_path: Path, scan_folder: ScanFolder) -> None:
    names = scan_folder(tmp_path / "scans", {"glioma": 100, "notumor": 100})
    labels = np.random.default_rng(3).permutation(["glioma", "notumor"] * 100)
    lines = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    (tmp_path / "shuffled.csv").write_text("\n".join(["uri,label", *lines]))
    compared = compare(settings(tmp_path / "shuffled.csv", tmp_path / "out", models=("svm", "logistic_regression")))
    for model in compared.contenders:
        right = sum(int(split.correct.sum()) for split in model.scores)
        total = sum(len(split.truth) for split in model.scores)
        assert abs(right / total - 0.5) < 0.17, f"{model.name}: 3 standard deviations of 80 coin tosses"


def test_the_paper_protocol_reports_figures_with_and_without_copies_and_works_on_s3(data: Path, bucket: str) -> None:
    for path in (path for path in data.rglob("*.*") if path.parent.name != "pituitary"):
        uris.put(f"{bucket}/data/{path.parent.name}/{path.name}", path.read_bytes())
    compared = compare(settings(f"{bucket}/data", f"{bucket}/out", models=("gaussian_nb",), paper_protocol=True))
    assert compared.report == f"{bucket}/out/comparison.html"
    (contender,) = compared.contenders
    assert any(copies.any() for copies in contender.has_copy)
    published, apart, _ = contender.evidence
    assert published is not None
    assert apart is not None
    assert b"slices are recognized" in uris.read(f"{bucket}/out/comparison.md")


def test_a_class_that_is_too_small_is_refused_in_one_sentence(tmp_path: Path, scan_folder: ScanFolder) -> None:
    scan_folder(tmp_path / "data", {"a": 20, "b": 2})
    with pytest.raises(InputError, match="only one scan to learn from"):
        compare(settings(tmp_path / "data", tmp_path / "out", models=QUICK[:1]))
    for path in (tmp_path / "data" / "b").iterdir():
        path.write_bytes(b"\xff\xd8 no more")
    with pytest.raises(InputError, match=r"no scan of b .* can be read"):
        compare(settings(tmp_path / "data", tmp_path / "out", models=QUICK[:1], max_reject_rate=0.2))


def test_a_missing_class_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no scans of glioblastoma .* it has glioma, notumor, pituitary"):
        compare(settings(data, tmp_path / "out", classes=("glioma", "glioblastoma")))
