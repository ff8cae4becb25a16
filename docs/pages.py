"""Pages of the manual: Markdown files, their blocks, headings, anchors and links."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["CODE", "HEADING", "LINK", "OTHERS", "Block", "Page", "Problem", "manual", "slug"]

OTHERS = ("CHANGELOG.md", "models/brain-mri-v2/MODEL_CARD.md")  # not pages of the manual: only their links are checked

HEADING = re.compile(r"^(#{1,6}) +(.+?) *$")
LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]*)\)")
CODE = re.compile(r"`[^`]+`")

_FENCE = re.compile(r"^\s*```(.*)$")
_CONSOLE_STEP = re.compile(r"^\$ ((?:.*\\\n)*.*)\n?((?:(?!\$ ).*\n?)*)", re.MULTILINE)
_CRON_TIMES = re.compile(r"^(?:\S+ +){4}\S+ +", re.MULTILINE)


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
        if self.language == "console":
            steps = _CONSOLE_STEP.findall(self.text)
            return [(command.replace("\\\n", " "), output) for command, output in steps]
        if self.language == "cron":
            return [(_CRON_TIMES.sub("", self.text), "")]
        return [(self.text.replace("\\\n", " ") if self.language == "sh" else self.text, "")]


@dataclass(frozen=True)
class Page:
    """A Markdown file; `name` is its path from the repository's root."""

    name: str
    text: str

    @cached_property
    def _parts(self) -> tuple[list[Block], list[tuple[int, str]]]:
        """The fenced blocks, and the numbered lines between them."""
        blocks: list[Block] = []
        prose: list[tuple[int, str]] = []
        opening, words, inside = 0, [""], list[str]()  # of the block that is open, if `opening` is a line
        for number, line in enumerate([*self.text.splitlines(), ""], 1):
            fence = _FENCE.match(line)
            if opening and fence:
                blocks.append(Block(self.name, opening, words[0], "run" in words[1:], "\n".join(inside)))
                opening = 0
            elif opening:
                inside.append(line)
            elif fence:
                opening, words, inside = number, fence[1].split() or [""], []
            else:
                prose.append((number, line))
        if opening:
            blocks.append(Block(self.name, opening, "unclosed", False, ""))
        return blocks, prose

    @property
    def blocks(self) -> list[Block]:
        """The fenced blocks; the language of one without an end is "unclosed"."""
        return self._parts[0]

    @property
    def prose(self) -> list[tuple[int, str]]:
        """The numbered lines outside fenced blocks."""
        return self._parts[1]

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
