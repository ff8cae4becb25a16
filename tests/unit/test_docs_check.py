"""The checker of the manual finds what it is made to find, on small pages, and passes what is right. No Ray is started."""

import sys
from pathlib import Path

import pytest

from docs.check import check, simple_commands
from docs.examples import missing_line, run_examples
from docs.pages import Page, manual
from tests.conftest import ROOT

GOOD = """# Scoring

Score *scans* with `mribatch`.

- [Run it](#run-it)
- [Ray's & others' words: `--flags`](#rays--others-words---flags)

## Run it

```sh
mribatch score --model brain-mri-v2 --input A B --output out \\
    --exclude 'cache/**'    # twice if need be
```

## Ray's & others' words: `--flags`

See [above](#run-it) and [the README](../README.md#three-ways-to-use-it).
"""


def faults(text: str, name: str = "docs/page.md") -> list[str]:
    return [problem.message for problem in check(Page(name, text), ROOT)]


def of_block(language: str, text: str) -> list[str]:
    """What is wrong with a page that holds one block."""
    return faults(f"# Page\n\n```{language}\n{text}\n```\n")


def test_a_right_page_has_no_problem() -> None:
    assert faults(GOOD) == []


# Links


@pytest.mark.parametrize(
    "target", ["nowhere.md", "../README.md#nowhere", "#nowhere", "s3://bucket/page", "images/none.png"]
)
def test_a_link_that_does_not_resolve_is_named(target: str) -> None:
    (fault,) = faults(f"# Page\n\nSee [this]({target}).\n")
    assert repr(target) in fault


def test_addresses_on_the_web_are_not_asked_but_must_be_addresses() -> None:
    assert faults("# Page\n\n[a](https://example.org/x), [b](https://example.org)\n") == []
    assert len(faults("# Page\n\n[a](https:/example.org)\n")) == 1


def test_a_link_in_code_is_no_link() -> None:
    assert faults("# Page\n\nWrite `[text](nowhere.md)`.\n\n```text\n[text](nowhere.md)\n```\n") == []


def test_equal_headings_get_numbered_anchors() -> None:
    assert Page("p", "# A b\n\n## A b\n\n## A b\n\n## `C_d` e.f (g)\n").anchors == {"a-b", "a-b-1", "a-b-2", "c_d-ef-g"}


# Commands


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("mribatch score --model m --input i --output o --colour red", "--colour"),
        ("mribatch score --model m --input i --output o --limit many", "many"),
        ("mribatch score --model m --input i", "--output"),
        ("mribatch train --data d --output o --backbone vgg", "vgg"),
        ("mribatch train --data d --output o --epochs 0", "--epochs must be at least 1"),
        ("mribatch paint --output o", "paint"),
        ("mribatch", "no command"),
        ("python jobs/score.py --modle m", "modle"),
        ("python jobs/paint.py", "jobs/paint.py is not in the repository"),
        ("python -m mribatch nightly --deadline noon", "mribatch nightly"),
        ("ray job submit --working-dir . -- python jobs/train.py --dta d", "dta"),
        ("ray job submit --working-dirs . -- python jobs/score.py --help", "--working-dirs"),
        ("ray up --yes clusters.yaml", "clusters.yaml is not in the repository"),
        ("ray jump", "no such command"),
        ("make paint", "no target paint"),
        ("mribtach score", "unknown program 'mribtach'"),
        ("cd /srv && A=1 mribtach score", "unknown program 'mribtach'"),
        ("(umask 077; mribtach score)", "unknown program 'mribtach'"),
        ("mribatch score --help | mribtach", "unknown program 'mribtach'"),
        ("sudo cp deploy/none.service /etc/", "deploy/none.service is not in the repository"),
        ("mribatch score --input 'cache/**", "cannot be parsed"),
    ],
)
@pytest.mark.parametrize("language", ["sh", "console", "cron"])
def test_a_wrong_command_is_named_with_the_reason(language: str, command: str, why: str) -> None:
    lead = {"sh": "", "console": "$ ", "cron": "0 22 * * *  "}[language]
    (fault,) = of_block(language, lead + command)
    assert why in fault


@pytest.mark.parametrize(
    "command",
    [
        "mribatch --help",
        "mribatch compact --help",
        "python jobs/compact.py --output predictions --keep-days 365",
        "RAY_AUTH_MODE=token ray job submit --working-dir . -- python jobs/compact.py --output o",
        "make demo test",
        "(umask 077; ray get-auth-token --generate > /dev/null)  # a comment; with --flags",
        "kubectl apply -f deploy/raycronjob.yaml",
        "sudo systemctl enable --now mribatch-night.timer",
        'mribatch score --model m --input "$PWD/x" s3://bucket/x --output o',
    ],
)
def test_a_right_command_passes(command: str) -> None:
    assert of_block("sh", command) == []


def test_output_in_a_console_block_is_no_command() -> None:
    assert of_block("console", "$ mribatch compact \\\n    --output o\nmodel parts\n$ make demo\nmribtach") == []
    assert len(of_block("console", "$ make demo\n\nmodel parts\n$ make pain")) == 1


def test_commands_are_split_as_a_shell_does() -> None:
    text = "cd x && A=1 B=2 f --a='b c' | (g; h 2> /dev/null)\nsudo i # j"
    assert list(simple_commands(text)) == [["cd", "x"], ["f", "--a=b c"], ["g"], ["h"], ["i"]]


@pytest.mark.parametrize(
    ("language", "text"),
    [("", "make demo"), ("bash", "make demo"), ("python", "a b"), ("cron run", "* * * * *  make demo")],
)
def test_a_block_that_could_escape_the_checks_is_refused(language: str, text: str) -> None:
    assert len(of_block(language, text)) == 1


def test_a_block_without_an_end_is_refused() -> None:
    assert "unclosed" in faults("# Page\n\n```sh\nmake demo\n")[0]


# Form


def test_a_page_of_150_lines_is_too_long_and_one_of_149_is_not() -> None:
    assert faults("# Page\n" + "\n" * 148) == []
    assert "150 lines" in faults("# Page\n" + "\n" * 149)[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- [Run it](#run-it)\n", ""),
        ("## Run it", "## Run it\n\n## More"),
        ("- [Run it](#run-it)\n- [Ray's", "- [Ray's"),
    ],
)
def test_a_table_of_contents_that_does_not_match_the_headings_is_refused(old: str, new: str) -> None:
    assert old in GOOD
    assert any("table of contents" in fault for fault in faults(GOOD.replace(old, new)))


def test_the_order_of_the_table_of_contents_is_that_of_the_page() -> None:
    assert "table of contents" in faults("# P\n\n- [B](#b)\n- [A](#a)\n\n## A\n\n## B\n")[0]


def test_a_page_that_the_index_does_not_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "a.md", "b.md"):
        (tmp_path / "docs" / name).write_text("# A\n\n[a](a.md)\n")
    index, a, b = manual(tmp_path)
    assert (index.name, a.name, b.name) == ("docs/README.md", "docs/a.md", "docs/b.md")
    assert [problem.message for problem in check(index, tmp_path)] == ["the index does not link b.md"]


def words(count: int) -> str:
    return " ".join(["word"] * count)


@pytest.mark.parametrize(
    "place",
    [
        "{}.",
        "> {}.",
        "- {}.",
        "1. {}.",
        "| a | {} |",
        "Short. {}! Short.",
        "**Short.** {}.",
        "[{}](https://example.org).",
    ],
)
def test_a_sentence_of_30_words_is_too_long_and_one_of_29_is_not(place: str) -> None:
    assert faults(f"# P\n\n{place.format(words(29))}\n") == []
    (fault,) = faults(f"# P\n\n{place.format(words(30))}\n")
    assert "30 words" in fault


def test_a_sentence_goes_on_over_lines_and_ends_with_its_paragraph_item_or_cell() -> None:
    assert len(faults(f"# P\n\n{words(20)}\n{words(20)}.\n")) == 1
    assert (
        faults(f"# P\n\n{words(20)}\n\n{words(20)}\n- {words(20)}\n- {words(20)}\n| {words(20)} | {words(20)} |\n")
        == []
    )
    assert faults(f"# P\n\n{words(20)}\n\n```text\n{words(40)}\n```\n\n{words(20)}\n") == []


def test_code_counts_as_a_word() -> None:
    assert faults(f"# P\n\n`{words(40)}` {words(28)}.\n") == []


# Examples


def run(text: str, place: Path) -> list[str]:
    problems = run_examples([Page("docs/page.md", text)], ROOT / "tests", place, lambda _: None)
    return [problem.message for problem in problems]


def test_marked_examples_run_in_order_in_one_folder_and_others_do_not(tmp_path: Path) -> None:
    text = """
```sh run
echo 1 > a
```
```sh
echo 2 > a
```
```console run
$ cat a; echo \\
    b
1
…
$ cp a c
```
```python run
assert open("c").read() == "1\\n"
open("d", "w").write("3")
```
```sql run
select 1 from 'd*.parquet'
```
"""
    (fault,) = run(text, tmp_path)
    assert fault.startswith("select 1")
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"a", "c", "d"}


@pytest.mark.parametrize(
    "block", ["sh run\nfalse | true", "sh run\nfalse; true", "python run\nraise SystemExit(3)", "console run\n$ false"]
)
def test_an_example_that_fails_is_named(block: str, tmp_path: Path) -> None:
    (fault,) = run(f"```{block}\n```\n", tmp_path)
    assert "ended with" in fault


def test_an_example_that_prints_something_else_is_named_with_what_it_printed(tmp_path: Path) -> None:
    (fault,) = run("```console run\n$ echo one; echo two\ntwo\none\n```\n", tmp_path)
    assert "does not print 'one'" in fault
    assert fault.endswith("one\ntwo\n")


def test_examples_use_this_interpreter_and_reach_no_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody's")
    text = f"""
```python run
import os, sys
assert sys.executable == {sys.executable!r}
assert "AWS_ACCESS_KEY_ID" not in os.environ
assert "127.0.0.1" in os.environ["AWS_ENDPOINT_URL"] and "127.0.0.1" in os.environ["HTTPS_PROXY"]
```
"""
    assert run(text, tmp_path) == []


def test_shown_output_may_leave_out_lines_and_parts_of_lines_but_keeps_the_order() -> None:
    output = "scored          17\n  glioma         6\nrejected         0\npredictions in /a/b\n"
    assert missing_line("scored 17\nrejected 0\npredictions in …", output) is None
    assert missing_line("…\n", output) is None
    assert missing_line("rejected 0\nscored 17\n", output) == "scored 17"
    assert missing_line("scored 1\n", output) == "scored 1"
    assert missing_line("", "") is None
