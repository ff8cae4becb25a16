"""Show what a command is doing, and what it did: a bar and drawn tables on a terminal, plain lines in a pipe or a job's log.

A log line that ends in "…" names the phase that begins. On a terminal it stands beside the bar until the next one.
Workers and callers of the library open no screen: for them `progress` only logs.
"""

import logging
import os
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from mribatch.cluster.supervisor import lasting_stream

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Bar", "Block", "Outcome", "Shown", "Table", "duration", "opened", "plain", "printable", "progress", "show"]

log = logging.getLogger("mribatch.progress")

_LINE_EVERY_S = 10.0  # in a job's log
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline


# What a command did


@dataclass(frozen=True)
class Table:
    """Rows of text under optional headings. align: l or r for each column; the last letter stands for all further ones."""

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    align: str = "lr"

    def __str__(self) -> str:
        rows = [[printable(cell) for cell in row] for row in (self.head, *self.rows) if row]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(self._aligned, range(len(row)), row, widths)).rstrip() for row in rows)

    def _aligned(self, column: int, cell: str, width: int) -> str:
        return cell.rjust(width) if self.is_right(column) else cell.ljust(width)

    def is_right(self, column: int) -> bool:
        """Say whether a column is aligned to the right, as numbers are."""
        return self.align[min(column, len(self.align) - 1)] == "r"


Block = str | Table
"""A line, or a table."""


class Outcome(Protocol):
    """What a command returns."""

    @property
    def exit_code(self) -> int: ...

    def blocks(self) -> Sequence[Block]: ...

    def table(self) -> str: ...


class Shown(ABC):
    """Base of what commands return: blocks for the screen, and `table`, their plain text."""

    @abstractmethod
    def blocks(self) -> Sequence[Block]:
        """Return lines and tables from top to bottom."""

    def table(self) -> str:
        """Return the blocks as plain text."""
        return plain(self.blocks())


def plain(blocks: Sequence[Block]) -> str:
    """Return blocks as text without control characters other than newlines."""
    return "\n".join(printable(str(block)) for block in blocks if not isinstance(block, Table) or block.rows)


def show(outcome: Outcome) -> None:
    """Print what a command did: drawn on a terminal, as plain text elsewhere."""
    if not _is_terminal(sys.stdout):
        print(outcome.table())
        return
    console = _console(sys.stdout)
    for block in outcome.blocks():
        if isinstance(block, str):
            console.print(printable(block), style=_style(block), markup=False, highlight=False, soft_wrap=True)
        elif block.rows:
            console.print(_drawn(block))


def _drawn(table: Table) -> Any:
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.ROUNDED, show_header=bool(table.head), header_style="bold")
    for column in range(len(table.rows[0])):
        name = table.head[column] if table.head else ""
        drawn.add_column(Text(name), justify="right" if table.is_right(column) else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row), style=_style(row[-1]))
    return drawn


def printable(text: str) -> str:
    """Return text with its control characters escaped; a file's name may hold any."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _style(text: str) -> str:
    if text.startswith(("ALARM", "WRONG", "failed:", "refused:")):
        return "bold red"
    return "yellow" if text.startswith("warning:") else ""


# What a command is doing


@contextmanager
def opened(first: str = "") -> Iterator[None]:
    """Show the package's log lines on stderr while this lasts, after a first line, and below them a bar if that is a terminal."""
    package = logging.getLogger("mribatch")
    package.setLevel(logging.INFO)
    package.handlers[:] = [_Plain(sys.stderr)]
    if first:
        package.info("%s", first)
    if not _is_terminal(sys.stderr):
        yield
        return
    display = _Display(first)
    package.handlers[:] = [_Above(display)]
    _displays.append(display)
    try:
        with display.progress:
            yield
    finally:
        _displays.remove(display)
        package.handlers[:] = [_Plain(sys.stderr)]
        display.close()


@contextmanager
def progress(name: str, total: int, unit: str, *, logged: bool = True) -> Iterator["Bar"]:
    """Show how much of some work is done while this lasts: by the bar of the open screen, else by lines if `logged`."""
    display = _displays[-1] if _displays else None
    bar = Bar(name=name, total=total, unit=unit, logged=logged, display=display)
    bar.update(0)
    try:
        yield bar
    finally:
        if display is not None:
            display.reset()


@dataclass(kw_only=True)
class Bar:
    """The progress of some work, of which `total` units are to do."""

    name: str
    total: int
    unit: str
    logged: bool
    display: "_Display | None"
    done: float = 0
    _first: tuple[float, float] | None = None  # when the first units were done, and how many
    _logged_at: float = field(default_factory=lambda: time.monotonic())

    def advance(self, units: float = 1) -> None:
        """Note that more units are done."""
        self.update(self.done + units)

    def count(self, scored: int, rejected: int) -> None:
        """Note how many scans were scored or failed, and rejected."""
        self.update(scored + rejected, f"{rejected:,} rejected")

    def heard(self, done: float | None) -> None:
        """Note how many units a worker has reported, if it reported any."""
        if done is not None:
            self.update(done)

    def update(self, done: float, note: str = "") -> None:
        """Note how many units are done. The note is shown behind the figures."""
        now, moved = time.monotonic(), done > self.done
        self.done = min(done, self.total)
        if self.done and self._first is None:
            self._first = now, self.done
        if self.display is not None:
            self.display.update(self, self._figures(now, note))
        elif self.logged and moved and now - self._logged_at >= _LINE_EVERY_S:
            self._logged_at = now
            log.info("%s", self._figures(now, note))

    def _figures(self, now: float, note: str) -> str:
        figures = [f"{int(self.done):,}/{self.total:,} {self.unit}"]
        began, first = self._first or (now, 0.0)
        if self.done > first and now > began:
            rate = (self.done - first) / (now - began)
            figures += [f"{rate:.1f} {self.unit}/s"] * (rate >= 0.1)
            figures += [f"{duration((self.total - self.done) / rate)} left"]
        return " · ".join([*figures, *([note] if note else [])])


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that keeps two digits, such as 80 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


_displays: list["_Display"] = []  # the open screen of this process, if it has one


class _Display:
    """One line at the bottom of a terminal: the phase, a bar, figures and the time since the start.

    It writes to a copy of stderr's descriptor: libraries are kept quiet by pointing the descriptor itself elsewhere.
    """

    def __init__(self, phase: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._descriptor = os.dup(sys.stderr.fileno())
        stream = lasting_stream(self._descriptor, sys.stderr.encoding)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=_console(stream),
            transient=True,
            refresh_per_second=4,
            redirect_stdout=_is_terminal(sys.stdout),
        )
        self._phase = phase
        self._task = self.progress.add_task(phase, total=None, figures="")

    def close(self) -> None:
        """Give the copy of stderr's descriptor back."""
        self.progress.console.file.flush()
        os.close(self._descriptor)

    def line(self, text: str) -> None:
        """Print a line above the bar, or show the phase that it names."""
        if text.endswith("…"):
            self._phase = text
            self.progress.update(self._task, description=text)
        else:
            self.progress.console.print(text, style=_style(text), markup=False, highlight=False, soft_wrap=True)

    def update(self, bar: Bar, figures: str) -> None:
        """Show the figures of some work; its name takes the place of the phase once a unit is done."""
        name = bar.name if bar.done else self._phase
        self.progress.update(
            self._task,
            total=bar.total,
            completed=bar.done,
            description=name,
            figures=figures,
            refresh=bar.done >= bar.total,  # the end is shown, however soon the next phase begins
        )

    def reset(self) -> None:
        """Show neither figures nor a phase until the next one begins."""
        self._phase = ""
        self.progress.reset(self._task, total=None, description="", figures="")


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    class Steady(Console):
        """A console that never hides the cursor: a process that is killed could not show it again."""

        def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002 - rich's signature
            return False

    return Steady(file=stream, force_terminal=True, force_interactive=True)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


class _Plain(logging.StreamHandler[TextIO]):
    """Log lines as they are."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Above(logging.Handler):
    """Log lines above the bar."""

    def __init__(self, display: _Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.line(printable(self.format(record)))
