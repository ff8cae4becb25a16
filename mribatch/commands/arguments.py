"""Command-line words before they are parsed. Pure."""

import dataclasses
from collections.abc import Sequence
from typing import Any, get_origin, get_type_hints

__all__ = ["gathered"]

_REPEATABLE = "exclude"  # each occurrence adds one value, by itself


def gathered(config: type[Any], argv: Sequence[str]) -> list[str]:
    """Return the words with each flag that takes several values given once: `--input A --input B` as `--input A B`.

    tyro would take the last occurrence alone, and drop the values of the others without a word.
    """
    values: dict[str, list[str]] = {flag: [] for flag in _flags_of_several(config)}
    given: list[str] = []  # such flags, in their order
    others: list[str] = []
    taker: list[str] | None = None
    for word in argv:
        name, _, value = word.partition("=")
        flag = name.replace("_", "-")
        if flag in values:
            given += [flag] * (flag not in given)
            taker = values[flag]
            taker += [value] * ("=" in word)
        elif word.startswith("-"):
            taker = None
            others.append(word)
        else:
            (others if taker is None else taker).append(word)
    return [*others, *(word for flag in given for word in (flag, *values[flag]))]


def _flags_of_several(config: type[Any]) -> list[str]:
    hints = get_type_hints(config)
    names = (field.name for field in dataclasses.fields(config) if field.name != _REPEATABLE)
    return [f"--{name.replace('_', '-')}" for name in names if get_origin(hints[name]) is tuple]
