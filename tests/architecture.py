"""Read every module of a source tree and list what breaks the import rules of the package.

A rule is a function from the modules of a tree to sentences, one for each breach. `tests/style.py` has the rules for
private names, sizes, docstrings and names.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FOLDERS = ("mribatch", "jobs", "benchmarks", "docs", "tests")

# The rooms from the ground up. A file imports from its own room and from lower floors; rooms on one line do not meet.
FLOORS = (
    ("mribatch.errors", "mribatch.schema", "mribatch.version", "mribatch.causes", "mribatch.child", "mribatch.junk"),
    ("mribatch.settings",),
    ("mribatch.stores", "mribatch.scans", "mribatch.statistics"),
    ("mribatch.sources",),
    ("mribatch.models", "mribatch.predictions"),
    ("mribatch.training", "mribatch.reports"),
    ("mribatch.cluster",),
    ("mribatch.commands",),
    ("jobs", "mribatch.__main__", "mribatch"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

COMMANDS = (
    "accept",
    "adapt",
    "audit",
    "calibrate",
    "compact",
    "compare",
    "evaluate",
    "explain",
    "export",
    "inspect",
    "nightly",
    "promote",
    "score",
    "studies",
    "train",
)
# Files of commands/ that are built on a command. The others may share helpers, but import no command.
BUILT_ON = {
    "accept": ("evaluate", "score"),
    "compare_fits": ("score", "train"),
    "evaluate": ("score",),
    "night_summary": ("score",),
    "nightly": ("score",),
    "promote": ("evaluate",),
}

ENGINES = (
    "tensorflow",
    "keras",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "jax",
    "tf2onnx",
    "ai_edge_litert",
    "nncf",
)
ENGINE_MODULES = (*ENGINES, "ray.train.tensorflow")  # this part of Ray loads TensorFlow
# Modules that load an engine when they are imported. Every other file imports them inside functions.
LOAD_AN_ENGINE = (
    "mribatch.models.networks",
    "mribatch.models.openvino_engine",
    "mribatch.models.openvino_network",
    "mribatch.models.saliency",
    "mribatch.models.tensorflow_engine",
)

# Libraries that only some places may import.
CONFINED = {
    "ray": ("mribatch.cluster", "mribatch.training.fit", "mribatch.commands"),
    **dict.fromkeys(ENGINES, ("mribatch.models", "mribatch.training")),
    **dict.fromkeys(("boto3", "botocore"), ("mribatch.stores",)),
    **dict.fromkeys(("matplotlib", "jinja2"), ("mribatch.reports",)),
}
PURE = ("mribatch.scans", "mribatch.statistics")  # bytes or arrays in, values out
DOES_IO = ("mribatch.scans.sandbox",)  # runs the decoders in a process of its own
IO_LIBRARIES = ("os", "pathlib", "shutil", "socket", "subprocess", "tempfile", "requests")


class Import(NamedTuple):
    """One imported name: `from module import name`, or `import module` with no name."""

    module: str
    name: str | None
    bound: str  # the name that the file gets
    line: int
    at_import: bool  # outside functions
    runs: bool  # not only for the type checker


@dataclass(frozen=True)
class Module:
    name: str  # dotted, `mribatch.stores` for mribatch/stores/__init__.py
    path: str  # relative to the root
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.path.endswith("/__init__.py") else self.name.rpartition(".")[0]


Modules = Mapping[str, Module]


def read(root: Path, folders: Iterable[str] = FOLDERS) -> Modules:
    """Read all Python files of these folders, keyed by dotted name."""
    modules = {}
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        place = path.relative_to(root)
        name = ".".join(place.parent.parts if path.name == "__init__.py" else place.with_suffix("").parts)
        modules[name] = Module(name, place.as_posix(), path.read_text())
    return modules


def within(name: str, places: Iterable[str]) -> bool:
    """Return whether a dotted name is one of these places or inside one."""
    return any(name == place or name.startswith(place + ".") for place in places)


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Yield the dotted names that a module imports when it runs, and whether it does so outside functions."""
    for statement in statements(ast.parse(source), ""):
        if statement.runs:
            yield statement.module, statement.at_import
            if statement.name:
                yield f"{statement.module}.{statement.name}", statement.at_import


def statements(node: ast.AST, package: str, at_import: bool = True, runs: bool = True) -> Iterator[Import]:
    """Yield all imports below a node, with relative ones resolved against the package."""
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        for module, name, bound in _imported(child, package):
            yield Import(module, name, bound, child.lineno, at_import, runs)  # type: ignore[attr-defined]  # has a line
        yield from statements(child, package, at_import and not inside, runs and not typing_only)


def _imported(node: ast.AST, package: str) -> Iterator[tuple[str, str | None, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, None, alias.asname or alias.name.partition(".")[0]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")
            base = ".".join([*parents[: len(parents) - node.level + 1], *base.split(".")]).rstrip(".")
        for alias in node.names:
            yield base, alias.name, alias.asname or alias.name
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        yield from ((str(word.value), None, "") for word in node.args[:1] if isinstance(word, ast.Constant))


def target_of(statement: Import, importer: Module, modules: Modules) -> str | None:
    """Return the module of this tree that an import reaches, or None for a library.

    `from mribatch.stores import uris` reaches the file uris.py where it exists. A script finds its neighbours by their bare names.
    """
    wanted = [f"{statement.module}.{statement.name}", statement.module]
    if importer.package not in modules:
        wanted += [f"{importer.package}.{name}" for name in wanted]
    reached = next((name for name in wanted if name in modules), None)
    top = statement.module.partition(".")[0]
    return reached or (top if top in modules else None)


def own_imports(module: Module, modules: Modules) -> Iterator[tuple[Import, str]]:
    """Yield a module's imports of other files of this tree, each with the file's dotted name."""
    for statement in statements(module.tree, module.package):
        target = target_of(statement, module, modules)
        if target and target != module.name:
            yield statement, target


def room_of(name: str) -> str:
    """Return the room of a module, such as mribatch.stores for mribatch.stores.uris, or "" if it has none."""
    if name.partition(".")[0] == "jobs":
        return "jobs"
    room = ".".join(name.split(".")[:2])
    return room if room in FLOOR_OF else ""


def misplaced_imports(modules: Modules) -> list[str]:
    """List the imports of the package and its jobs that go up or sideways, and the files in no room."""
    breaches = []
    for module in modules.values():
        if not within(module.name, ("mribatch", "jobs")):
            continue
        here = room_of(module.name)
        if not here:
            breaches.append(f"{module.path} is in no room: add it to FLOORS or move it")
            continue
        for statement, target in own_imports(module, modules):
            room = room_of(target)
            if room and room != here and FLOOR_OF[room] >= FLOOR_OF[here]:
                direction = "sideways" if FLOOR_OF[room] == FLOOR_OF[here] else "upwards"
                breaches.append(f"{module.path}:{statement.line} imports {target}, {direction} from {here}")
    return sorted(set(breaches))


def command_imports(modules: Modules) -> list[str]:
    """List the imports of commands/ from anywhere but the entrances, and of a command by another that is not built on it."""
    breaches = []
    for module in modules.values():
        here = room_of(module.name)
        for statement, target in own_imports(module, modules):
            if not within(target, ("mribatch.commands",)) or within(module.name, ("docs", "tests")):
                continue
            command = target.rpartition(".")[2]
            allowed = BUILT_ON.get(module.name.rpartition(".")[2], ())
            if here != "mribatch.commands" and here not in FLOORS[-1]:
                breaches.append(
                    f"{module.path}:{statement.line} imports {target}: only jobs and the package itself may"
                )
            if here == "mribatch.commands" and command in COMMANDS and command not in allowed:
                breaches.append(f"{module.path}:{statement.line} imports {target}, a command that it is not built on")
    return sorted(set(breaches))


def circles(modules: Modules) -> list[str]:
    """List the circles of files, one path for each group of files that reach one another."""
    edges = {name: {target for _, target in own_imports(module, modules)} for name, module in modules.items()}
    reached = {name: _reach(name, edges) for name in edges}
    groups = {frozenset(n for n in reached[name] if name in reached[n]) for name in edges if name in reached[name]}
    return sorted(" -> ".join(_shortest_circle(min(group), edges)) for group in groups)


def _reach(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += edges[name]
    return reached


def _shortest_circle(start: str, edges: Mapping[str, set[str]]) -> list[str]:
    paths = [[start]]
    for path in paths:  # grows below: breadth first
        for name in sorted(edges[path[-1]]):
            if name == start:
                return [*path, name]
            if not any(name in other for other in paths):
                paths.append([*path, name])
    raise ValueError(f"{start} is on no circle")


def misplaced_libraries(modules: Modules) -> list[str]:
    """List the imports of a library outside its places, and of input and output in the pure rooms."""
    breaches = []
    for module in modules.values():
        if not within(module.name, ("mribatch", "jobs")):
            continue
        for statement in statements(module.tree, module.package):
            library = statement.module.partition(".")[0]
            places = CONFINED.get(library)
            if places and not within(module.name, places):
                allowed = ", ".join(places)
                breaches.append(f"{module.path}:{statement.line} imports {library}: only {allowed} may")
            if library in IO_LIBRARIES and within(module.name, PURE) and module.name not in DOES_IO:
                breaches.append(f"{module.path}:{statement.line} imports {library}: this room does no I/O")
    return sorted(set(breaches))


def early_engines(modules: Modules) -> list[str]:
    """List the imports that load an engine as soon as their file is imported, outside LOAD_AN_ENGINE."""
    breaches = []
    for module in modules.values():
        if not within(module.name, ("mribatch", "jobs")) or module.name in LOAD_AN_ENGINE:
            continue
        for statement in statements(module.tree, module.package):
            names = (statement.module, f"{statement.module}.{statement.name}", target_of(statement, module, modules))
            if statement.at_import and statement.runs and any(_loads_an_engine(name or "") for name in names):
                breaches.append(f"{module.path}:{statement.line} loads {statement.module}: import it inside a function")
    return sorted(set(breaches))


def _loads_an_engine(name: str) -> bool:
    return within(name, ENGINE_MODULES) or name in LOAD_AN_ENGINE
