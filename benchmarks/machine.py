"""Describe where a result was measured: processor, memory, system, versions and commit, without names or paths."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from children import REPOSITORY

__all__ = ["facts"]

_LIBRARIES = ("ray", "tensorflow", "keras", "pillow", "pyarrow", "numpy")
_SOURCES = ("mribatch", "jobs", "benchmarks/*.py", "pyproject.toml", "requirements.lock")


def facts() -> dict[str, Any]:
    """Return machine, versions and commit, ready for JSON."""
    return {
        "machine": {
            "cpu": _cpu() or platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "os": _system(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "git_commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", *_SOURCES)),
    }


def _system() -> str:
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except OSError:  # no such file on this system
        return kernel


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _git(*words: str) -> str | None:
    """Return the output of git, None without git or a repository."""
    try:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
