"""Check the manual: links, commands, sentences and tables of contents; run the examples that are marked runnable.

All checks:              python -m docs.check
Without running:         python -m docs.check --static
Some pages:              python -m docs.check docs/scoring.md docs/evaluating.md

A fenced block names its language. `sh` holds commands, `console` holds commands after `$ ` with their output, `cron` holds
a crontab. The word `run` after the language (```console run, also for sh, python and sql) marks an example that is run.
All of them run in one temporary folder, in the order of the pages, beside copies of `samples/` and `models/`. Each command
must end with 0. Output that a `console` block shows must appear in that order; `…` stands for anything.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["Block", "Page", "Problem", "check", "manual", "run_examples"]

ROOT = Path(__file__).parent.parent
MAX_LINES = 150  # a page is read in one sitting
MAX_WORDS = 30  # a longer sentence has to be read twice
GENERATED = {"docs/faults.md", "docs/nights.md"}  # written by make targets: only their links are checked
OTHERS = ("CHANGELOG.md", "models/brain-mri-v1/MODEL_CARD.md")  # not pages of the manual: only their links, too
SHELL = {"sh", "console", "cron"}
LANGUAGES = SHELL | {"csv", "ini", "json", "python", "sql", "text", "yaml"}
PROGRAMS = {"aws", "cat", "cd", "cp", "export", "kubectl", "ls", "umask"}  # no flags of ours
IN_REPOSITORY = (".lock", ".py", ".service", ".timer", ".toml", ".yaml")  # a relative path that ends so names a file of ours

FENCE = re.compile(r"^\s*```(.*)$")
HEADING = re.compile(r"^(#{1,6}) +(.+?) *$")
LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]*)\)")
CODE = re.compile(r"`[^`]+`")
ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) +")
SENTENCE_END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.!?])[)*\"”]*\s+")
ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)", re.MULTILINE)
CRON_TIMES = re.compile(r"^(?:\S+ +){4}\S+ +")


@dataclass(frozen=True)
class Problem:
    """What is wrong in a page, and where."""

    page: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is the line of its opening fence."""

    page: str
    line: int
    language: str
    runnable: bool
    text: str

    def steps(self) -> list[tuple[str, str]]:
        """Return the commands, each with the output that is shown for it."""
        if self.language != "console":
            joined = self.text.replace("\\\n", " ")
            if self.language == "cron":
                joined = "\n".join(CRON_TIMES.sub("", line) for line in joined.splitlines())
            return [(joined, "")]
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]
        steps = (re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL) for part in parts)
        return [(step[1].replace("\\\n", " "), step[2]) for step in steps if step]


@dataclass(frozen=True)
class Page:
    """A Markdown file; `name` is its path from the repository's root."""

    name: str
    text: str

    @cached_property
    def _split(self) -> tuple[list[Block], list[tuple[int, str]]]:
        blocks, prose = [], []
        opened: tuple[int, list[str]] | None = None
        lines: list[str] = []
        for number, line in enumerate(self.text.splitlines(), 1):
            fence = FENCE.match(line)
            if fence and opened is None:
                opened, lines = (number, fence[1].split()), []
            elif fence and opened is not None:
                start, words = opened
                blocks.append(Block(self.name, start, "".join(words[:1]), "run" in words[1:], "\n".join(lines)))
                opened = None
            elif opened is not None:
                lines.append(line)
            else:
                prose.append((number, line))
        return blocks, prose

    @property
    def blocks(self) -> list[Block]:
        return self._split[0]

    @property
    def prose(self) -> list[tuple[int, str]]:
        """The numbered lines outside fenced blocks."""
        return self._split[1]

    @property
    def headings(self) -> list[tuple[int, int, str]]:
        """Line, level and text of each heading."""
        return [(n, len(match[1]), match[2]) for n, line in self.prose if (match := HEADING.match(line))]

    @property
    def anchors(self) -> set[str]:
        """The anchors that GitHub gives the headings."""
        known: set[str] = set()
        for _, _, text in self.headings:
            base = slug(text)
            numbered = (f"{base}-{count}" for count in range(1, len(self.headings) + 1))
            known.add(base if base not in known else next(name for name in numbered if name not in known))
        return known

    @property
    def links(self) -> list[tuple[int, str, str]]:
        """Line, text and target of each link and picture outside code."""
        return [(n, text, target) for n, line in self.prose for text, target in LINK.findall(CODE.sub("code", line))]


def slug(heading: str) -> str:
    """Return GitHub's anchor for a heading."""
    plain = LINK.sub(r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def manual(root: Path) -> list[Page]:
    """Return the README and the pages of docs/, in the order in which docs/README.md lists them, then other files."""
    index = root / "docs" / "README.md"
    names = ["README.md", "docs/README.md"]
    if index.exists():
        listed = [f"docs/{target}" for _, _, target in Page("", index.read_text()).links if "/" not in target]
        names += [name for name in listed if name.endswith(".md") and (root / name).exists()]
    names += sorted(path.relative_to(root).as_posix() for path in (root / "docs").glob("*.md"))
    names += OTHERS
    return [Page(name, (root / name).read_text()) for name in dict.fromkeys(names) if (root / name).exists()]


def check(page: Page, root: Path) -> list[Problem]:
    """Return what is wrong with a page, without running anything."""
    problems = [*link_problems(page, root)]
    if page.name not in GENERATED | {*OTHERS}:
        problems += [*block_problems(page, root), *contents_problems(page, root)]
        problems += [*length_problems(page), *sentence_problems(page)]
    return sorted(problems, key=lambda problem: problem.line)


def link_problems(page: Page, root: Path) -> Iterator[Problem]:
    """Yield the links whose file or heading does not exist. Addresses on the web are not asked."""
    for line, _, target in page.links:
        path, _, anchor = target.partition("#")
        if re.match(r"https?://[\w.-]+(/|$)", target):
            continue
        place = (root / page.name).parent / path if path else root / page.name
        if not target or "://" in target or not place.exists():
            yield Problem(page.name, line, f"link to {target!r}, which does not exist")
        elif anchor and anchor not in Page(path, place.read_text()).anchors:
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
        goes_on = line and number == previous + 1 and not re.match(r"\||#+ |\s*([-*]|\d+\.) ", line)
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
        if block.language not in LANGUAGES:
            known = ", ".join(sorted(LANGUAGES))
            yield Problem(page.name, block.line, f"language {block.language!r} of a block, expected one of {known}")
        elif block.language == "python":
            try:
                compile(block.text, page.name, "exec")
            except SyntaxError as err:
                yield Problem(page.name, block.line, f"not Python: {err}")
        elif block.language in SHELL:
            for text, _ in block.steps():
                try:
                    faults = [fault for argv in simple_commands(text) for fault in command_faults(argv, root)]
                except ValueError as err:
                    faults = [f"not a shell command ({err}): {text}"]
                yield from (Problem(page.name, block.line, fault) for fault in faults)


def simple_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in shell text: split at newlines, `;`, `&&`, `|` and parentheses."""
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        argv: list[str] = []
        for word in [*lexer, ";"]:
            if word == "sudo":
                continue
            if word[0] in ";&|()":
                if argv:
                    yield argv
                argv = []
            elif argv or not ASSIGNMENT.match(word):  # RAY_AUTH_MODE=token before a command
                argv.append(word)


def command_faults(argv: Sequence[str], root: Path) -> list[str]:
    """Return what is wrong with one command."""
    program, words = Path(argv[0]).name, list(argv[1:])
    if program == "mribatch":
        return flag_faults(words)
    if program == "make":
        known = TARGET.findall((root / "Makefile").read_text())
        return [f"make has no target {word}" for word in words if word not in known and not ASSIGNMENT.match(word)]
    if program == "ray" and words[:2] == ["job", "submit"] and "--" in words:
        return command_faults(words[words.index("--") + 1 :], root)
    if program in ("python", "python3", "python3.11") and words:
        if words[:2] == ["-m", "mribatch"]:
            return flag_faults(words[2:])
        script = Path(words[0])
        if script.parent.name == "jobs" and (root / "jobs" / script.name).exists():
            return flag_faults([script.stem, *words[1:]])
    elif program == "systemctl":  # its names are those of units, not of our files
        return []
    elif program not in PROGRAMS | {"ray", "pip", "python", "source", "."}:
        return [f"unknown program {argv[0]!r}; correct it, or add it to PROGRAMS in docs/check.py"]
    named = (word for word in words if word.endswith(IN_REPOSITORY) and re.match(r"[\w.]", word) and "://" not in word)
    return [f"{shlex.join(argv)} names {word}, which is not in the repository" for word in named if not (root / word).exists()]


def flag_faults(words: Sequence[str]) -> list[str]:
    """Return what the command's own parser says of `COMMAND --flag value …`."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            parse(words)
    except SystemExit as end:
        if end.code:
            reason = " ".join(re.sub(r"[│╭╮╰╯─]", " ", output.getvalue()).split()) or str(end.code)
            return [f"mribatch {shlex.join(words)}: {reason}"]
    except Exception as err:
        from mribatch import MribatchError

        if not isinstance(err, MribatchError):
            raise
        return [f"mribatch {shlex.join(words)}: {err}"]
    return []


def parse(words: Sequence[str]) -> None:
    """Parse the words after `mribatch` as the command does. Raises SystemExit and MribatchError."""
    import tyro

    import mribatch
    from mribatch.runs.arguments import gathered

    if list(words) == ["--help"]:
        return
    command = "".join(words[:1])
    kind = getattr(mribatch, f"{command.capitalize()}Config", None)
    if kind is None:
        raise SystemExit(f"there is no command {command!r}")
    tyro.cli(kind, args=gathered(kind, words[1:]))


def run_examples(pages: Sequence[Page], root: Path, place: Path, tell: Callable[[str], object] = print) -> list[Problem]:
    """Run the blocks that are marked runnable, in the folder `place`; return those that fail or print something else."""
    problems = []
    environment = prepare(place, root)
    for block in (block for page in pages for block in page.blocks if block.runnable):
        for text, shown in block.steps():
            begun = time.monotonic()
            wrong = run_step(block.language, text, shown, place / "work", environment)
            tell(f"{block.page}:{block.line}: {' '.join(text.split())[:100]} … {time.monotonic() - begun:.1f} s")
            problems += [Problem(block.page, block.line, wrong)] if wrong else []
    return problems


def prepare(place: Path, root: Path) -> dict[str, str]:
    """Make the working folder and the programs of the examples in `place`; return their environment, without a network."""
    for name in ("samples", "models"):
        if (root / name).exists():
            shutil.copytree(root / name, place / "work" / name)
    (place / "work").mkdir(exist_ok=True)
    (place / "bin").mkdir()
    for program, words in {"python": '"$@"', "mribatch": '-m mribatch "$@"'}.items():
        if program == "mribatch" and not (root / "mribatch" / "__main__.py").exists():
            words = f'{shlex.quote(str(root))}/jobs/"$1".py "${{@:2}}"'
        (place / "bin" / program).write_text(f"#!/bin/bash\nexec {shlex.quote(sys.executable)} {words}\n")
        (place / "bin" / program).chmod(0o755)
    dead = "http://127.0.0.1:9"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "MRIBATCH_"))}
    return kept | {
        "PATH": f"{place / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "AWS_ENDPOINT_URL": dead,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HTTP_PROXY": dead,
        "HTTPS_PROXY": dead,
        "NO_PROXY": "127.0.0.1,localhost",
        "PIP_NO_INDEX": "1",
    }


def run_step(language: str, text: str, shown: str, folder: Path, environment: dict[str, str]) -> str:
    """Run one command or script; return what is wrong with its end or its output, "" if nothing."""
    sql = "import sys, duckdb; print(duckdb.sql(sys.argv[1]))"
    words = {"python": ["python", "-c", text], "sql": ["python", "-c", sql, text]}
    argv = words.get(language, ["bash", "-euo", "pipefail", "-c", text])
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(argv, cwd=folder, env=environment, timeout=600, check=False, **output)
    if done.returncode:
        return f"{text.strip()} ended with {done.returncode}:\n{done.stdout[-3000:]}"
    missing = missing_line(shown, done.stdout)
    return f"{text.strip()} does not print {missing!r}, but:\n{done.stdout[-3000:]}" if missing else ""


def missing_line(shown: str, output: str) -> str | None:
    """Return the first shown line that the output does not hold, in that order; `…` stands for anything."""
    lines = iter(output.splitlines())
    for expected in filter(str.strip, shown.splitlines()):
        pattern = ".*".join(map(re.escape, " ".join(expected.split()).split("…")))
        if not any(re.fullmatch(pattern, " ".join(line.split())) for line in lines):
            return expected
    return None


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
