"""Check the fields of a settings dataclass against their annotations.

Covers the kinds that the settings use: str, bool, int, float, None, Literal, tuple[X, ...] and unions of these.
"""

import dataclasses
import math
import numbers
import operator
import os
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mribatch.errors import ConfigError
from mribatch.settings.suggestions import did_you_mean

__all__ = ["alternatives", "check_types", "choices", "described"]

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
    options = alternatives(annotation)
    for option in options:
        accepted, converted = _accepted(name, value, option)
        if accepted:
            return converted
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "…"
    names = [choice for option in options for choice in choices(option)]
    suggestion = did_you_mean(value, names) if isinstance(value, str) else ""
    raise ConfigError(f"{name} must be {described(annotation)}, got {shown} ({type(value).__name__}){suggestion}")


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a value, or each value of a tuple, may have: those of a union, or the only one."""
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def choices(kind: Any) -> tuple[str, ...]:
    """Return the names that a Literal allows; none for another type."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def described(annotation: Any) -> str:
    """Return the values that an annotation allows, in words: "auto or a whole number"."""
    return " or ".join(_described(kind) for kind in alternatives(annotation) if kind is not types.NoneType)


def _accepted(name: str, value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether a value is of a kind, and the value as that kind."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in choices(kind), value
    if kind is str:
        return isinstance(value, (str, os.PathLike)), _text(name, value)
    if kind is int:
        is_index = hasattr(value, "__index__") and not isinstance(value, bool)
        return is_index, operator.index(value) if is_index else value
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
    names = choices(kind)
    if names:
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    known = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}
    return known.get(kind, str(kind))
