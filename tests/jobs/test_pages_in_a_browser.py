"""The pages in a real browser, where there is one: nothing complains, and the page may ask nobody for anything."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mribatch.reports import figures
from mribatch.reports.comparison import comparison_page
from tests.unit.test_comparison import GOOD, POOR
from tests.unit.test_night_page import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium, which is not here: `make browser` installs it"
)


def complaints(html: str, folder: Path) -> list[str]:
    """What the browser's console says of a page; it says so too when the page's own policy keeps it from a request."""
    place = folder / "page.html"
    place.write_text(html)
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-features=NetworkTimeServiceQuerying", f"--user-data-dir={folder / 'profile'}",
         "--enable-logging=stderr", f"--screenshot={folder / 'page.png'}", place.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "page.png").read_bytes().startswith(b"\x89PNG")
    return [line for line in done.stderr.splitlines() if re.search(r"CONSOLE", line)]


def test_the_page_of_a_night_opens_without_complaint(tmp_path: Path) -> None:
    assert complaints(page(alarms=["Too many rejects."]), tmp_path) == []


def test_the_page_of_a_comparison_opens_without_complaint(tmp_path: Path) -> None:
    bars = figures.accuracy_bars(["good", "poor"], [0.9, 0.7], [(0.8, 0.95), (0.6, 0.8)])
    assert complaints(comparison_page([GOOD, POOR], {"splits": "2"}, {"Accuracy": bars}), tmp_path) == []


def test_a_page_that_asked_for_something_would_be_kept_from_it_and_found_out(tmp_path: Path) -> None:
    asking = page().replace("</main>", '<img src="https://example.invalid/pixel.png" alt=""></main>')
    assert any("Content Security Policy" in line for line in complaints(asking, tmp_path))
