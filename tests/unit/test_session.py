"""What a session promises before any Ray has started: what is unwanted on stderr is kept from it, all else is not lost."""

import os

import pytest

from mribatch.runs.session import quiet_stderr


def test_only_unwanted_lines_are_kept_from_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_stderr(b"greeting"):
        os.write(2, b"a greeting of a library\na warning\n")
        assert capfd.readouterr().err == "", "all of it waits for the end"
    assert capfd.readouterr().err == "a warning\n"
    with quiet_stderr():
        os.write(2, b"anything\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_what_was_held_back_comes_after_an_error_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="no luck"), quiet_stderr(b"greeting"):
        os.write(2, b"a warning\n")
        raise OSError("no luck")
    assert capfd.readouterr().err == "a warning\n"
