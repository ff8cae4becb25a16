"""The README and the manual: links resolve, commands have flags that exist, pages are short. `make docs-check` runs the examples."""

import pytest

from docs.check import check
from docs.examples import RUNNABLE
from docs.pages import Page, manual
from tests.conftest import ROOT

PAGES = manual(ROOT)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_a_page_has_no_problem(page: Page) -> None:
    assert [str(problem) for problem in check(page, ROOT)] == []


def test_the_manual_has_a_page_for_each_topic_and_each_command_is_shown() -> None:
    names = {page.name for page in PAGES}
    topics = ("scoring", "cluster", "nightly", "training", "evaluating", "comparing", "speed", "development")
    assert {"README.md", "docs/README.md", *(f"docs/{topic}.md" for topic in topics)} <= names
    shown = "\n".join(block.text for page in PAGES for block in page.blocks)
    for job in (ROOT / "jobs").glob("*.py"):
        assert f"mribatch {job.stem} " in shown


def test_the_examples_cover_shell_python_and_sql() -> None:
    runnable = {block.language for page in PAGES for block in page.blocks if block.runnable}
    assert {"console", "python", "sql"} <= runnable <= RUNNABLE


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
