"""From a command line to an exit code: parse the flags, run, report errors in one sentence."""

import logging
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import mribatch
from mribatch.errors import MribatchError
from mribatch.runs.arguments import gathered
from mribatch.runs.supervisor import STOPPED, Stopped, stoppable

__all__ = ["Outcome", "run_command"]


class Outcome(Protocol):
    """What a run returns: a table to read and the exit code."""

    @property
    def exit_code(self) -> int: ...

    def table(self) -> str: ...


def run_command(config: str, command: str, description: str, argv: Sequence[str] | None) -> int:
    """Run a command for its command line and return its exit code, as README lists them.

    config and command are public names of `mribatch`. They are imported here, once signals are handled: Ray takes seconds.
    """
    with stoppable():
        try:
            return _run(config, command, description, argv)
        except MribatchError as err:
            print(f"error: {err}", file=sys.stderr)
            return err.exit_code
        except Stopped as stop:
            print(STOPPED, file=sys.stderr)
            return int(str(stop.code))


def _run(config: str, command: str, description: str, argv: Sequence[str] | None) -> int:
    import tyro

    _log_to_stderr()
    kind = getattr(mribatch, config)
    words = gathered(kind, sys.argv[1:] if argv is None else argv)
    parsed: Any = tyro.cli(kind, args=words, description=description)
    outcome: Outcome = getattr(mribatch, command)(parsed)
    print(outcome.table())
    return outcome.exit_code


def _log_to_stderr() -> None:
    """The package's own lines, plain; what other libraries log is theirs."""
    log = logging.getLogger("mribatch")
    log.handlers[:] = [logging.StreamHandler(sys.stderr)]
    log.setLevel(logging.INFO)
