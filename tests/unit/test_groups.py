"""No split separates near copies or patients, a split that leaks is refused, and a model is judged on three sets of scans."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mribatch.cluster.thumbnails import Thumbnails
from mribatch.commands.evaluate_evidence import Known, evidence, known_scans
from mribatch.commands.evaluated import evidence_lines
from mribatch.commands.groups import clusters_of, with_clusters
from mribatch.commands.train_scans import split_of
from mribatch.errors import InputError, ModelError
from mribatch.models import card, trained_on
from mribatch.models.format import Model
from mribatch.reports.evaluation import Evaluation, evaluation_page
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.train import TrainConfig
from mribatch.sources import clusters
from mribatch.training import splits
from tests.pictures import ALTERATIONS, head, thumbnail
from tests.unit.test_page import NUMBERS

PATIENTS = 28
SEEDS = range(25)
WAYS = ("mirrored", "20% brighter", "20% darker", "upside down")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def decoded(rows: Sequence[dict[str, Any]], pictures: Sequence[Any]) -> Thumbnails:
    """Return made scans as if they had been read: their names are their contents."""
    columns = ("scan_uri", "label", "split", "patient_id")
    table = pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in columns})
    for name in ("content_sha256", "pixels_sha256"):
        table = table.append_column(name, pa.array([digest(row["scan_uri"]) for row in rows]))
    return Thumbnails(scans=table, pictures=np.stack(pictures), features=None, unreadable=table.slice(0, 0))


@pytest.fixture(scope="module")
def planted() -> Thumbnails:
    """Scans of 28 heads in two classes; a changed copy of each second one; four heads each of three patients."""
    rows: list[dict[str, Any]] = []
    pictures = []
    for number in range(PATIENTS):
        label, patient = ("glioma", "notumor")[number // 2 % 2], f"p{number // 4}" if number < 12 else None
        rows.append({"scan_uri": f"{number}.png", "label": label, "patient_id": patient})
        pictures.append(thumbnail(head(number)))
        if number % 2:
            rows.append({"scan_uri": f"{number}-copy.png", "label": label})
            pictures.append(thumbnail(ALTERATIONS[WAYS[number // 2 % len(WAYS)]](head(number))))
    return decoded(rows, pictures)


@pytest.fixture(scope="module")
def grouped(planted: Thumbnails, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    kept = str(tmp_path_factory.mktemp("kept") / clusters.FILE)
    return with_clusters(planted.scans, clusters_of(planted.scans["content_sha256"].to_pylist(), kept, lambda: planted))


def heads_and_patients(table: pa.Table, rows: Sequence[int]) -> set[str]:
    """Return which heads, by name, and which patients are among some scans."""
    chosen = table.take(pa.array(rows, pa.int64()))
    heads = {f"head {uri.partition('-')[0].removesuffix('.png')}" for uri in chosen["scan_uri"].to_pylist()}
    return heads | set(chosen["patient_id"].drop_null().to_pylist())


def test_no_near_copy_and_no_patient_is_on_both_sides_of_a_split_for_any_seed(grouped: pa.Table) -> None:
    drawn = set()
    for seed in SEEDS:
        split = splits.by_content(grouped, validation_fraction=0.25, seed=seed)
        sides = splits.holdout(grouped, test_fraction=0.25, seed=seed)
        for one, other in ((split.train, split.validation), sides):
            assert sorted([*one, *other]) == list(range(grouped.num_rows))
            assert not heads_and_patients(grouped, one) & heads_and_patients(grouped, other)
            assert {grouped["label"][row].as_py() for row in other} == {"glioma", "notumor"}
        assert split == splits.by_content(grouped, validation_fraction=0.25, seed=seed)
        drawn.add(tuple(split.validation))
    assert len(drawn) > len(SEEDS) / 2, "the seed matters"


def test_without_clusters_the_same_copies_are_on_both_sides(grouped: pa.Table) -> None:
    plain = grouped.drop_columns(["cluster"])
    split = splits.by_content(plain, validation_fraction=0.25, seed=0)
    assert heads_and_patients(grouped, split.train) & heads_and_patients(grouped, split.validation)


def test_clusters_are_kept_for_the_same_scans_and_only_for_those(planted: Thumbnails, tmp_path: Path) -> None:
    kept = str(tmp_path / clusters.FILE)
    contents = planted.scans["content_sha256"].to_pylist()
    first = clusters_of(contents, kept, lambda: planted)
    assert clusters_of(list(reversed(contents)), kept, lambda: pytest.fail("compared again")) == first
    few = Thumbnails(
        scans=planted.scans.slice(0, 3), pictures=planted.pictures[:3], features=None, unreadable=planted.unreadable
    )
    assert set(clusters_of(contents[:3], kept, lambda: few)) == set(contents[:3])


def test_groups_that_do_not_cover_the_data_are_refused_with_a_scan_that_they_lack(
    planted: Thumbnails, tmp_path: Path
) -> None:
    place = str(tmp_path / "clusters.parquet")
    contents = planted.scans["content_sha256"].to_pylist()
    clusters.keep(place, dict.fromkeys(contents[1:], 0), "data")
    with pytest.raises(
        InputError, match=r"--groups .* lacks 1 of the 42 scans in DATA, the first is 0.png: audit exactly"
    ):
        clusters.check_covered(clusters.read(place), planted.scans, place, "DATA")
    clusters.keep(place, dict.fromkeys(contents, 0), "data")
    clusters.check_covered(clusters.read(place), planted.scans, place, "DATA")


@pytest.mark.parametrize("table", [None, pa.table({"scan_uri": ["a"], "cluster": [1]})])
def test_a_file_that_no_audit_of_this_version_wrote_is_refused(table: pa.Table | None, tmp_path: Path) -> None:
    place = tmp_path / "other.parquet"
    if table is None:
        place.write_bytes(b"no Parquet")
    else:
        pq.write_table(table, place)
    with pytest.raises(InputError, match=r"is not a clusters.parquet with the columns content_sha256 and cluster"):
        clusters.read(str(place))


# Splits that leak


def published(grouped: pa.Table, split: Callable[[str], str]) -> pa.Table:
    """Return the scans with a split that depends on their names, without patients."""
    names = grouped["scan_uri"].to_pylist()
    table = grouped.drop_columns(["split", "patient_id"])
    table = table.append_column("split", pa.array([split(name) for name in names]))
    return table.append_column("patient_id", pa.nulls(len(names), pa.string()))


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(data="DATA", output="OUT", backbone="cnn", **changes)


@pytest.mark.parametrize("side", ["validation", "test"])
def test_a_published_split_that_leaks_is_refused_with_its_count_and_three_pairs(grouped: pa.Table, side: str) -> None:
    leaky = published(grouped, lambda name: side if "copy" in name else "training")
    with pytest.raises(InputError) as refusal:
        split_of(settings(), leaky)
    assert refusal.value.exit_code == 2
    message = str(refusal.value)
    assert f"14 of 14 {side} scans" in message
    assert "1-copy.png and 1.png; 3-copy.png and 3.png; 5-copy.png and 5.png." in message
    assert "7-copy" not in message, "three pairs are enough"
    assert "--allow-leaks" in message
    split = split_of(
        settings(allow_leaks=True), published(grouped, lambda name: side if "copy" in name else "training")
    )
    assert len(split.sides()[side]) == 14
    (leak,) = splits.leaks(splits.content_groups(leaky), split.sides())
    assert (leak.side, len(leak.pairs)) == (side, 14), "what leaks is counted for the card"


def test_a_patient_in_two_splits_is_refused_and_never_named(grouped: pa.Table) -> None:
    rows = grouped.drop_columns(["split"]).append_column(
        "split", pa.array(["test" if number == 1 else "training" for number in range(grouped.num_rows)])
    )
    table = rows.set_column(
        rows.schema.get_field_index("patient_id"),
        "patient_id",
        pa.array(["JOHN^DOE" if number < 2 else None for number in range(rows.num_rows)]),
    )
    with pytest.raises(InputError, match=r"1 of 1 test scans .* such as 1.png and 0.png") as refusal:
        split_of(settings(), table)
    assert "JOHN" not in str(refusal.value)


def test_a_split_that_does_not_leak_stays_as_published(grouped: pa.Table) -> None:
    clean = published(
        grouped, lambda name: "validation" if int(name.partition("-")[0].split(".")[0]) > 20 else "training"
    )
    split = split_of(settings(), clean)
    assert len(split.validation) == 11, "seven heads and four copies"
    assert split.set_aside == 0
    assert splits.leaks(splits.content_groups(clean), split.sides()) == []


def test_the_papers_split_is_not_refused_but_its_leaks_are_counted(grouped: pa.Table) -> None:
    leaky = published(grouped, lambda name: "test" if "copy" in name else "training")
    split = split_of(settings(paper_protocol=True), leaky)
    leaking = splits.leaks(splits.content_groups(leaky), split.sides())
    assert {leak.side: len(leak.pairs) for leak in leaking} == {
        "validation": len(split.validation),
        "test": len(split.test),
    }


def test_the_card_says_whether_the_validation_figures_leak() -> None:
    from tests.unit.test_card import FACTS

    def text(**split: Any) -> str:
        data = FACTS["training"]["data"] | {"split": FACTS["training"]["data"]["split"] | split}
        return " ".join(card.model_card(FACTS | {"training": FACTS["training"] | {"data": data}}).split())

    assert "none of them is a near copy of one" in text(leaks={}, groups=7)
    assert "These figures leak." in text(leaks={"validation": 2}, groups=7)
    assert "2 of the 2 are near copies of them" in text(leaks={"validation": 2}, groups=7)
    assert "include near copies of them" in text(), "a model of an older version"
    assert "5 of the testing scans are near copies" in text(leaks={"test": 5}, test=6, groups=7)


# What a model was trained on


def test_a_model_knows_its_training_scans_by_their_digests_and_notices_damage(tmp_path: Path) -> None:
    entry = trained_on.write(str(tmp_path), {"training": ["b", "a", "a"], "validation": ["c"]})
    model = Model(uri=str(tmp_path), facts={"training": {"scans": entry}})
    assert trained_on.read(model) == {"a", "b", "c"}
    assert trained_on.read(Model(uri=str(tmp_path), facts={"training": {}})) is None
    (tmp_path / trained_on.FILE).write_bytes(b"other")
    with pytest.raises(ModelError, match=r"is not the file that model.json names"):
        trained_on.read(model)
    (tmp_path / trained_on.FILE).unlink()
    with pytest.raises(ModelError, match="is missing: copy the complete model directory again"):
        trained_on.read(model)


# Three sets of scans


MODEL = Model(uri="model", facts={"labels": ["glioma", "notumor", "pituitary"]})


def scored(*rows: tuple[str, str, str, str | None]) -> pa.Table:
    """Return scored rows from tuples of name, label, predicted class and patient."""
    columns: dict[str, Any] = {
        "scan_uri": [name for name, *_ in rows],
        "scan_version": ["1" for _ in rows],
        "content_sha256": [digest(name) for name, *_ in rows],
        "label": [label for _, label, *_ in rows],
        "patient_id": pa.array([patient for *_, patient in rows], pa.string()),
    }
    for label in MODEL.labels:
        columns[f"p_{label}"] = pa.array(
            [0.8 if predicted == label else 0.1 for _, _, predicted, _ in rows], pa.float32()
        )
    return pa.table(columns)


def known(*names: str, patients: Sequence[str | None] = (), cluster: dict[str, int]) -> Known:
    scans = pa.table(
        {
            "scan_uri": list(names),
            "scan_version": ["1" for _ in names],
            "patient_id": pa.array([*patients, *[None] * (len(names) - len(patients))], pa.string()),
            "content_sha256": [digest(name) for name in names],
        }
    )
    return Known(source="TRAINING", scans=scans, clusters={digest(name): number for name, number in cluster.items()})


ROWS = scored(
    ("copy", "glioma", "glioma", None),
    ("far", "glioma", "notumor", None),
    ("near", "notumor", "notumor", None),
    ("same patient", "notumor", "notumor", "p1"),
    ("far, too", "glioma", "glioma", "p2"),
)
KNOWN = known(
    *("copy", "kin", "other scan"),
    patients=[None, None, "p1"],
    cluster={
        "copy": 0,
        "kin": 1,
        "near": 1,
        "other scan": 2,
        "same patient": 3,
        "far": 4,
        "far, too": 5,
        "there": 6,
        "kin 2": 0,
    },
)


def config(tmp_path: Path, **changes: Any) -> EvaluateConfig:
    return EvaluateConfig(model="model", data="DATA", output=str(tmp_path), **changes)


def test_an_evaluation_has_three_lines_and_a_class_without_scans_has_no_evidence(tmp_path: Path) -> None:
    other = scored(("there", "notumor", "glioma", None), ("kin 2", "glioma", "glioma", None))
    results = evidence(config(tmp_path, groups="g", other_source="OTHER"), MODEL, ROWS, other, KNOWN)
    published, apart, elsewhere = results.values()
    assert (published["scans"], published["right"]) == (5, 4)
    assert apart["per_class"] == {
        "glioma": {"scans": 2, "right": 1},
        "notumor": {"scans": 0, "right": 0},
        "pituitary": {"scans": 0, "right": 0},
    }
    assert apart["left_out"] == 3, "a byte copy, a near copy and a scan of a known patient"
    assert (elsewhere["scans"], elsewhere["right"], elsewhere["left_out"]) == (1, 0, 1)
    first, second, third = evidence_lines(results)
    assert first.startswith("as published  80.00% of 5 scans (")
    assert "glioma 2 of 3 · notumor 2 of 2 · pituitary no evidence" in first
    assert second.startswith("groups apart  50.00% of 2 scans (")
    assert (
        "glioma 1 of 2 · notumor no evidence · pituitary no evidence · near copies of training scans left out: 3"
        in second
    )
    assert third.startswith("other source  0.00% of 1 scans (")


def test_what_was_not_measured_says_what_to_pass(tmp_path: Path) -> None:
    results = evidence(config(tmp_path), MODEL, ROWS, None, None)
    _, second, third = evidence_lines(results)
    assert second == "groups apart  not measured: pass --training URI, the scans that the model was trained on"
    assert third == "other source  not measured: pass --other-source URI, labelled scans from elsewhere"


def test_training_scans_that_only_the_model_knows_of_count_and_are_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents = [digest(name) for name in ("far", "elsewhere")]
    entry = trained_on.write(str(tmp_path), {"training": contents}) | {"complete": True}
    model = Model(uri=str(tmp_path), facts=MODEL.facts | {"training": {"scans": entry}})
    (tmp_path / "here.png").write_bytes(b"here")
    labelled = pa.table(
        {"scan_uri": [str(tmp_path / "here.png")], "scan_version": ["4-1"], "split": ["training"], "patient_id": [""]}
    )
    own = known_scans(config(tmp_path), model, labelled, None)
    assert own is not None
    assert own.blind == 2
    assert "2 of the model's 2 training scans are not at hand" in caplog.text
    everything = {digest(name): number for number, name in enumerate(("far", "elsewhere", "far, too"))}
    place = str(tmp_path / "clusters.parquet")
    clusters.keep(place, everything, "data")
    by_record = known_scans(config(tmp_path, groups=place), model, labelled.slice(0, 0), None)
    assert by_record is not None
    assert by_record.blind == 0
    rows = scored(("far", "glioma", "notumor", None), ("far, too", "glioma", "glioma", None))
    results = evidence(config(tmp_path, groups=place), model, rows, None, by_record)
    assert (results["groups_apart"]["scans"], results["groups_apart"]["right"]) == (1, 1)
    assert known_scans(config(tmp_path), MODEL, labelled.slice(0, 0), None) is None


def test_if_every_scan_has_a_near_copy_there_is_no_evidence(tmp_path: Path) -> None:
    results = evidence(config(tmp_path, groups="g"), MODEL, ROWS.slice(0, 1), None, KNOWN)
    assert results["groups_apart"]["accuracy"] is None
    assert evidence_lines(results)[1] == (
        "groups apart  no evidence: no scan is left · near copies of training scans left out: 1"
    )


def test_groups_that_lack_an_evaluated_scan_are_refused(tmp_path: Path) -> None:
    more = scored(("not audited", "glioma", "glioma", None))
    with pytest.raises(InputError, match="--groups g lacks 1 of the 1 scans in DATA"):
        evidence(config(tmp_path, groups="g"), MODEL, more, None, KNOWN)


def test_the_page_shows_the_three_sets_and_no_evidence_by_class(tmp_path: Path) -> None:
    results = evidence(config(tmp_path, groups="g"), MODEL, ROWS, None, KNOWN)
    numbers = NUMBERS | {"per_class": dict.fromkeys(MODEL.labels, NUMBERS["per_class"]["glioma"])}
    page = evaluation_page(
        Evaluation(
            title="t",
            model={},
            counts={"scans": 5, "ok": 5, "rejected": {}, "skipped": {}, "failed": 0},
            numbers=numbers,
            evidence=results,
        )
    )
    for words in (
        "as published",
        "4 of 5",
        "1 of 2",
        "no evidence",
        "not measured",
        "in TRAINING",
        "pass --other-source",
    ):
        assert words in page
