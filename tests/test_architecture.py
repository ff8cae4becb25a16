"""The import rules of the house, held by reading every module's imports."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# A place may import from its own folder and from places with a lower floor; two on one floor do not meet.
FLOORS = {
    "mribatch.errors": 0,
    "mribatch.checks": 0.5,  # knows errors, and config knows it
    "mribatch.schema": 0,
    "mribatch.config": 1,
    "mribatch.scans": 1,
    "mribatch.storage": 2,
    "mribatch.learning": 3,
    "mribatch.reports": 3,
    "mribatch.runs": 4,
    "mribatch": 5,
    "jobs": 5,
}
RAY = ("mribatch/storage/source.py", "mribatch/storage/sink.py", "mribatch/learning/fit.py", "mribatch/runs/")
LEARNING = ("tensorflow", "keras")
KERAS_AT_THE_TOP = "mribatch/learning/network.py"  # imported inside functions only, by the processes that learn
STORAGE_ONLY = ("boto3", "botocore")
PURE = "mribatch/scans/"
IMPURE = ("os", "pathlib", "shutil", "socket", "subprocess", "requests")


class Import(NamedTuple):
    target: str
    at_the_top: bool


def imports(source: str) -> Iterator[Import]:
    """The imports of a module that run; those for the type checker do not."""
    tree = ast.parse(source)
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield Import(base, node in tree.body)
            yield from (Import(f"{base}.{alias.name}", node in tree.body) for alias in node.names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _running(child)


def place_of(module: str) -> str:
    """The room of a module: mribatch.storage of mribatch.storage.uris."""
    known = [place for place in FLOORS if module == place or module.startswith(place + ".")]
    return max(known, key=len, default="")


def violations(path: str, source: str) -> list[str]:
    """What a module's imports break, one sentence each."""
    here = place_of(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    found = []
    for target, top in imports(source):
        there, library = place_of(target), target.partition(".")[0]
        if there and there != here and there != "mribatch" and FLOORS[there] >= FLOORS[here]:
            found.append(f"{path} ({here}) imports {target}: {there} is not below it")
        if library == "ray" and not path.startswith(RAY):
            found.append(f"{path} imports {target}: Ray stays in {', '.join(RAY)}")
        if library in LEARNING and not path.startswith("mribatch/learning/"):
            found.append(f"{path} imports {target}: it stays in learning/")
        if library in LEARNING and top and path != KERAS_AT_THE_TOP:
            found.append(f"{path} imports {target} when it is imported: do that inside a function")
        if target == "mribatch.learning.network" and top:
            found.append(f"{path} imports {target} when it is imported, and Keras with it: do that inside a function")
        if library in STORAGE_ONLY and not path.startswith("mribatch/storage/"):
            found.append(f"{path} imports {target}: only storage/ talks to S3")
        if path.startswith(PURE) and library in IMPURE:
            found.append(f"{path} imports {target}: scans/ does no I/O")
    return sorted(set(found))


def modules() -> list[Path]:
    return sorted([*(ROOT / "mribatch").rglob("*.py"), *(ROOT / "jobs").glob("*.py")])


def test_every_module_imports_downwards_only() -> None:
    assert len(modules()) > 20, "the tree has moved: this test reads the wrong place"
    broken = [v for path in modules() for v in violations(path.relative_to(ROOT).as_posix(), path.read_text())]
    assert broken == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("mribatch/storage/uris.py", "from mribatch.runs import score"),
        ("mribatch/storage/uris.py", "import ray"),
        ("mribatch/scans/images.py", "from mribatch.storage import uris"),
        ("mribatch/scans/images.py", "import os"),
        ("mribatch/reports/metrics.py", "from mribatch.learning.artifact import Model"),
        ("mribatch/learning/predict.py", "import ray.data"),
        ("mribatch/learning/predict.py", "import tensorflow as tf"),
        ("mribatch/learning/artifact.py", "from mribatch.learning import network"),
        ("mribatch/runs/score.py", "def f():\n    import tensorflow"),
        ("mribatch/reports/page.py", "import boto3"),
        ("mribatch/schema.py", "from mribatch.config import ScoreConfig"),
        ("mribatch/config.py", "from mribatch.scans.images import ImageSpec"),
    ],
)
def test_a_forbidden_import_is_found(path: str, line: str) -> None:
    assert violations(path, (ROOT / path).read_text() + "\n" + line) != []


def declared(*extras: str) -> set[str]:
    """The libraries that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in wanted}


@pytest.mark.parametrize(
    ("folder", "extras"), [("mribatch", ("dicom",)), ("jobs", ()), ("benchmarks", ("dev",)), ("tests", ("dev",))]
)
def test_every_library_that_is_imported_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    paths = list((ROOT / folder).rglob("*.py"))
    own = {path.stem for path in paths} | {"mribatch", "tests"}
    found = {target.partition(".")[0] for path in paths for target, _ in imports(path.read_text())}
    homes = packages_distributions()
    foreign = found - own - set(sys.stdlib_module_names)
    assert {name for name in foreign if not declared(*extras) & {home.lower() for home in homes.get(name, [])}} == set()


def test_scoring_and_its_help_load_no_tensorflow() -> None:
    code = "import sys, mribatch.runs.score, mribatch.runs.evaluate; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_each_job_is_short_and_opens_with_its_launch_commands() -> None:
    for path in (ROOT / "jobs").glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 50, path.name
        doc = ast.get_docstring(ast.parse(text)) or ""
        assert f"python jobs/{path.name}" in doc, path.name
        assert "ray job submit" in doc, path.name
