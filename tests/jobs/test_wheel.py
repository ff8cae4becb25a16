"""The wheel: it holds all that the package needs, and works from any folder of a machine with its dependencies.

Nothing is downloaded: setuptools is taken from this environment, and so are the dependencies.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "mribatch"


def run(*command: object, **settings: object) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options: dict[str, object] = {"capture_output": True, "text": True, "env": environment} | settings
    return subprocess.run([str(word) for word in command], **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources: setuptools leaves its own folders beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(PACKAGE, folder / "sources" / "mribatch", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "sources" / name)
    flags = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet")
    done = run(sys.executable, "-m", "pip", "wheel", folder / "sources", "--wheel-dir", folder, *flags)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("mribatch-*-py3-none-any.whl")
    return path


def test_the_wheel_holds_the_package_with_its_templates_and_nothing_else(wheel: Path) -> None:
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert {"mribatch/py.typed", "mribatch/reports/templates/style.css", "mribatch/__main__.py"} < names


def test_the_wheel_brings_the_command_and_its_licence(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    texts = {
        name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name
    }
    assert "mribatch = mribatch.__main__:main" in texts["entry_points.txt"]
    assert "Apache License" in texts["LICENSE"]
    needed = [line for line in texts["METADATA"].splitlines() if line.startswith("Requires-Dist: ")]
    assert any("ray[" in line for line in needed)
    assert not any("tyro" in line for line in needed if "extra ==" not in line)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the wheel, which finds its dependencies in this one."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    assert run(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python3*/site-packages")
    flags = ("--no-deps", "--no-index", "--quiet", "--no-compile")
    done = run(sys.executable, "-m", "pip", "--python", python, "install", *flags, wheel)
    assert done.returncode == 0, done.stderr
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_installed_command_helps_from_any_folder(environment: Path, tmp_path: Path) -> None:
    done = run(environment / "bin" / "mribatch", "score", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mribatch score --model" in done.stdout
    place = run(environment / "bin" / "python", "-c", "import mribatch; print(mribatch.__file__)", cwd=tmp_path)
    assert place.stdout.startswith(str(environment)), "the sources were imported, not the wheel"


@pytest.mark.slow
def test_the_installed_command_scores_the_samples_from_another_folder(environment: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "scans")
    command = (environment / "bin" / "mribatch", "score", "--model", "brain-mri-v2", "--input", "scans")
    unknown = run(*command, "--output", "predictions", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "MRIBATCH_MODELS is not set" in unknown.stderr
    variables = {"MRIBATCH_MODELS": str(ROOT / "models")}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = run(*command, "--output", "predictions", cwd=tmp_path, env=inherited | variables)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "predictions")
    truth = [Path(uri).parent.name for uri in table["scan_uri"].to_pylist()]
    assert len(truth) == 17
    assert table["predicted_class"].to_pylist() == truth
