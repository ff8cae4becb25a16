"""What `score` shows: a bar on a terminal from the start, and plain text in a pipe."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mribatch.models.format import Model
from tests.terminal import Terminal

ROOT = Path(__file__).parent.parent.parent
CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")
SOON_S = 2.0

ScanFolder = Callable[..., list[str]]


@pytest.fixture
def command(tiny_model: Model, tmp_path: Path, scan_folder: ScanFolder) -> list[str]:
    scan_folder(tmp_path / "scans", {"glioma": 4, "notumor": 4})
    (tmp_path / "scans" / "broken\x1b[31m.png").write_bytes(b"no picture")
    flags = ["--model", tiny_model.uri, "--input", str(tmp_path / "scans"), "--output", str(tmp_path / "out")]
    return [sys.executable, str(ROOT / "jobs" / "score.py"), *flags, "--max-reject-rate", "1"]


def test_a_terminal_shows_a_bar_within_two_seconds_and_in_the_end_a_drawn_table(command: list[str]) -> None:
    terminal = Terminal(command)
    assert terminal.seconds_until("━") < SOON_S, "a bar, while libraries are still loaded"
    assert terminal.close() == 0
    text = terminal.output.decode()
    for words in ("listing ", "loading the model …", "0/9 scans", "9/9 scans", "1 rejected"):
        assert words in text, words
    table = text[text.rindex("━") :]
    assert re.search(r"╭─+.*scored +│ +8 .*rejected +│ +1 .*╰─+.*Predictions: ", table, re.DOTALL), table
    assert "\x1b[?25l" not in text, "the cursor stays visible"


def test_a_pipe_gets_not_one_control_character(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=True)
    assert not CONTROL.search(done.stdout + done.stderr)
    assert done.stderr.decode().splitlines()[0] == "score: loading libraries …"
    assert re.search(r"^scored +8$", done.stdout.decode(), re.MULTILINE)
