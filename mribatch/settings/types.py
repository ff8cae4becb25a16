"""Check the fields of a settings dataclass against their annotations. Pure: knows types, no settings and no I/O.

Covers the kinds that the settings use: str, bool, int, float, None, Literal, tuple[X, ...] and unions of these.
"""

import dataclasses
import difflib
import math
import numbers
import operator
import os
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mribatch.errors import ConfigError

__all__ = ["check_types"]

_SHOWN_CHARS = 60  # of a value in a message


def check_types(settings: Any) -> None:
    """Give every field of a frozen dataclass the type it declares, or raise ConfigError.

    Lists become tuples, a single value where a tuple is declared becomes a tuple of one, a path object becomes a str,
    and a whole number becomes a float. Nothing else is converted: "32" is no number.
    """
    for name, annotation in _annotations(type(settings)).items():
        object.__setattr__(settings, name, _checked(name, getattr(settings, name), annotation))


def _annotations(settings: type) -> dict[str, Any]:
    hints = get_type_hints(settings)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings)}


def _checked(name: str, value: Any, annotation: Any) -> Any:
    if get_origin(annotation) is tuple:
        kind = get_args(annotation)[0]
        values = value if isinstance(value, (tuple, list, Iterator)) else (value,)
        return tuple(_checked(name, item, kind) for item in values)
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    for option in options:
        accepted, converted = _accepted(name, value, option)
        if accepted:
            return converted
    expected = " or ".join(_described(option) for option in options if option is not types.NoneType)
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "…"
    raise ConfigError(f"{name} must be {expected}, got {shown} ({type(value).__name__}){_suggestion(value, options)}")


def _accepted(name: str, value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether a value is of a kind, and the value as that kind."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind), value
    if kind is str:
        return isinstance(value, (str, os.PathLike)), _text(name, value)
    if kind is int:
        whole = hasattr(value, "__index__") and not isinstance(value, bool)
        return whole, operator.index(value) if whole else value
    if kind is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool), _number(name, value)
    return isinstance(value, kind), value


def _text(name: str, value: Any) -> Any:
    if not isinstance(value, os.PathLike):
        return value
    text = os.fsdecode(value)
    if text.startswith("s3:/"):
        raise ConfigError(
            f"{name} must be a str for s3://…, got {text!r} ({type(value).__name__}): a path object merges the slashes"
        )
    return text


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return value
    if not math.isfinite(value):
        raise ConfigError(f"--{name.replace('_', '-')} must be a finite number, got {value}")
    return float(value)


def _described(kind: Any) -> str:
    if get_origin(kind) is Literal:
        names = [str(choice) for choice in get_args(kind)]
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    known = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}
    return known.get(kind, str(kind))


def _suggestion(value: Any, options: tuple[Any, ...]) -> str:
    choices = [str(choice) for option in options if get_origin(option) is Literal for choice in get_args(option)]
    close = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    return f": did you mean {close[0]}?" if close else ""
