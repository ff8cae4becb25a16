"""What commands show: a bar on a terminal, plain lines in a pipe, and tables in both. No Ray is started."""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mribatch.commands import screen
from mribatch.commands.screen import Shown, Table
from tests.terminal import Terminal

ROOT = Path(__file__).parent.parent.parent
HIDE_CURSOR = b"\x1b[?25l"
CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")

PROGRAM = """
import logging, os, sys, time
from mribatch.cluster.supervisor import supervised
from mribatch.commands import screen

class Done(screen.Shown):
    exit_code = 0
    def blocks(self):
        return [screen.Table([("glioma", "12"), ("scan\\x1b[31m [red]", "3")], ("class", "scans")), "end"]

def main():
    log = logging.getLogger("mribatch.test")
    with screen.opened("test: loading …"):
        log.info("starting Ray …")
        with screen.progress("scoring", 40, "scans") as bar:
            for done in (0, 10, 20):
                bar.count(done, done // 10)
                time.sleep(0.3)
            log.info("a line with [brackets]")
            print("a stranger's line", file=sys.stderr)
            os.write(2, b"a line from C++\\n")
            time.sleep(0.3)
            ENDING
    screen.show(Done())
    return 0

sys.exit(supervised(main))
"""


def command(ending: str = "") -> list[str]:
    return [sys.executable, "-c", PROGRAM.replace("ENDING", ending)]


def test_a_terminal_shows_phases_figures_lines_and_at_the_end_a_drawn_table() -> None:
    terminal = Terminal(command())
    assert terminal.close() == 0
    text = terminal.output.decode()
    for words in ("starting Ray …", "0/40 scans", "22/40 scans", "2 rejected", "left"):
        assert words in text, words
    for line in ("a line with [brackets]", "a stranger's line", "a line from C++"):
        assert line in text
    assert "━" in text, "a bar"
    table = text[text.rindex("━") :]
    assert "─" in table, "drawn"
    assert r"scan\x1b[31m [red]" in table


def test_a_pipe_gets_plain_lines_and_not_one_control_character() -> None:
    done = subprocess.run(command(), capture_output=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert not CONTROL.search(done.stdout + done.stderr)
    assert done.stdout.decode().splitlines() == [
        "class               scans",
        "glioma                 12",
        r"scan\x1b[31m [red]      3",
        "end",
    ]
    assert done.stderr.decode().splitlines()[:2] == ["test: loading …", "starting Ray …"]


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        ("raise OSError('broken')", 1, "OSError: broken"),
        ("os.kill(os.getppid(), 2); time.sleep(30)", 130, "stopped: "),
        ("os.kill(os.getpid(), 9)", 1, "signal SIGKILL"),
    ],
)
def test_the_cursor_stays_visible_however_a_command_ends(ending: str, code: int, words: str) -> None:
    terminal = Terminal(command(ending))
    assert terminal.close() == code
    assert words.encode() in terminal.output
    assert HIDE_CURSOR not in terminal.output


def test_a_terminal_that_is_closed_fails_no_run(tmp_path: Path) -> None:
    ending = f"time.sleep(1); log.info('on'); open({str(tmp_path / 'end')!r}, 'w').close()"
    program = PROGRAM.replace(
        "import logging,", "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\nimport logging,"
    )
    terminal = Terminal([sys.executable, "-c", program.replace("ENDING", ending)])
    terminal.seconds_until("a line from C++")
    terminal.hang_up()
    assert (terminal.wait(), (tmp_path / "end").exists()) == (0, True)


def test_a_dumb_terminal_gets_plain_lines() -> None:
    terminal = Terminal(command(), kind="dumb")
    assert terminal.close() == 0
    assert b"\x1b" not in terminal.output


@pytest.fixture
def job_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """The lines of a job's log, of which one may be written every moment."""
    monkeypatch.setattr(screen, "_LINE_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "mribatch"):
        yield caplog


def test_without_a_screen_progress_is_lines_with_rate_and_time_left(
    job_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 10.0, 20.0, 40.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with screen.progress("scoring", 1000, "scans") as bar:
        bar.count(100, 0)
        bar.count(200, 5)
        bar.count(400, 5)
    assert job_log.messages == [
        "100/1,000 scans · 0 rejected",
        "205/1,000 scans · 10.5 scans/s · 76 s left · 5 rejected",
        "405/1,000 scans · 10.2 scans/s · 59 s left · 5 rejected",
    ]


def test_progress_that_workers_log_themselves_adds_no_lines(job_log: pytest.LogCaptureFixture) -> None:
    with screen.progress("training", 3, "epochs", logged=False) as bar:
        bar.heard(1.5)
        bar.heard(None)
    assert bar.done == 1.5
    assert job_log.messages == []


def test_more_than_all_is_all() -> None:
    with screen.progress("scoring", 10, "scans") as bar:
        bar.advance(12)
    assert bar.done == 10


def test_columns_of_a_plain_table_are_aligned_and_end_without_blanks() -> None:
    table = Table([("a", "1", "x"), ("long", "1,000", "")], ("name", "count", "note"), align="lrl")
    assert str(table).splitlines() == ["name  count  note", "a         1  x", "long  1,000"]


def test_an_empty_table_is_not_shown() -> None:
    class Nothing(Shown):
        def blocks(self) -> list[screen.Block]:
            return [Table([], ("class",)), "end"]

    assert Nothing().table() == "end"


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_a_duration_has_a_unit_that_can_be_read(seconds: float, words: str) -> None:
    assert screen.duration(seconds) == words
