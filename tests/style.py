"""List what breaks the rules for private names, sizes, docstrings, comments and names of values.

Like the rules of `tests/architecture.py`, each returns one sentence for each breach.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping

from tests.architecture import Import, Module, Modules, own_imports, within

FILE_LINES = 400
FUNCTION_LINES_P90 = 18  # from `def` to the last line, signature and docstring included, decorators not

VAGUE_NAMES = frozenset({"told", "said", "found", "there", "seen", "whole", "gone"})
FORMATTER_SWITCH = re.compile(r"#\s*(fmt|yapf)\s*:\s*(skip|off|on|disable|enable)\b")
PRIVATE_TEXT = re.compile(r"\bmribatch[\w.:]*[.:]_[a-z]\w*")  # such as "mribatch.stores.disk:_write"
REFLECTION = ("getattr", "setattr", "delattr", "hasattr")  # also as methods, as of pytest's monkeypatch


def long_files(modules: Iterable[Module]) -> list[str]:
    """List the files of more than FILE_LINES lines."""
    lines = {module.path: len(module.text.splitlines()) for module in modules}
    return [f"{path} has {count} lines, over {FILE_LINES}" for path, count in lines.items() if count > FILE_LINES]


def function_lines(modules: Iterable[Module]) -> list[int]:
    """Return the physical lines of every function and method, shortest first; an inner function counts in its outer one too."""
    return sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def p90(values: list[int]) -> int:
    """Return the smallest of these ascending values that at least 90% of them do not exceed."""
    return values[-(-9 * len(values) // 10) - 1]


def formatter_switches(modules: Iterable[Module]) -> list[str]:
    """List the comments that switch the formatter off or on."""
    return [
        f"{module.path}:{token.start[0]} has a comment {token.string!r}"
        for module in modules
        for token in tokenize.generate_tokens(io.StringIO(module.text).readline)
        if token.type == tokenize.COMMENT and FORMATTER_SWITCH.search(token.string)
    ]


def poor_docstrings(modules: Iterable[Module]) -> list[str]:
    """List the modules without a docstring and those whose first line is not a sentence with a full stop."""
    breaches = []
    for module in modules:
        first, *_ = (ast.get_docstring(module.tree) or "").splitlines() or [""]
        if not first:
            breaches.append(f"{module.path} has no docstring")
        elif not first.endswith(".") or " " not in first:
            breaches.append(f"{module.path} does not open with a sentence: {first!r}")
    return breaches


def vague_names(modules: Iterable[Module]) -> list[str]:
    """List the values, parameters, attributes and functions that are given one of the VAGUE_NAMES."""
    return [
        f"{module.path}:{line} names something {name!r}"
        for module in modules
        for node in ast.walk(module.tree)
        for line, name in _bindings(node)
        if name in VAGUE_NAMES
    ]


def _bindings(node: ast.AST) -> Iterator[tuple[int, str | None]]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
            yield node.lineno, name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield node.lineno, name
        case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
            yield node.lineno, name
        case ast.MatchMapping(rest=name) | ast.alias(asname=name):
            yield node.lineno, name


def private_uses(modules: Modules, places: tuple[str, ...]) -> list[str]:
    """List the private modules and names of other files that the files in these places import, take or name in a string."""
    chosen = [module for module in modules.values() if within(module.name, places)]
    return sorted({f"{module.path}:{line} uses {name}" for module in chosen for line, name in _uses(module, modules)})


def _uses(module: Module, modules: Modules) -> Iterator[tuple[int, str]]:
    aliases: dict[str, str] = {}
    for statement, target in own_imports(module, modules):
        if _is_private(statement.name or "") or any(_is_private(part) for part in target.split(".")):
            yield statement.line, ".".join(filter(None, (statement.module, statement.name)))
        aliases |= _alias(statement, target)
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=value, attr=name):
                owner = _module_of(value, aliases, modules)
            case ast.Call(func=function, args=[value, ast.Constant(value=str(name)), *_]):
                reflects = ast.unparse(function).rpartition(".")[2] in REFLECTION
                owner = _module_of(value, aliases, modules) if reflects else None
            case ast.Constant(value=str(text)):
                named = PRIVATE_TEXT.findall(text)
                yield from ((node.lineno, name) for name in named if not within(name.replace(":", "."), (module.name,)))
                continue
            case _:
                continue
        if owner and owner != module.name and _is_private(name):
            yield node.lineno, f"{owner}.{name}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _alias(statement: Import, target: str) -> dict[str, str]:
    """Return the name that an import gives to a module, with the module's full name."""
    if statement.name:
        is_module = target.endswith(f"{statement.module}.{statement.name}")
        return {statement.bound: target} if is_module else {}
    top = statement.module.partition(".")[0]
    return {statement.bound: top if statement.bound == top != statement.module else target}


def _module_of(value: ast.expr, aliases: Mapping[str, str], modules: Modules) -> str | None:
    """Return the module of this tree that an expression such as `uris` or `mribatch.stores.uris` stands for."""
    if not isinstance(value, ast.Name | ast.Attribute):
        return None
    first, dot, rest = ast.unparse(value).partition(".")
    name = aliases.get(first, "") + dot + rest
    return name if name in modules else None
