"""Describe each setting as a flag for --help: its group, its unit, its text and its default."""

import ast
import dataclasses
import inspect
import textwrap
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from mribatch.settings.types import alternatives, choices

__all__ = ["GROUPS", "Flag", "Option", "flag_of", "options"]

Group = Literal[
    "Input", "Model", "Output", "DICOM", "Studies", "Training", "Comparison", "Schedule", "Alarms", "Machine", "Storage"
]
GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True)
class Flag:
    """Annotation of a setting: what --help shows beside the docstring below the field."""

    group: Group
    value: str = ""  # what stands for the value, mostly its unit, such as SECONDS; a choice shows its names
    default: str = ""  # in words, where the default is not a plain value
    repeat: bool = False  # each occurrence of the flag adds one value


@dataclass(frozen=True, kw_only=True)
class Option:
    """A setting as a flag of its command."""

    name: str
    flag: str
    group: Group
    value: str
    help: str  # with the default
    type: Any  # the annotation without its Flag
    repeat: bool
    required: bool

    @property
    def is_switch(self) -> bool:
        return self.type is bool

    @property
    def takes_several(self) -> bool:
        return get_origin(self.type) is tuple


def flag_of(name: str) -> str:
    """Return the flag of a setting: `batch_size` is --batch-size."""
    return "--" + name.replace("_", "-")


def options(settings: type) -> list[Option]:
    """Return the flags of a command's settings, in the order of GROUPS and, within a group, of the fields."""
    hints, texts = get_type_hints(settings, include_extras=True), _docstrings(settings)
    fields = [_option(field, hints[field.name], texts.get(field.name, "")) for field in dataclasses.fields(settings)]
    return sorted(fields, key=lambda option: (GROUPS.index(option.group), not option.required))


def _option(field: dataclasses.Field[Any], hint: Any, text: str) -> Option:
    kind, shown = hint, Flag("Input")
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        shown = next((note for note in notes if isinstance(note, Flag)), shown)
    names = [str(name) for option in alternatives(kind) for name in choices(option)]
    several = get_origin(kind) is tuple
    if several and names:
        text += f" Any of: {', '.join(names)}."
    required = field.default is dataclasses.MISSING
    ending = "Required." if required else f"Default: {shown.default or _shown(field.default)}."
    return Option(
        name=field.name,
        flag=flag_of(field.name),
        group=shown.group,
        value=shown.value or "|".join(names),
        help=f"{text} {ending}",
        type=kind,
        repeat=shown.repeat,
        required=required,
    )


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _docstrings(settings: type) -> dict[str, str]:
    """Return the text below each field of a dataclass, those of its bases included, as one line each."""
    texts: dict[str, str] = {}
    for owner in reversed(settings.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, text in pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    texts[name] = " ".join(words.split())
    return texts
