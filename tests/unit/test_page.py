"""The evaluation page: it is self-contained, it shows what was measured, and no text of a scan becomes markup."""

import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mribatch.errors import InputError
from mribatch.reports.evaluation import DISCLAIMER, Evaluation, Mistake, evaluation_page
from mribatch.reports.gallery import shown
from mribatch.statistics import breakdown
from mribatch.statistics.metrics import Scores

pytestmark = pytest.mark.filterwarnings("error")

VOID = {"meta", "img", "br", "hr", "link", "input"}
SCORES = Scores(
    labels=("glioma", "notumor"),
    truth=np.array([0, 1, 1, 1]),
    probabilities=np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.001, 0.999]]),
)
NUMBERS: dict[str, Any] = {
    "scans": 4,
    "rates": breakdown.class_rates(SCORES),
    "precision_recall": breakdown.operating_points(SCORES),
    "patients": None,
    "subgroups": {},
    "loss": 0.25,
    "accuracy": 0.75,
    "accuracy_95": [0.3006, 0.9544],
    "per_class": {
        "glioma": {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1, "roc_auc": 0.9876},
        "notumor": {"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3, "roc_auc": None},
    },
    "macro": {"precision": 0.75, "recall": 5 / 6, "f1": 0.7333},
    "weighted": {"precision": 0.875, "recall": 0.75, "f1": 0.7667},
    "roc_auc_macro_ovr": 0.9876,
    "expected_calibration_error": 0.0321,
    "confusion_matrix": {"labels": ["glioma", "notumor"], "counts": [[1, 0], [1, 2]]},
}


def png(width: int = 7, height: int = 5) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return out.getvalue()


def page(**changes: Any) -> str:
    given: dict[str, Any] = {
        "title": "Evaluation of brain-mri-v2",
        "model": {"digest": "0123456789ab", "image side": "224 px", "classes": ("glioma", "notumor"), "trained": None},
        "counts": {"scans": 1010, "ok": 1004, "rejected": {"truncated": 2}, "skipped": {"localizer": 3}, "failed": 1},
        "numbers": NUMBERS,
        "mistakes": [Mistake(scan_uri="s3://b/scan.jpg", truth="notumor", predicted="glioma", confidence=0.876)],
        "figures": {"Confusion matrix": png(), "ROC curves": png(9, 4)},
    }
    return evaluation_page(Evaluation(**given | changes))


def mistakes_at(name: str) -> list[Mistake]:
    return [Mistake(scan_uri=name, truth=name, predicted=name, confidence=0.5)]


class Document(HTMLParser):
    """Collects elements with their attributes, rows of tables and text. Fails if tags are not nested correctly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.text: dict[str, str] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.text[tag] = self.text.get(tag, "") + data
        if {"td", "th"} & {*self.open}:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_page_is_self_contained_without_script_or_request() -> None:
    text = page()
    document = Document(text)
    names = Counter(name for name, _ in document.elements)
    assert not names.keys() & {"link", "iframe", "object", "embed", "base", "form"}
    addresses = [
        value for _, attributes in document.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert not re.search(r"url\(|@import|https?://", text)
    assert any("default-src 'none'" in meta.get("content", "") for meta in document.all("meta"))


def test_header_and_footer_say_that_it_is_not_a_medical_device() -> None:
    document = Document(page())
    assert DISCLAIMER == "Research and triage tool, not a medical device."
    assert DISCLAIMER in document.text["header"]
    assert DISCLAIMER in document.text["footer"]


def test_page_has_the_landmarks_that_screen_readers_need() -> None:
    document = Document(page())
    assert document.all("html") == [{"lang": "en"}]
    names = Counter(name for name, _ in document.elements)
    assert [names[tag] for tag in ("title", "h1", "header", "main", "footer")] == [1] * 5
    assert all(heading["scope"] in ("row", "col") for heading in document.all("th"))
    assert [image["alt"] for image in document.all("img")] == ["Confusion matrix", "ROC curves"]
    assert document.text["figcaption"] == "Confusion matrixROC curves"


def test_page_is_made_for_light_dark_and_paper() -> None:
    style = Document(page()).text["style"]
    assert style.count("prefers-color-scheme: dark") == 1
    assert style.count("@media print") == 1


def test_tables_say_what_was_measured() -> None:
    document = Document(page())
    for row in (
        ["glioma", "50.00%", "100.00%", "66.67%", "0.9876", "1"],
        ["notumor", "100.00%", "66.67%", "80.00%", "–", "3"],
        ["Macro average", "75.00%", "83.33%", "73.33%", "0.9876", "4"],
        ["Weighted average", "87.50%", "75.00%", "76.67%", "–", "4"],
        ["True class", "glioma", "notumor"],
        ["notumor", "1", "2"],
        ["s3://b/scan.jpg", "notumor", "glioma", "87.6%"],
    ):
        assert row in document.rows
    for fact in (
        "75.00%",
        "30.06% to 95.44%",
        "0.2500",
        "0.0321",
        "0123456789ab",
        "224 px",
        "glioma, notumor",
        "unknown",
    ):
        assert fact in document.text["dl"]


def test_a_wrong_answer_never_reads_as_certain() -> None:
    sure = [Mistake(scan_uri="a.jpg", truth="x", predicted="y", confidence=value) for value in (1.0, 0.9996, 0.9994)]
    document = Document(page(mistakes=sure))
    assert [row[-1] for row in document.rows if row[0] == "a.jpg"] == ["> 99.9%", "> 99.9%", "99.9%"]
    assert "3 scans misclassified" in document.text["p"]


def test_every_scan_is_accounted_for_by_its_outcome() -> None:
    counts = {row[0]: row[1] for row in Document(page()).rows if len(row) == 2}
    assert counts["Listed"] == "1,010"
    assert counts["Scored"] == "1,004"
    assert counts["Rejected (unreadable file)"] == "2"
    assert counts["– truncated"] == "2"
    assert counts["Skipped (not what the model is for)"] == counts["– localizer"] == "3"
    assert counts["Failed (storage or machine error)"] == "1"


def test_mistakes_are_shown_beside_their_maps_or_a_sentence_says_why_not() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    caption = "glioma (87.6%), labelled notumor"
    document = Document(page(maps=[shown(caption, ("scan.jpg", pixels), ("map", pixels))], figures={}))
    assert [image["alt"] for image in document.all("img")] == ["scan.jpg", "map"]
    assert caption in document.text["figcaption"]
    assert "No maps: those of these answers" in Document(page()).text["p"]
    assert "No maps" not in Document(page(mistakes=())).text["p"]


def test_figures_are_embedded_unchanged_with_their_size_and_in_order() -> None:
    images = Document(page(scans=("Scans", png(3, 2)))).all("img")
    assert [base64.b64decode(image["src"].split(",")[1]) for image in images] == [png(), png(9, 4), png(3, 2)]
    assert [(image["width"], image["height"]) for image in images] == [("7", "5"), ("9", "4"), ("3", "2")]


def test_without_mistakes_or_figures_the_page_says_so_or_leaves_them_out() -> None:
    document = Document(page(mistakes=(), figures={}))
    assert "None." in document.text["section"]
    assert not document.all("img")
    assert "Figures" not in document.text["h2"]


HOSTILE = (
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(1)>.jpg',
    "' onmouseover='alert(1)",
    "</td></table></main><h1>hacked</h1>",
    "&lt;b&gt; $title {0} %s &amp;.jpg",
    "--></style><svg onload=alert(1)>",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_as_they_are_and_never_become_markup(name: str) -> None:
    matrix = {"labels": [name, "b"], "counts": [[1, 0], [1, 2]]}
    numbers = NUMBERS | {"per_class": {name: NUMBERS["per_class"]["glioma"]}, "confusion_matrix": matrix}
    document = Document(
        page(
            title=name,
            model={name: name, "classes": [name]},
            counts={"scans": 2, "ok": 0, "rejected": {name: 1}, "skipped": {name: 1}, "failed": 0},
            numbers=numbers,
            mistakes=mistakes_at(name),
            figures={name: png()},
        )
    )
    plain = Document(page(title="t", mistakes=mistakes_at("m"), figures={"f": png()}))
    assert {tag for tag, _ in document.elements} == {tag for tag, _ in plain.elements}
    assert not [key for _, attributes in document.elements for key in attributes if key.startswith("on")]
    assert document.text["title"] == document.text["h1"] == name
    assert [name, name, name, "50.0%"] in document.rows
    assert document.all("img")[0]["alt"] == name


def test_characters_that_hide_or_reverse_a_name_are_spelled_out() -> None:
    text = page(mistakes=mistakes_at("a\u202egpj.exe\x00\n\udcff é 脑"))
    names = [row[0] for row in Document(text).rows if row[0].startswith("a\\")]
    assert names == ["a\\u202egpj.exe\\x00\\n\\udcff é 脑"]
    assert text.encode("utf-8")


def test_a_figure_that_is_not_png_is_refused_in_a_sentence() -> None:
    for wrong in (b"", b"\x89PNG\r\n\x1a\n", b"<svg onload=alert(1)>" * 9):
        with pytest.raises(InputError, match="'Curves' as PNG"):
            page(figures={"Curves": wrong})


def test_the_same_evaluation_gives_the_same_page() -> None:
    assert page() == page()
