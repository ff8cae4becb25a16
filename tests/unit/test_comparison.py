"""The comparison of models: its numbers follow from the scores, and table, Markdown and page agree."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mribatch.reports import figures
from mribatch.reports.comparison import (
    Contender,
    comparison_page,
    comparison_table,
    duels,
    markdown,
    ranked,
)
from mribatch.statistics.metrics import Scores
from tests.unit.test_page import HOSTILE, Document

LABELS = ("notumor", "meningioma")
TRUTH = np.array([0] * 10 + [1] * 10)


def scores(wrong: list[int], labels: tuple[str, ...] = LABELS, truth: Any = TRUTH) -> Scores:
    """Return scores in which only these rows are wrong."""
    probabilities = np.full((len(truth), len(labels)), 0.1 / (len(labels) - 1))
    predicted = np.array([(label + (row in wrong)) % len(labels) for row, label in enumerate(truth)])
    probabilities[np.arange(len(truth)), predicted] = 0.9
    return Scores(labels=labels, truth=truth, probabilities=probabilities)


def contender(name: str, *splits: Scores, copies: int = 0) -> Contender:
    has_copy = [np.arange(len(split.truth)) < copies for split in splits]
    return Contender(
        name=name,
        title=name.upper(),
        scores=splits,
        has_copy=has_copy,
        seconds=[3.0] * len(splits),
        chosen=[{"model__C": 1.0}] * len(splits),
        train_scans=80,
        scans_per_s=123.4,
        size_bytes=4_200_000,
    )


GOOD = contender("good", scores([0]), scores([1, 12]))
POOR = contender("poor", scores([0, 3, 4, 5, 6, 7, 8, 9]), scores([1, 2, 3]))


def test_the_most_accurate_comes_first_by_the_mean_over_the_splits() -> None:
    assert [model.name for model in ranked([POOR, GOOD])] == ["good", "poor"]
    assert GOOD.accuracy == pytest.approx((19 / 20 + 18 / 20) / 2)
    low, high = GOOD.interval
    assert low < GOOD.accuracy < high


def test_two_classes_have_positives_and_negatives_the_second_being_positive() -> None:
    first, second = comparison_table([GOOD]).to_pylist()
    assert [first[name] for name in ("tp", "fp", "tn", "fn")] == [10, 1, 9, 0]
    assert [second[name] for name in ("tp", "fp", "tn", "fn")] == [9, 1, 9, 1]
    assert first["confusion"] == [[9, 1], [0, 10]]
    assert (first["split"], first["train_scans"], first["test_scans"], first["size_bytes"]) == (1, 80, 20, 4_200_000)


def test_more_classes_have_a_confusion_matrix_and_no_positives() -> None:
    labels, truth = ("a", "b", "c"), np.array([0, 1, 2] * 5)
    row = comparison_table([contender("three", scores([0], labels, truth))]).to_pylist()[0]
    assert row["tp"] is None
    assert row["confusion"] == [[4, 1, 0], [0, 5, 0], [0, 0, 5]]
    assert "TP" not in markdown([contender("three", scores([0], labels, truth))], {})


def test_the_table_has_three_accuracies_and_says_what_was_not_measured() -> None:
    leaky = replace(contender("leaky", scores([15]), copies=10), as_published=True, other=scores([0, 1, 2, 3, 4]))
    assert leaky.evidence == (pytest.approx(19 / 20), pytest.approx(9 / 10), pytest.approx(15 / 20))
    text = markdown([leaky], {})
    assert "| Model | As published | Groups apart | Other source |" in text
    assert "| LEAKY | 95.00% | 90.00% | 75.00% |" in text
    assert "not measured" not in text
    (row,) = comparison_table([leaky]).to_pylist()
    names = ("accuracy_published", "accuracy_groups_apart", "accuracy_other_source", "other_source_scans")
    assert [row[name] for name in names] == [pytest.approx(0.95), pytest.approx(0.9), pytest.approx(0.75), 20]
    apart = markdown([GOOD], {})
    assert "| GOOD | – | 92.50% | – |" in apart
    assert "As published: not measured; run again with --paper-protocol" in apart
    assert "Other source: not measured; pass --other-source URI" in apart


def test_without_copies_there_is_no_accuracy_if_all_scans_are_copies() -> None:
    leaky = replace(contender("leaky", scores([]), copies=20), as_published=True)
    assert leaky.accuracy_without_copies is None
    assert "Groups apart: no evidence" in markdown([leaky], {})


def test_models_with_different_numbers_of_splits_are_compared_on_the_first_one() -> None:
    once = contender("once", scores([0, 1]))
    text = markdown([GOOD, once], {})
    assert "First split" in text
    assert "| GOOD | – | 92.50% |" in text
    assert "| 95.00% |" in text.split("| GOOD |")[1].splitlines()[0]
    assert "on the first split only" in text
    assert "First split" not in markdown([GOOD, POOR], {})


def test_every_pair_is_tested_on_the_first_split_and_adjusted_for_their_number() -> None:
    (duel,) = duels([GOOD, POOR])
    assert (duel.only_first_right, duel.only_second_right) == (7, 0)
    assert duel.p_value == pytest.approx(2 * 0.5**7)
    three = duels([GOOD, POOR, contender("other", scores([0]))])
    assert len(three) == 3
    assert three[0].p_value == pytest.approx(min(1.0, 3 * 2 * 0.5**7))


def test_page_and_markdown_show_the_same_numbers_and_the_disclaimer() -> None:
    facts = {"splits": "2", "<command>": "python jobs/baselines.py"}
    text = markdown([POOR, GOOD], facts)
    page = comparison_page([POOR, GOOD], facts, {"comparison.parquet": "a row for each model and split"})
    for part in ("92.50%", "Only A correct", "0.0156", "4.2 MB", "not a medical device", "Positive is meningioma"):
        assert part in text
        assert part in page
    assert "<command>" not in page, "every text is escaped"
    assert text.index("GOOD") < text.index("POOR")
    assert Document(page).rows[0][0] == "Model"


@pytest.mark.parametrize("name", [*HOSTILE, "a\u202egpj.exe", "\udcff.jpg"])
def test_hostile_names_are_shown_as_they_are_and_never_become_markup(name: str) -> None:
    hostile = contender(name, scores([0], ("a", name)))
    text = comparison_page([hostile, GOOD], {name: name}, {"a.parquet": name})
    plain = comparison_page([GOOD, POOR], {"a": "b"}, {"a.parquet": "b"})
    document = Document(text)
    assert {tag for tag, _ in document.elements} == {tag for tag, _ in Document(plain).elements}
    assert not [key for _, attributes in document.elements for key in attributes if key.startswith("on")]
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    assert shown in document.text["dl"]
    assert shown in document.text["li"]
    assert text.encode("utf-8")


def test_names_in_markdown_never_become_markup() -> None:
    text = markdown([contender("<img src=x>|*b*", scores([0]))], {"[link](x)": "`code`\n# heading \udcff"})
    assert "| \\<IMG SRC=X>\\|\\*B\\* | – | 95.00% |" in text
    assert "- \\[link](x): \\`code\\`\\\\n# heading \\\\udcff\n" in text
    assert text.encode("utf-8")


def test_bars_are_drawn_for_any_number_of_models_except_none() -> None:
    many = [f"model {n}" for n in range(14)]
    drawn = figures.accuracy_dots(many, [0.5 + n / 40 for n in range(14)], [(0.4, 0.9)] * 14)
    assert drawn.startswith(b"\x89PNG")
    assert figures.accuracy_dots(["one"], [1.0], [(1.0, 1.0)]).startswith(b"\x89PNG")
    with pytest.raises(Exception, match="at least one model"):
        figures.accuracy_dots([], [], [])
