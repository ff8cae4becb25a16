"""Processes that answer their parent: what they inherit, and what is known of them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from mribatch import child

_ANSWER = "from mribatch import child; line = child.parent(); line.send({}); line.recv()"


def answer(expression: str) -> Any:
    """Return what a child computes, and let it end."""
    process, line = child.start(_ANSWER.format(expression))
    try:
        assert line.poll(60)
        return line.recv()
    finally:
        line.close()
        process.wait(20)


def test_a_module_in_the_current_folder_takes_the_place_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert answer("__import__('queue').__file__") == sys.modules["queue"].__file__


def test_what_a_child_starts_finds_nothing_on_its_stdin() -> None:
    assert answer("__import__('subprocess').run(['cat'], capture_output=True, timeout=20).stdout") == b""


def test_the_peak_memory_of_a_child_is_not_that_of_its_parent() -> None:
    held = bytearray(b"1") * (200 << 20)
    assert child.peak_bytes() > len(held)
    assert 0 < answer("child.peak_bytes()") < len(held)


def test_a_process_that_has_ended_has_no_memory() -> None:
    process, line = child.start("pass")
    process.wait(60)
    line.close()
    assert child.peak_bytes(process.pid) == 0


def test_an_ending_is_named() -> None:
    assert child.ending(3) == "exit code 3"
    assert child.ending(-9) == "SIGKILL"
