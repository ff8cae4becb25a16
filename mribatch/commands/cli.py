"""From a command line to an exit code: parse the flags, run the command, report errors in one sentence."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mribatch.cluster.supervisor import STOPPED, Stopped, stoppable
from mribatch.commands import screen
from mribatch.commands.screen import Outcome
from mribatch.errors import ConfigError, MribatchError
from mribatch.settings.base import Settings
from mribatch.settings.suggestions import did_you_mean
from mribatch.version import __version__

__all__ = ["COMMANDS", "Command", "Outcome", "parse", "run", "run_command"]

PROGRAM = "mribatch"
_HELP = ("-h", "--help")


@dataclass(frozen=True)
class Command:
    """A command of `mribatch`. Settings and function are places, "module:name": they are imported when needed."""

    summary: str
    example: str  # without the program's name
    settings: str
    function: str


COMMANDS = {
    "inspect": Command(
        "say what an archive holds and what would be scored, skipped and rejected; needs no model",
        "inspect --input SCANS",
        "mribatch.settings.inspect:InspectConfig",
        "mribatch.commands.inspect:inspect",
    ),
    "score": Command(
        "score scans with a model; run it again to score what is new",
        "score --model brain-mri-v2 --input SCANS --output predictions",
        "mribatch.settings.score:ScoreConfig",
        "mribatch.commands.score:score",
    ),
    "nightly": Command(
        "score what is new or changed until a deadline, and write a report with alarms",
        "nightly --model models --input SCANS --output predictions --deadline 06:00 --timezone Europe/Paris",
        "mribatch.settings.score:NightlyConfig",
        "mribatch.commands.nightly:nightly",
    ),
    "compact": Command(
        "merge small Parquet parts and delete old predictions",
        "compact --output predictions --keep-days 365",
        "mribatch.settings.score:CompactConfig",
        "mribatch.commands.compact:compact",
    ),
    "studies": Command(
        "sum up predictions by series and by study, as tables in the output",
        "studies --output predictions",
        "mribatch.settings.studies:StudiesConfig",
        "mribatch.commands.studies:studies",
    ),
    "audit": Command(
        "find copies, leaks between splits, wrong labels and shortcuts in labelled scans",
        "audit --data LABELLED --output audit",
        "mribatch.settings.audit:AuditConfig",
        "mribatch.commands.audit:audit",
    ),
    "train": Command(
        "fine-tune a model on labelled scans",
        "train --data LABELLED --output models/mine",
        "mribatch.settings.train:TrainConfig",
        "mribatch.commands.train:train",
    ),
    "calibrate": Command(
        "make a model's confidence a probability, and let it name the scans to review",
        "calibrate --model brain-mri-v2 --data LABELLED --output models/calibrated",
        "mribatch.settings.calibrate:CalibrateConfig",
        "mribatch.commands.calibrate:calibrate",
    ),
    "evaluate": Command(
        "measure a model on labelled scans: metrics, figures and a report",
        "evaluate --model brain-mri-v2 --data LABELLED --output evaluation",
        "mribatch.settings.evaluate:EvaluateConfig",
        "mribatch.commands.evaluate:evaluate",
    ),
    "accept": Command(
        "measure a model on scans of your site and say whether it is fit for triage there",
        "accept --model brain-mri-v2 --data LABELLED_AT_YOUR_SITE --output acceptance",
        "mribatch.settings.site:AcceptConfig",
        "mribatch.commands.accept:accept",
    ),
    "adapt": Command(
        "fit the batch statistics of a model to unlabelled scans of your site, as a new model",
        "adapt --model brain-mri-v2 --input SITE_SCANS --output models/here",
        "mribatch.settings.site:AdaptConfig",
        "mribatch.commands.adapt:adapt",
    ),
    "export": Command(
        "write a model in int8 or bf16, which newer CPUs compute faster, as a new model",
        "export --model brain-mri-v2 --precision int8 --calibration LABELLED --output models/int8",
        "mribatch.settings.export:ExportConfig",
        "mribatch.commands.export:export",
    ),
    "explain": Command(
        "show where in a scan the score of its predicted class comes from",
        "explain --model brain-mri-v2 --input SCANS --output explanations",
        "mribatch.settings.explain:ExplainConfig",
        "mribatch.commands.explain:explain",
    ),
    "promote": Command(
        "make a model the current one if it is no worse on labelled scans",
        "promote --models models --candidate brain-mri-v2 --data LABELLED --output promotion",
        "mribatch.settings.evaluate:PromoteConfig",
        "mribatch.commands.promote:promote",
    ),
    "baselines": Command(
        "compare the paper's models, cheap ones and deep ones on labelled scans",
        "baselines --data LABELLED --classes notumor meningioma --output comparison",
        "mribatch.settings.compare:BaselinesConfig",
        "mribatch.commands.compare:compare",
    ),
}
"""The functions are imported once signals are handled: Ray takes seconds. In the order of `mribatch --help`."""


def run(argv: Sequence[str]) -> int:
    """Run `mribatch` with these words and return its exit code."""
    name, *words = argv or [""]
    if name in _HELP:
        print(_overview())
    elif name == "--version":
        print(f"{PROGRAM} {__version__}")
    elif name in COMMANDS:
        example = f"Example:\n  {PROGRAM} {COMMANDS[name].example}"
        return _guarded(name, words, f"{PROGRAM} {name}", f"\n\n{example}")
    else:
        problem = f"no command {name}{did_you_mean(name, COMMANDS)}" if name else "missing a command"
        print(f"error: {problem}\n{PROGRAM} --help lists all commands", file=sys.stderr)
        return ConfigError.exit_code
    return 0


def run_command(name: str, description: str, argv: Sequence[str] | None) -> int:
    """Run a command as jobs/NAME.py with these words, by default those of this process, and return its exit code.

    description: what --help opens with, a blank line, and what it ends with.
    """
    return _guarded(name, sys.argv[1:] if argv is None else argv, f"python jobs/{name}.py", description)


def parse(name: str, argv: Sequence[str]) -> Settings:
    """Return the settings that these words give to a command, without running it. Raises ConfigError."""
    if name not in COMMANDS:
        raise ConfigError(f"no command {name}{did_you_mean(name, COMMANDS)}")
    return _parse(name, argv, f"{PROGRAM} {name}")


def _guarded(name: str, words: Sequence[str], program: str, description: str) -> int:
    """Run a command; report errors and signals on stderr."""
    with stoppable():
        try:
            if any(word in _HELP for word in words):
                print(_help(name, program, description))
                return 0
            return _run(name, words, program)
        except MribatchError as err:
            print(f"error: {err}", file=sys.stderr)
            return err.exit_code
        except Stopped as stop:
            print(STOPPED, file=sys.stderr)
            return int(str(stop.code))


def _run(name: str, words: Sequence[str], program: str) -> int:
    settings = _parse(name, words, program)
    with screen.opened(f"{name}: loading libraries …"):
        outcome: Outcome = _imported(COMMANDS[name].function)(settings)
    screen.show(outcome)
    return outcome.exit_code


def _parse(name: str, words: Sequence[str], program: str) -> Settings:
    from mribatch.commands.arguments import parsed

    return parsed(_settings(name), words, program)


def _help(name: str, program: str, description: str) -> str:
    from mribatch.commands.arguments import help_text

    settings = _settings(name)
    opening, _, ending = description.partition("\n\n")
    return help_text(settings, program, opening or str(settings.__doc__), ending.strip()).rstrip()


def _overview() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [FLAGS]",
            "",
            "Classify brain-MRI scans in bulk. A research and triage tool, not a medical device.",
            "",
            *(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()),
            "",
            f"{PROGRAM} COMMAND --help shows the flags of a command, {PROGRAM} --version the version.",
            "",
            f"Example:\n  {PROGRAM} {COMMANDS['score'].example}",
        ]
    )


def _settings(name: str) -> type[Settings]:
    kind: type[Settings] = _imported(COMMANDS[name].settings)
    return kind


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
