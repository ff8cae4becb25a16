"""Open every page in a real browser, if there is one: it fits, asks for nothing, is accessible, and sorts its tables."""

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mribatch.reports.comparison import comparison_page
from tests.browser import CHROMIUM, Browser, Tab, started
from tests.sample_pages import PAGES
from tests.unit.test_comparison import POOR, contender, scores
from tests.unit.test_explanation_page import explanation
from tests.unit.test_explanation_page import page as explanations
from tests.unit.test_night_page import change, comparison, page, reject
from tests.unit.test_page import NUMBERS, mistakes_at, png
from tests.unit.test_page import page as evaluation_page
from tests.unit.test_site_page import page as acceptance_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which `make browser` installs")

AXE = importlib.util.find_spec("axe_core_python")
PAPER_PX = 680  # A4 without its margins of 15 mm, 96 pixels an inch
VIEWS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390), ("print", PAPER_PX)]

CUT_OFF = """
  (() => {
    const root = document.documentElement, name = (e) => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 40)}`;
    const cut = root.scrollWidth > root.clientWidth ? [`the page by ${root.scrollWidth - root.clientWidth}`] : [];
    const isPaper = matchMedia("print").matches;
    for (const element of document.body.querySelectorAll("*")) {
      const table = element.closest(".table");
      if (isPaper && element.matches(".table") && element.scrollWidth > element.clientWidth + 1) cut.push(name(element));
      if (table && table !== element) continue;  // a table scrolls in place
      const box = element.getBoundingClientRect();
      if (box.width && (box.right > root.clientWidth + 1 || box.left < -1)) cut.push(name(element));
    }
    return cut;
  })()
"""

SERIOUS = """
  (isDark) => axe.run(document, { resultTypes: ["violations"], ...(isDark && { runOnly: ["color-contrast"] }) }).then(({ violations }) => violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html }) => html.slice(0, 120)).join(" | ")}`))
"""

FIGURES = """
  [...document.querySelectorAll("figure > img")].map((image) => {
    const { left, top, right, bottom } = image.getBoundingClientRect();
    return [left, top + scrollY, right, bottom + scrollY].map(Math.round);
  })
"""

COLUMN = """
  [...document.querySelectorAll(".table > table")]
    .find((table) => table.textContent.includes("Scan to look at")).tBodies[0].rows
"""
CLICK = (
    """[...document.querySelectorAll("thead button")].find((button) => button.textContent === "Confidence").click()"""
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as running:
        yield running


@cache
def text_of(name: str) -> str:
    """Return a page of a kind, made once."""
    return PAGES[name]()


def written(folder: Path, text: str) -> str:
    """Write a page and return its address."""
    place = folder / "page.html"
    place.write_text(text)
    return place.as_uri()


@pytest.mark.parametrize("name", PAGES)
def test_each_page_fits_screens_and_paper_and_asks_for_nothing(browser: Browser, tmp_path: Path, name: str) -> None:
    address = written(tmp_path, text_of(name))
    with Tab(browser, address) as tab:
        for scheme, width in VIEWS:
            tab.resize(width)
            tab.show(scheme)
            assert tab.run(CUT_OFF) == [], (scheme, width)
        assert tab.pdf().startswith(b"%PDF")
        assert tab.complaints() == []
        assert tab.requests() == [address]


def test_in_the_dark_charts_are_dark_and_pictures_of_scans_stay_as_they_are(browser: Browser, tmp_path: Path) -> None:
    levels = {}
    with Tab(browser, written(tmp_path, text_of("evaluation"))) as tab:
        for scheme in ("light", "dark"):
            tab.show(scheme)
            tab.screenshot(tmp_path / "page.png")
            pixels = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
            boxes = tab.run(FIGURES)
            levels[scheme] = [float(np.median(pixels[top:bottom, left:right])) for left, top, right, bottom in boxes]
    (*bright, scans), (*dark, same) = levels["light"], levels["dark"]
    assert min(bright) > 250
    assert max(dark) < 60
    assert scans == same


@pytest.mark.skipif(AXE is None, reason="needs axe-core-python, a development dependency")
@pytest.mark.parametrize("name", PAGES)
def test_each_page_has_no_serious_finding_of_axe_in_light_and_dark(browser: Browser, tmp_path: Path, name: str) -> None:
    assert AXE is not None and AXE.submodule_search_locations is not None
    axe = (Path(AXE.submodule_search_locations[0]) / "axe.min.js").read_text()
    with Tab(browser, written(tmp_path, text_of(name))) as tab:
        tab.run(axe + "; 0")
        for scheme in ("light", "dark"):
            tab.show(scheme)
            assert tab.run(f"({SERIOUS})({'true' if scheme == 'dark' else 'false'})") == [], scheme


def test_a_click_on_a_column_sorts_a_table_by_its_numbers_and_a_second_one_turns_it(
    browser: Browser, tmp_path: Path
) -> None:
    with Tab(browser, written(tmp_path, text_of("night"))) as tab:
        column = f"[...{COLUMN}].map((row) => parseFloat(row.cells[3].textContent))"
        tab.run(CLICK)
        rising = tab.run(column)
        tab.run(CLICK)
        assert rising == sorted(rising)
        assert rising[0] < rising[-1]
        assert tab.run(column) == rising[::-1]
        assert tab.run("document.querySelector('[aria-sort]').ariaSort") == "descending"


def test_the_filter_of_a_long_table_hides_the_rows_without_its_words(browser: Browser, tmp_path: Path) -> None:
    with Tab(browser, written(tmp_path, text_of("index"))) as tab:
        tab.run("document.querySelector('input').value = '2026-06-03'")
        tab.run("document.querySelector('input').dispatchEvent(new Event('input'))")
        assert tab.run("[...document.querySelectorAll('.long tbody tr')].filter((row) => !row.hidden).length") == 1
        assert tab.run("document.querySelector('output').textContent") == "1 of 14"


@pytest.mark.parametrize("name", PAGES)
def test_each_page_says_the_same_without_script(browser: Browser, tmp_path: Path, name: str) -> None:
    address = written(tmp_path, text_of(name))
    text = "[...document.querySelectorAll('h2, p, dd, th, td, figcaption')].map((e) => e.textContent.trim()).join('|')"
    with Tab(browser, address) as tab, Tab(browser, address, script=False) as plain:
        assert plain.run(text) == tab.run(text)
        assert plain.run("document.querySelectorAll('button, input').length") == 0
        assert plain.run("[...document.querySelectorAll('tbody')].every((body) => body.textContent.trim())")


@pytest.mark.parametrize("width", [390, 1280])
def test_long_names_and_wide_tables_scroll_in_place_and_never_widen_the_page(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    long = "s3://archive/" + "x" * 200 + "/scan.jpg"
    matrix = {"labels": [long[:60]] * 12, "counts": [[1] * 12] * 12}
    classes = {long[:60]: NUMBERS["per_class"]["glioma"]}
    pages = {
        "night": page(
            title=long,
            model=long,
            alarms=[long],
            classes=comparison([1, 1], [1, 1], (long, "b")),
            changes=[change(scan_uri=long, before=long, after=long)],
            rejects=[reject(detail=long)],
            facts={long: long},
        ),
        "evaluation": evaluation_page(
            title=long,
            model={long: long},
            mistakes=mistakes_at(long),
            figures={long: png(2000, 9)},
            numbers=NUMBERS | {"per_class": classes, "confusion_matrix": matrix},
        ),
        "comparison": comparison_page([contender(long, scores([0], ("a", long))), POOR], {long: long}),
        "acceptance": acceptance_page(model=long, data=long),
        "explanation": explanations(explanation(scan_uri=long), explanation(scan_uri=long, picture=None), title=long),
    }
    for name, text in pages.items():
        with Tab(browser, written(tmp_path, text), width) as tab:
            assert tab.run(CUT_OFF) == [], name


def test_a_request_or_a_script_of_a_page_would_be_blocked_and_reported(browser: Browser, tmp_path: Path) -> None:
    asking = '<img src="https://example.invalid/pixel.png" alt=""><script>document.title = "changed"</script></main>'
    with Tab(browser, written(tmp_path, page().replace("</main>", asking))) as tab:
        assert sum("Content Security Policy" in line for line in tab.complaints()) == 2
        assert tab.run("document.title") != "changed"
