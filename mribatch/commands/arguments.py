"""Turn the words of a command line into settings, and settings into the text of --help."""

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from mribatch.errors import ConfigError
from mribatch.settings.base import Settings
from mribatch.settings.flags import GROUPS, Option, options
from mribatch.settings.suggestions import did_you_mean
from mribatch.settings.types import alternatives, choices, described

__all__ = ["help_text", "parsed"]

_WIDTH = 100  # of --help at most; longer lines are hard to read
_FLAG_WIDTH = 30  # longer flags get a line of their own

S = TypeVar("S", bound=Settings)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").replace(": expected one argument", " needs a value")
        raise ConfigError(message.replace(": expected at least one argument", " needs at least one value"))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Fills the texts of flags, leaves description and examples as they are, and keeps to a readable width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_FLAG_WIDTH, width=_width())

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # a flag is not broken at its dashes


def parsed(settings: type[S], words: Sequence[str], program: str) -> S:
    """Return the settings that the words of a command line give.

    A flag of several values may be repeated; none is lost. Raises ConfigError with a message of one line.
    """
    flags = options(settings)
    known, others = _parser(flags, program).parse_known_args([_dashed(word) for word in words])
    if others:
        raise ConfigError(f"{_unexpected(others, flags)}\n{program} --help lists all flags")
    given = {option.name: getattr(known, option.name) for option in flags if hasattr(known, option.name)}
    missing = [option.flag for option in flags if option.required and option.name not in given]
    if missing:
        raise ConfigError(f"missing {', '.join(missing)}\n{program} --help shows an example")
    return settings(**{option.name: _value(option, given[option.name]) for option in flags if option.name in given})


def help_text(settings: type[Settings], program: str, description: str, examples: str) -> str:
    """Return what --help prints: how to call the command, its flags by group with their defaults, and examples."""
    parser = _parser(options(settings), program)
    parser.description, parser.epilog = textwrap.fill(description, _width()), examples
    return parser.format_help()


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDTH)


def _parser(flags: Iterable[Option], program: str) -> _Parser:
    needed = " ".join(f"{option.flag} {option.value}" for option in flags if option.required)
    usage = f"{program} {needed} [FLAGS]".replace("%", "%%")
    parser = _Parser(program, usage=usage, formatter_class=_Formatter, add_help=False, allow_abbrev=False)
    for group in GROUPS:
        members = [option for option in flags if option.group == group]
        section = parser.add_argument_group(group) if members else parser
        for option in members:
            section.add_argument(option.flag, **_details(option))
    return parser


def _details(option: Option) -> dict[str, Any]:
    shared = {"default": argparse.SUPPRESS, "help": option.help.replace("%", "%%")}
    if option.is_switch:
        return {"action": argparse.BooleanOptionalAction, **shared}
    if option.repeat:
        return {"action": "append", "metavar": option.value, **shared}
    if option.takes_several:
        return {"action": "extend", "nargs": "+", "metavar": option.value, **shared}
    return {"metavar": option.value, **shared}


def _dashed(word: str) -> str:
    """Return the word with dashes for the underscores in the name of a flag: --batch_size is --batch-size."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


def _unexpected(others: Sequence[str], flags: Iterable[Option]) -> str:
    unknown = next((word for word in others if word.startswith("-")), None)
    if unknown is None:
        return f"unexpected word {others[0]!r}: a value needs a flag before it"
    name = unknown.partition("=")[0]
    known = [option.flag for option in flags] + [f"--no-{option.flag[2:]}" for option in flags if option.is_switch]
    return f"no flag {name}{did_you_mean('--' + name.lstrip('-'), known)}"


def _value(option: Option, given: Any) -> Any:
    if option.is_switch:
        return given
    return tuple(_converted(option, word) for word in given) if option.takes_several else _converted(option, given)


def _converted(option: Option, word: str) -> Any:
    """Return a word of the command line as a value of the flag's type. Raises ConfigError where it is none."""
    kinds = alternatives(option.type)
    for kind in kinds:
        if word in choices(kind) or kind is str:
            return word
        if kind in (int, float):
            try:
                return kind(word)
            except ValueError:
                continue
    suggestion = did_you_mean(word, (choice for kind in kinds for choice in choices(kind)))
    raise ConfigError(f"{option.flag} must be {described(option.type)}, got {word!r}{suggestion}")
