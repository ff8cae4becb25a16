"""Run the examples of the manual in a working folder, without a network."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from docs.pages import Page, Problem

__all__ = ["RUNNABLE", "run_examples"]

RUNNABLE = {"sh", "console", "python", "sql"}
_TIMEOUT_S = 600
_NOBODY = "http://127.0.0.1:9"  # no server answers there
_SQL = "import sys, duckdb; print(duckdb.sql(sys.argv[1]))"


def run_examples(
    pages: Sequence[Page], root: Path, place: Path, tell: Callable[[str], object] = print
) -> list[Problem]:
    """Run the blocks that are marked runnable, in the folder `place`; return those that fail or print something else."""
    problems = []
    environment = prepare(place, root)
    for block in (block for page in pages for block in page.blocks if block.runnable):
        for text, shown in block.steps():
            begun = time.monotonic()
            wrong = run_step(block.language, text, shown, place / "work", environment)
            tell(f"{block.page}:{block.line}: {' '.join(text.split())[:100]} … {time.monotonic() - begun:.1f} s")
            problems += [Problem(block.page, block.line, wrong)] if wrong else []
    return problems


def prepare(place: Path, root: Path) -> dict[str, str]:
    """Make the working folder and the programs of the examples in `place`; return their environment, without a network."""
    for name in ("samples", "models"):
        if (root / name).exists():
            shutil.copytree(root / name, place / "work" / name)
    (place / "work").mkdir(exist_ok=True)
    (place / "bin").mkdir()
    for program, words in {"python": '"$@"', "mribatch": '-m mribatch "$@"'}.items():
        (place / "bin" / program).write_text(f"#!/bin/bash\nexec {shlex.quote(sys.executable)} {words}\n")
        (place / "bin" / program).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "MRIBATCH_"))}
    return kept | {
        "PATH": f"{place / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "AWS_ENDPOINT_URL": _NOBODY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HTTP_PROXY": _NOBODY,
        "HTTPS_PROXY": _NOBODY,
        "NO_PROXY": "127.0.0.1,localhost",
        "PIP_NO_INDEX": "1",
    }


def run_step(language: str, text: str, shown: str, folder: Path, environment: dict[str, str]) -> str:
    """Run one command or script; return what is wrong with its end or its output, "" if nothing."""
    scripts = {"python": ["python", "-c", text], "sql": ["python", "-c", _SQL, text]}
    argv = scripts.get(language, ["bash", "-euo", "pipefail", "-c", text])
    done = subprocess.run(
        argv,
        cwd=folder,
        env=environment,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        return f"{text.strip()} ended with {done.returncode}:\n{done.stdout[-3000:]}"
    missing = missing_line(shown, done.stdout)
    return f"{text.strip()} does not print {missing!r}, but:\n{done.stdout[-3000:]}" if missing else ""


def missing_line(shown: str, output: str) -> str | None:
    """Return the first shown line that the output does not hold, in that order; `…` stands for anything."""
    lines = iter(output.splitlines())
    for expected in filter(str.strip, shown.splitlines()):
        pattern = ".*".join(map(re.escape, " ".join(expected.split()).split("…")))
        if not any(re.fullmatch(pattern, " ".join(line.split())) for line in lines):
            return expected
    return None
