"""All pages: one stylesheet, escaping that no template turns off, numbers that never claim certainty."""

import base64
import hashlib
import re
import tomllib
from itertools import product
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from mribatch.reports.rendering import confidence, decimal, interval, render
from mribatch.statistics.shares import percent
from tests.unit.test_comparison import GOOD, POOR, comparison_page
from tests.unit.test_explanation_page import page as explanations
from tests.unit.test_night_page import page as night_page
from tests.unit.test_page import Document
from tests.unit.test_page import page as evaluation_page

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "mribatch/reports/templates").iterdir())
STYLE = (ROOT / "mribatch/reports/templates/style.css").read_text()


def test_all_pages_contain_the_same_stylesheet_and_it_refers_to_no_file() -> None:
    for page in (evaluation_page(), night_page(), comparison_page([GOOD, POOR], {}, {}), explanations()):
        assert Document(page).text["style"].strip() == STYLE.strip()
    assert not re.search(r"url\(|@import|//", STYLE)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_turns_escaping_off_or_runs_a_script_of_its_own(template: Path) -> None:
    text = template.read_text().replace("<script>{{ SCRIPT }}</script>", "")
    assert not re.search(r"\|\s*safe\b|autoescape|<script|javascript:|\bon\w+=", text)


def test_the_only_script_that_a_page_allows_is_the_one_for_tables() -> None:
    document = Document(night_page())
    script = document.text["script"]
    assert script == (ROOT / "mribatch/reports/templates/tables.js").read_text().rstrip("\n")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert any(f"script-src 'sha256-{digest}'" in meta.get("content", "") for meta in document.all("meta"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_every_template_is_part_of_the_package(template: Path) -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert any(template.match(f"mribatch/{pattern}") for pattern in setup["package-data"]["mribatch"])


def test_a_value_that_is_missing_is_an_error_not_an_empty_cell() -> None:
    with pytest.raises(UndefinedError, match="'title'"):
        render("evaluation.html")


@pytest.mark.parametrize(
    ("share", "words"),
    [(None, "–"), (0.0, "0.00%"), (1e-9, "< 0.01%"), (0.12345, "12.35%"), (0.99999, "> 99.99%"), (1.0, "100.00%")],
)
def test_only_0_and_1_themselves_read_as_0_and_100_percent(share: float | None, words: str) -> None:
    assert percent(share) == words
    assert interval((0.5, 1.0)) == "50.00% to 100.00%"


@pytest.mark.parametrize(
    ("probability", "words"),
    [(0.5, "50.0%"), (0.876, "87.6%"), (0.9994, "99.9%"), (0.99951, "> 99.9%"), (1.0, "> 99.9%"), (1.0005, "> 99.9%")],
)
def test_an_answer_is_never_100_percent_certain(probability: float, words: str) -> None:
    assert confidence(probability) == words


def test_small_numbers_do_not_read_as_zero() -> None:
    assert [decimal(value) for value in (None, 0, 0.00001, 0.12345)] == ["–", "0.0000", "< 0.0001", "0.1235"]


def colours(scheme: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): #(\w{3,6})\b", scheme))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    digits = colour if len(colour) == 6 else "".join(c * 2 for c in colour)
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", range(3), ids=["light", "dark", "print"])
def test_text_has_the_contrast_that_accessibility_asks_for(scheme: int) -> None:
    palette = colours(re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[scheme])
    for ink, ground in product(("ink", "muted", "warn", "good", "bad"), ("page", "card")):
        dark, light = sorted(map(luminance, (palette[ink], palette[ground])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
