"""Hold the rules of the house: who may import whom, how long files and functions are, and what things are called."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.architecture import (
    ENGINES,
    FLOORS,
    LOAD_AN_ENGINE,
    ROOT,
    Modules,
    circles,
    command_imports,
    early_engines,
    imports,
    misplaced_imports,
    misplaced_libraries,
    read,
    within,
)
from tests.style import (
    FUNCTION_LINES_P90,
    formatter_switches,
    function_lines,
    long_files,
    p90,
    poor_docstrings,
    private_uses,
    vague_names,
)

HOUSE = read(ROOT)
PACKAGE = {name: module for name, module in HOUSE.items() if within(name, ("mribatch",))}
# Unit tests may look inside the file they test; all others go through public names.
TEST_FOLDERS = ("tests.faults", "tests.integration", "tests.jobs", "tests.sabotage")
PUBLIC_NAMES_ONLY = ("mribatch", "jobs", "benchmarks", *TEST_FOLDERS)


def assert_none(breaches: list[str]) -> None:
    assert not breaches, "\n" + "\n".join(breaches)


def test_the_tree_is_where_this_test_reads_it() -> None:
    rooms = {room for floor in FLOORS for room in floor if room != "jobs"}
    assert rooms - PACKAGE.keys() == set()
    assert len(PACKAGE) > 50
    assert {f"jobs.{command}" for command in ("score", "nightly", "train")} <= HOUSE.keys()


def test_a_file_imports_from_its_own_room_and_from_lower_floors_only() -> None:
    assert_none(misplaced_imports(HOUSE))


def test_commands_are_imported_by_the_entrances_and_by_commands_built_on_them() -> None:
    assert_none(command_imports(HOUSE))


def test_no_files_import_one_another_in_a_circle() -> None:
    assert_none(circles(HOUSE))


def test_no_file_uses_private_names_of_another_one() -> None:
    assert_none(private_uses(HOUSE, PUBLIC_NAMES_ONLY))


def test_ray_engines_s3_and_drawing_each_stay_in_their_places() -> None:
    assert_none(misplaced_libraries(HOUSE))


def test_engines_are_imported_inside_functions() -> None:
    assert_none(early_engines(HOUSE))


def test_files_of_the_package_have_at_most_400_lines() -> None:
    assert_none(long_files(PACKAGE.values()))


def test_nine_functions_in_ten_have_at_most_18_lines() -> None:
    lines = function_lines(PACKAGE.values())
    assert p90(lines) <= FUNCTION_LINES_P90, f"the longest ten have {lines[-10:]} lines"


def test_the_formatter_is_never_switched_off() -> None:
    assert_none(formatter_switches(HOUSE.values()))


def test_every_module_opens_with_a_sentence_that_says_what_it_holds() -> None:
    empty = {name for name, module in HOUSE.items() if within(name, ("tests",)) and not module.text}
    assert_none(poor_docstrings(module for name, module in HOUSE.items() if name not in empty))


def test_values_have_names_that_say_what_they_are() -> None:
    assert_none(vague_names(HOUSE.values()))


def test_importing_the_package_loads_neither_ray_nor_an_engine() -> None:
    assert loaded_by(["mribatch"], ("ray", *ENGINES)) == []


def test_only_the_modules_that_need_an_engine_load_one() -> None:
    assert loaded_by(sorted(PACKAGE.keys() - set(LOAD_AN_ENGINE)), ENGINES) == []


def test_a_run_on_local_files_loads_neither_scipy_nor_scikit_learn_nor_boto3() -> None:
    modules = ["mribatch.commands.score", "mribatch.commands.score_parts", "mribatch.models.openvino_engine"]
    assert loaded_by(modules, ("scipy", "sklearn", "boto3")) == []


def loaded_by(modules: list[str], libraries: tuple[str, ...]) -> list[str]:
    """Import these modules in a new process and return the first that loads one of the libraries, with their names."""
    code = f"""
import importlib, sys
for module in {modules!r}:
    importlib.import_module(module)
    loaded = [library for library in {libraries!r} if library in sys.modules]
    if loaded:
        print(module, *loaded)
        break
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def declared(*extras: str) -> set[str]:
    """Return the libraries that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in wanted}


def declared_for_peers() -> set[str]:
    """Return the libraries that the benchmarks' peers are installed with, beside those of the project."""
    lines = (ROOT / "benchmarks/peers/requirements.txt").read_text().splitlines()
    return {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in lines}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("mribatch", ("quantize",)), ("jobs", ()), ("benchmarks", ("dev",)), ("docs", ("dev",)), ("tests", ("dev",))],
)
def test_every_library_that_is_imported_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    modules = [module for name, module in HOUSE.items() if within(name, (folder,))]
    own = {Path(module.path).stem for module in modules} | {"mribatch", "benchmarks", "docs", "tests"}
    imported = {target.partition(".")[0] for module in modules for target, _ in imports(module.text)}
    homes = packages_distributions()
    foreign = (
        imported - own - set(sys.stdlib_module_names) - (declared_for_peers() if folder == "benchmarks" else set())
    )
    assert {name for name in foreign if not declared(*extras) & {home.lower() for home in homes.get(name, [])}} == set()


def test_each_job_is_short_and_opens_with_its_launch_commands() -> None:
    for path in (ROOT / "jobs").glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 50, path.name
        doc = ast.get_docstring(ast.parse(text)) or ""
        assert f"python jobs/{path.name}" in doc, path.name
        assert "ray job submit" in doc, path.name


CLEAN = {
    "mribatch/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mribatch.commands.score import score",
    "mribatch/errors.py": "",
    "mribatch/schema.py": "",
    "mribatch/settings/__init__.py": "",
    "mribatch/stores/__init__.py": "",
    "mribatch/stores/uris.py": "from mribatch.stores import disk\nfrom .disk import put",
    "mribatch/stores/disk.py": "import os\nfrom mribatch.errors import StoreError\ndef put(): ...\ndef _sync(): ...",
    "mribatch/stores/_old.py": "",
    "mribatch/scans/__init__.py": "",
    "mribatch/scans/raster.py": "",
    "mribatch/models/__init__.py": "",
    "mribatch/models/networks.py": "import keras",
    "mribatch/models/directory.py": "def load():\n    from mribatch.models import networks",
    "mribatch/cluster/__init__.py": "import ray",
    "mribatch/commands/__init__.py": "",
    "mribatch/commands/score.py": "import ray.data\nfrom mribatch.models import directory",
    "mribatch/commands/nightly.py": "from mribatch.commands.score import score",
    "mribatch/commands/train.py": "",
    "jobs/score.py": "from mribatch.commands import score",
    "benchmarks/bench.py": "import results",
    "benchmarks/results.py": "",
    "tests/faults/test_kills.py": "from mribatch.stores import disk",
}
LIBRARY = "from mribatch.stores import disk\n"


def planted(root: Path, path: str = "", text: str = "") -> Modules:
    """Write a small clean tree with these lines added to one file, and read it."""
    files = CLEAN | ({path: CLEAN.get(path, "") + f"\n{text}"} if path else {})
    for name, lines in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        docstring = "" if lines.startswith('\n"""') else '"""Do one thing."""\n'
        (root / name).write_text(f"{docstring}{lines}\n")
    return read(root)


def private_names(modules: Modules) -> list[str]:
    return private_uses(modules, PUBLIC_NAMES_ONLY)


def over_values(rule: Callable[..., list[str]]) -> Callable[[Modules], list[str]]:
    """Turn a rule about single files into one about a tree."""
    return lambda modules: rule(modules.values())


RULES = {
    "floors": misplaced_imports,
    "commands": command_imports,
    "circles": circles,
    "private": private_names,
    "libraries": misplaced_libraries,
    "early": early_engines,
    "long": over_values(long_files),
    "formatter": over_values(formatter_switches),
    "docstring": over_values(poor_docstrings),
    "names": over_values(vague_names),
}


def test_a_clean_tree_breaks_no_rule(tmp_path: Path) -> None:
    modules = planted(tmp_path)
    assert {name: breaches for name, rule in RULES.items() if (breaches := rule(modules))} == {}


def test_the_length_of_nine_functions_in_ten_counts_signature_docstring_and_inner_functions(tmp_path: Path) -> None:
    text = 'def f(\n    x,\n):\n    """Go."""\n    def g():\n        pass\n    return g'
    assert function_lines(planted(tmp_path, "mribatch/schema.py", text).values()) == [1, 1, 2, 2, 7]
    assert p90([*[1] * 9, 50]) == 1
    assert p90([*[1] * 8, 50, 50]) == 50


@pytest.mark.parametrize(
    ("rule", "path", "text", "words"),
    [
        ("floors", "mribatch/stores/uris.py", "from mribatch.commands import score", "upwards from mribatch.stores"),
        ("floors", "mribatch/stores/uris.py", "from ..commands import score", "upwards from mribatch.stores"),
        ("floors", "mribatch/stores/uris.py", "def f():\n    import mribatch.cluster", "mribatch.cluster, upwards"),
        ("floors", "mribatch/settings/base.py", "from mribatch import errors, stores", "mribatch.stores, upwards"),
        ("floors", "mribatch/errors.py", "from mribatch import __version__", "imports mribatch, upwards"),
        ("floors", "mribatch/scans/raster.py", "from mribatch.stores import uris", "sideways from mribatch.scans"),
        ("floors", "mribatch/schema.py", "import mribatch.errors", "mribatch.errors, sideways"),
        ("floors", "mribatch/models/x.py", "import importlib\nimportlib.import_module('mribatch.cluster')", "upwards"),
        ("floors", "mribatch/stores/uris.py", "if TYPE_CHECKING:\n    import mribatch.models.directory", "upwards"),
        ("floors", "mribatch/helpers.py", "", "is in no room"),
        ("commands", "mribatch/commands/train.py", "from mribatch.commands.score import score", "not built on"),
        ("commands", "mribatch/commands/cli.py", "from mribatch.commands import train", "not built on"),
        ("commands", "benchmarks/bench.py", "from mribatch.commands import score", "only jobs and the package"),
        (
            "circles",
            "mribatch/stores/disk.py",
            "from mribatch.stores import uris",
            "stores.disk -> mribatch.stores.uris ->",
        ),
        (
            "circles",
            "mribatch/stores/disk.py",
            "def f():\n    from . import uris",
            "stores.disk -> mribatch.stores.uris ->",
        ),
        (
            "circles",
            "benchmarks/results.py",
            "if TYPE_CHECKING:\n    from bench import X",
            "benchmarks.bench -> benchmarks",
        ),
        ("private", "mribatch/stores/uris.py", "from mribatch.stores import _old", "mribatch.stores._old"),
        ("private", "mribatch/stores/uris.py", "from mribatch.stores.disk import _sync", "mribatch.stores.disk._sync"),
        ("private", "mribatch/models/x.py", LIBRARY + "disk._sync()", "mribatch.stores.disk._sync"),
        ("private", "mribatch/models/x.py", "import mribatch.stores.disk\nmribatch.stores.disk._sync()", "disk._sync"),
        ("private", "benchmarks/bench.py", "results._table()", "benchmarks.results._table"),
        ("private", "tests/faults/test_kills.py", "monkeypatch.setattr(disk, '_sync', None)", "stores.disk._sync"),
        ("private", "tests/jobs/test_it.py", LIBRARY + "monkeypatch.setattr(disk, '_sync', 0)", "stores.disk._sync"),
        ("private", "tests/faults/test_kills.py", "STEP = 'mribatch.stores.disk:_sync:before'", "disk:_sync"),
        ("libraries", "mribatch/models/directory.py", "import ray", "imports ray: only mribatch.cluster"),
        ("libraries", "mribatch/training/feed.py", "def f():\n    from ray.train import report", "imports ray"),
        ("libraries", "mribatch/commands/score.py", "def f():\n    import tensorflow", "imports tensorflow"),
        ("libraries", "mribatch/commands/score.py", "import boto3", "imports boto3: only mribatch.stores"),
        ("libraries", "mribatch/commands/score.py", "import matplotlib.figure", "imports matplotlib"),
        ("libraries", "mribatch/scans/raster.py", "import os", "does no I/O"),
        ("early", "mribatch/models/directory.py", "import tensorflow as tf", "loads tensorflow"),
        ("early", "mribatch/models/directory.py", "try:\n    import keras\nexcept ImportError: ...", "loads keras"),
        ("early", "mribatch/models/directory.py", "from mribatch.models import networks", "loads mribatch.models"),
        ("early", "mribatch/commands/train.py", "from ray.train.tensorflow import X", "loads ray.train.tensorflow"),
        ("long", "mribatch/stores/uris.py", "x = 1\n" * 400, "has 404 lines"),
        ("formatter", "mribatch/stores/uris.py", "x = [1,2]  # fmt: skip", "fmt: skip"),
        ("formatter", "tests/faults/test_kills.py", "# fmt: off", "fmt: off"),
        ("docstring", "mribatch/stores/glob.py", '"""What is here"""', "does not open with a sentence"),
        ("docstring", "mribatch/stores/glob.py", '""""""', "has no docstring"),
        ("names", "mribatch/stores/uris.py", "def f(seen): ...", "'seen'"),
        ("names", "mribatch/stores/uris.py", "self.found = 1", "'found'"),
        ("names", "benchmarks/bench.py", "for told in (): ...", "'told'"),
    ],
)
def test_a_planted_breach_is_reported(tmp_path: Path, rule: str, path: str, text: str, words: str) -> None:
    (breach,) = RULES[rule](planted(tmp_path, path, text))
    assert path in breach or rule == "circles"
    assert words in breach
