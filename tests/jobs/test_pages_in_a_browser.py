"""Open the HTML pages in a real browser, if there is one: no complaints on the console, no requests to the network."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mribatch.reports import figures
from mribatch.reports.comparison import comparison_page
from tests.unit.test_comparison import GOOD, POOR
from tests.unit.test_explanation_page import explanation
from tests.unit.test_explanation_page import page as explanations
from tests.unit.test_night_page import change, comparison, page, reject
from tests.unit.test_page import NUMBERS, mistakes_at, png
from tests.unit.test_page import page as evaluation_page
from tests.unit.test_site_page import page as acceptance_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which `make browser` installs")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-features=NetworkTimeServiceQuerying",
    "--enable-logging=stderr",
)


def opened(text: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page in the browser."""
    place = folder / "page.html"
    place.write_text(text)
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, place.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done


def complaints(text: str, folder: Path) -> list[str]:
    """Return the messages on the browser's console, including requests that the page's own policy blocks."""
    done = opened(text, folder, f"--screenshot={folder / 'page.png'}")
    assert (folder / "page.png").read_bytes().startswith(b"\x89PNG")
    return [line for line in done.stderr.splitlines() if re.search(r"CONSOLE", line)]


MEASURE = """
    onload = () => {
      const excess = Object.fromEntries([...document.querySelectorAll("iframe")].map(frame => {
        const root = frame.contentDocument.documentElement;
        return [frame.id, root.scrollWidth - root.clientWidth];
      }));
      document.body.textContent = "RESULT" + JSON.stringify(excess) + "END";
    }
"""


def excess(pages: dict[str, str], width: int, folder: Path) -> dict[str, int]:
    """Return by how many pixels each page is wider than a window of `width` pixels."""
    frames = "".join(
        f'<iframe id="{name}" style="border: 0; width: {width}px" srcdoc="{html.escape(text)}"></iframe>'
        for name, text in pages.items()
    )
    done = opened(f"<!doctype html><body>{frames}<script>{MEASURE}</script>", folder, "--dump-dom")
    widths: dict[str, int] = json.loads(re.findall("RESULT(.*)END", done.stdout)[0])
    return widths


def test_the_page_of_a_night_opens_without_complaint(tmp_path: Path) -> None:
    assert complaints(page(alarms=["Too many rejects."]), tmp_path) == []


def test_the_page_of_a_comparison_opens_without_complaint(tmp_path: Path) -> None:
    bars = figures.accuracy_dots(["good", "poor"], [0.9, 0.7], [(0.8, 0.95), (0.6, 0.8)])
    assert complaints(comparison_page([GOOD, POOR], {"splits": "2"}, {"Accuracy": bars}), tmp_path) == []


def test_the_page_of_an_evaluation_opens_without_complaint(tmp_path: Path) -> None:
    assert complaints(evaluation_page(), tmp_path) == []


def test_the_page_of_an_acceptance_opens_without_complaint(tmp_path: Path) -> None:
    assert complaints(acceptance_page(), tmp_path) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_long_names_and_wide_tables_scroll_in_place_and_never_widen_the_page(tmp_path: Path, width: int) -> None:
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
        "comparison": comparison_page([GOOD, POOR], {long: long}, {long: png(2000, 9)}),
        "acceptance": acceptance_page(model=long, data=long),
        "explanation": explanations(explanation(scan_uri=long), explanation(scan_uri=long, picture=None), title=long),
    }
    assert excess(pages, width, tmp_path) == dict.fromkeys(pages, 0)


def test_a_request_of_a_page_would_be_blocked_and_reported(tmp_path: Path) -> None:
    asking = page().replace("</main>", '<img src="https://example.invalid/pixel.png" alt=""></main>')
    assert any("Content Security Policy" in line for line in complaints(asking, tmp_path))
