"""From a command line to an exit code: parse the flags, run, report errors in one sentence."""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from mribatch.cluster.supervisor import STOPPED, Stopped, stoppable
from mribatch.commands.arguments import gathered
from mribatch.errors import MribatchError

__all__ = ["Outcome", "run_command"]


class Outcome(Protocol):
    """What a run returns: a table to read and the exit code."""

    @property
    def exit_code(self) -> int: ...

    def table(self) -> str: ...


_COMMANDS = {
    "train": ("mribatch.settings.train:TrainConfig", "mribatch.commands.train:train"),
    "evaluate": ("mribatch.settings.evaluate:EvaluateConfig", "mribatch.commands.evaluate:evaluate"),
    "score": ("mribatch.settings.score:ScoreConfig", "mribatch.commands.score:score"),
    "nightly": ("mribatch.settings.score:NightlyConfig", "mribatch.commands.nightly:nightly"),
    "promote": ("mribatch.settings.evaluate:PromoteConfig", "mribatch.commands.promote:promote"),
    "compact": ("mribatch.settings.score:CompactConfig", "mribatch.commands.compact:compact"),
    "audit": ("mribatch.settings.audit:AuditConfig", "mribatch.commands.audit:audit"),
    "baselines": ("mribatch.settings.compare:BaselinesConfig", "mribatch.commands.compare:compare"),
}
"""The settings and the function of each command. They are imported once signals are handled: Ray takes seconds."""


def run_command(command: str, description: str, argv: Sequence[str] | None) -> int:
    """Run a command for its command line and return its exit code."""
    with stoppable():
        try:
            return _run(command, description, argv)
        except MribatchError as err:
            print(f"error: {err}", file=sys.stderr)
            return err.exit_code
        except Stopped as stop:
            print(STOPPED, file=sys.stderr)
            return int(str(stop.code))


def _run(command: str, description: str, argv: Sequence[str] | None) -> int:
    import tyro

    _log_to_stderr()
    settings, function = _COMMANDS[command]
    kind: Any = _imported(settings)
    words = gathered(kind, sys.argv[1:] if argv is None else argv)
    parsed: Any = tyro.cli(kind, args=words, description=description)
    outcome: Outcome = _imported(function)(parsed)
    print(outcome.table())
    return outcome.exit_code


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _log_to_stderr() -> None:
    """The package's own lines, plain; what other libraries log is theirs."""
    log = logging.getLogger("mribatch")
    log.handlers[:] = [logging.StreamHandler(sys.stderr)]
    log.setLevel(logging.INFO)
