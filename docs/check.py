"""Check the manual: links, commands, sentences and tables of contents; run the examples that are marked runnable.

    All checks:         python -m docs.check
    Without running:    python -m docs.check --static
    Some pages:         python -m docs.check docs/scoring.md docs/evaluating.md

A fenced block names its language. `sh` holds commands, `console` holds commands after `$ ` with their output, `cron`
holds a crontab. The word `run` after the language (```console run, also for sh, python and sql) marks an example that
is run. All of them run in one temporary folder, in the order of the pages, beside copies of `samples/` and `models/`.
Each command must end with 0. The output that a `console` block shows must appear in that order; `…` matches anything.
"""

import argparse
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from docs.examples import RUNNABLE, run_examples
from docs.pages import CODE, HEADING, LINK, OTHERS, Block, Page, Problem, manual, slug

__all__ = ["check"]

ROOT = Path(__file__).parent.parent
MAX_LINES = 150  # a page is read in one sitting
MAX_WORDS = 30  # a longer sentence has to be read twice
GENERATED = {"docs/faults.md", "docs/nights.md"}  # written by make targets: only their links are checked
SHELL = {"sh", "console", "cron"}
LANGUAGES = SHELL | RUNNABLE | {"csv", "text"}
PARSED = {"make", "mribatch", "python", "ray"}
PROGRAMS = PARSED | {"aws", "cd", "cp", "export", "kubectl", "pip", "python3.11", "source", "systemctl", "umask"}
FILES = (".lock", ".py", ".service", ".timer", ".toml", ".yaml")  # a relative path that ends so names a file of ours

ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) +")
NEW_PARAGRAPH = re.compile(r"\||#+ |\s*(?:[-*]|\d+\.) ")
SENTENCE_END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.!?])[)*\"”]*\s+")
PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=|sudo$")  # RAY_AUTH_MODE=token before a command
REDIRECTION = re.compile(r"\s\d?[<>]+\s*[^\s)]+")
TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)", re.MULTILINE)
WEB = re.compile(r"https?://[\w.-]+(/|$)")


def check(page: Page, root: Path) -> list[Problem]:
    """Return what is wrong with a page, without running anything."""
    problems = [*link_problems(page, root)]
    if page.name not in GENERATED | {*OTHERS}:
        problems += [*block_problems(page, root), *contents_problems(page, root)]
        problems += [*length_problems(page), *sentence_problems(page)]
    return sorted(problems, key=lambda problem: problem.line)


def link_problems(page: Page, root: Path) -> Iterator[Problem]:
    """Yield the links whose file or heading does not exist. Servers are not asked."""
    for line, _, target in page.links:
        path, _, anchor = target.partition("#")
        place = (root / page.name).parent / path
        if WEB.match(target):
            continue
        if not target or "://" in target or not place.exists():
            yield Problem(page.name, line, f"link to {target!r}, which does not exist")
        elif anchor and anchor not in (Page(path, place.read_text()) if path else page).anchors:
            yield Problem(page.name, line, f"link to {target!r}: there is no such heading")


def length_problems(page: Page) -> Iterator[Problem]:
    """Yield a problem for a page that is too long."""
    lines = len(page.text.splitlines())
    if lines >= MAX_LINES:
        yield Problem(page.name, lines, f"the page has {lines} lines; split it, pages stay under {MAX_LINES}")


def contents_problems(page: Page, root: Path) -> Iterator[Problem]:
    """Yield a problem for a table of contents that does not list the second-level headings, in order.

    docs/README.md lists the pages instead. The README of the project needs no table of contents.
    """
    if page.name == "docs/README.md":
        linked = {target.partition("#")[0] for _, _, target in page.links}
        for path in sorted((root / "docs").glob("*.md")):
            if path.name not in linked | {"README.md"}:
                yield Problem(page.name, 1, f"the index does not link {path.name}")
    elif page.name != "README.md":
        headings = [(line, slug(text)) for line, level, text in page.headings if level == 2]
        first = headings[0][0] if headings else 0
        listed = [target[1:] for line, _, target in page.links if target.startswith("#") and line < first]
        expected = [anchor for _, anchor in headings]
        if listed != expected:
            yield Problem(page.name, 1, f"the table of contents lists {listed}, the headings are {expected}")


def sentence_problems(page: Page) -> Iterator[Problem]:
    """Yield the sentences that are too long."""
    for line, text in paragraphs(page):
        for sentence in SENTENCE_END.split(text):
            words = sum(any(letter.isalnum() for letter in word) for word in sentence.split())
            if words >= MAX_WORDS:
                yield Problem(page.name, line, f"a sentence of {words} words: {sentence[:60]} …")


def paragraphs(page: Page) -> Iterator[tuple[int, str]]:
    """Yield the first line and the plain text of each paragraph, list item and table cell."""
    start, words, previous = 0, "", 0
    for number, raw in [*page.prose, (0, "")]:
        line = LINK.sub(r"\1", CODE.sub("code", re.sub(r"^\s*> ?", "", raw))).rstrip()
        goes_on = line and number == previous + 1 and not NEW_PARAGRAPH.match(line)
        if words and not goes_on:
            yield start, words
            words = ""
        if line.startswith("|"):
            yield from ((number, cell.strip()) for cell in line.split("|"))
        elif not HEADING.match(line):
            start = start if words else number
            words = f"{words} {ITEM.sub('', line).strip()}".strip()
        previous = number


def block_problems(page: Page, root: Path) -> Iterator[Problem]:
    """Yield what is wrong with the fenced blocks: their language, their commands, their Python."""
    for block in page.blocks:
        yield from (Problem(page.name, block.line, fault) for fault in block_faults(block, root))


def block_faults(block: Block, root: Path) -> list[str]:
    """Return what is wrong with one block."""
    if block.language not in LANGUAGES:
        return [f"language {block.language!r} of a block, expected one of {', '.join(sorted(LANGUAGES))}"]
    if block.runnable and block.language not in RUNNABLE:
        return [f"a block of {block.language} cannot be run: remove the word run"]
    try:
        if block.language == "python":
            compile(block.text, block.page, "exec")
        if block.language not in SHELL:
            return []
        commands = [argv for text, _ in block.steps() for argv in simple_commands(text)]
    except (SyntaxError, ValueError) as err:
        return [f"cannot be parsed ({err}): {block.text}"]
    return [fault for argv in commands for fault in command_faults(argv, root)]


def simple_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in shell text: split at newlines, `;`, `&&`, `|` and parentheses."""
    for line in text.splitlines():
        lexer = shlex.shlex(REDIRECTION.sub("", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        argv: list[str] = []
        for word in [*lexer, ";"]:
            if word[0] in ";&|()":
                if argv:
                    yield argv
                argv = []
            elif argv or not PREFIX.match(word):
                argv.append(word)


def command_faults(argv: Sequence[str], root: Path) -> list[str]:
    """Return what is wrong with one command."""
    program, words = Path(argv[0]).name, list(argv[1:])
    if program not in PROGRAMS:
        return [f"unknown program {argv[0]!r}; correct it, or add it to PROGRAMS in docs/check.py"]
    if program == "mribatch":
        return flag_faults(words)
    if program == "python" and words[:2] == ["-m", "mribatch"]:
        return flag_faults(words[2:])
    if program == "python" and words and Path(words[0]).parent.name == "jobs" and (root / words[0]).exists():
        return flag_faults([Path(words[0]).stem, *words[1:]])
    if program == "make":
        known = TARGET.findall((root / "Makefile").read_text())
        return [f"make has no target {word}" for word in words if word not in known]
    if program == "ray":
        command = words[words.index("--") + 1 :] if "--" in words else []
        return [*ray_faults(words), *(command_faults(command, root) if command else []), *file_faults(words, root)]
    return [] if program == "systemctl" else file_faults(words, root)  # its names are those of units


def file_faults(words: Sequence[str], root: Path) -> list[str]:
    """Return the relative paths among some words that look like files of this repository, but are not."""
    named = (word for word in words if word.endswith(FILES) and re.match(r"[\w.]", word) and "://" not in word)
    return [f"{word} is not in the repository" for word in named if not (root / word).exists()]


def ray_faults(words: Sequence[str]) -> list[str]:
    """Return what Ray's own parser says of `ray …`. Nothing is run."""
    import click
    from ray.scripts.scripts import cli

    command: click.Command | None = cli
    rest = list(words)
    try:
        while isinstance(command, click.Group) and rest:
            context = command.make_context(None, rest, resilient_parsing=True)
            _, command, rest = command.resolve_command(context, rest)
        if command is not None:
            command.make_context(None, rest)
    except click.ClickException as err:
        return [f"ray {shlex.join(words)}: {err.format_message()}"]
    return [] if command else [f"ray {shlex.join(words)}: there is no such command"]


def flag_faults(words: Sequence[str]) -> list[str]:
    """Return what the command's own parser says of `COMMAND --flag value …`."""
    from mribatch import MribatchError
    from mribatch.commands.cli import parse

    if {"--help", "--version"} & {*words}:
        return []
    try:
        parse("".join(words[:1]), words[1:])
    except MribatchError as err:
        return [f"mribatch {shlex.join(words)}: {err}"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the manual and run its examples.")
    parser.add_argument("pages", nargs="*", help="paths of pages; default: all")
    parser.add_argument("--static", action="store_true", help="run no example")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="run the examples in this new folder, and keep it")
    flags = parser.parse_args()
    pages = [page for page in manual(ROOT) if not flags.pages or page.name in flags.pages]
    problems = [problem for page in pages for problem in check(page, ROOT)]
    if not problems and not flags.static:
        with tempfile.TemporaryDirectory(prefix="mribatch-docs-") as place:
            problems = run_examples(pages, ROOT, flags.keep or Path(place), lambda line: print(line, flush=True))
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(pages)} pages, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
