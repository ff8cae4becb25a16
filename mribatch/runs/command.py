"""From a command line to an exit code: parse the flags, run, say errors in one sentence. No job's own logic."""

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Protocol, TypeVar

import tyro

from mribatch.errors import MribatchError
from mribatch.runs.arguments import gathered

__all__ = ["Outcome", "run_command"]

INTERRUPTED = 130  # the shell's code for Ctrl-C
TERMINATED = 143  # and for SIGTERM

Config = TypeVar("Config")


class Outcome(Protocol):
    """What a run returns: a table to read and the exit code."""

    @property
    def exit_code(self) -> int: ...

    def table(self) -> str: ...


def run_command(
    config: type[Config], run: Callable[[Config], Outcome], description: str, argv: Sequence[str] | None
) -> int:
    """Run a job for its command line and give its exit code, as README lists them."""
    _log_to_stderr()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        words = gathered(config, sys.argv[1:] if argv is None else argv)
        outcome = run(tyro.cli(config, args=words, description=description))
    except MribatchError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this one was", file=sys.stderr)
        return INTERRUPTED
    print(outcome.table())
    return outcome.exit_code


def _log_to_stderr() -> None:
    """The package's own lines, plain; what other libraries log is theirs."""
    log = logging.getLogger("mribatch")
    log.handlers[:] = [logging.StreamHandler(sys.stderr)]
    log.setLevel(logging.INFO)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
