"""Break a process from inside, for fault tests. Python loads this file by itself if its folder is on PYTHONPATH.

- A scan whose file name or content begins with one of the words below kills, hangs or breaks its decoder or predictor.
- SABOTAGE names a step of the run, `module:function:before|after[:count[:word]]`. The driver is killed before or after
  that call; only calls whose arguments contain the word are counted.
- SABOTAGE_PACE_S lets predictors wait so long for each scan: also a fast machine leaves time to disturb the run.
- SABOTAGE_CLOCK_H shifts the package's clock by so many hours.
- SABOTAGE_LOGS makes every process log all that any library says.

The package does not know this file.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, tzinfo
from types import ModuleType
from typing import Any

from sabotage_words import HANGS, KILLS, RAISES

STEP = os.environ.get("SABOTAGE", "")
PACE_S = float(os.environ.get("SABOTAGE_PACE_S", "0"))
CLOCK_H = float(os.environ.get("SABOTAGE_CLOCK_H", "0"))

if os.environ.get("SABOTAGE_LOGS"):
    logging.basicConfig(level=logging.DEBUG)

if any(word.endswith(("jobs/score.py", "jobs/train.py")) for word in sys.orig_argv):
    os.environ["SABOTAGE_DRIVER"] = str(os.getpid())  # Ray's workers inherit this


class _Skewed(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) + timedelta(hours=CLOCK_H)


def _decode(real: Callable[..., Any]) -> Callable[..., Any]:
    def decode(data: bytes, *rest: Any) -> Any:
        if data.startswith(KILLS):
            os.kill(os.getpid(), signal.SIGSEGV)
        while data.startswith(HANGS):
            time.sleep(1)
        if data.startswith(RAISES):
            raise ZeroDivisionError("JOHN^DOE")
        yield from real(data, *rest)

    return decode


def _predict(real: Callable[..., Any]) -> Callable[..., Any]:
    def predict(self: Any, table: Any) -> Any:
        time.sleep(PACE_S * table.num_rows)
        names = [uri.rpartition("/")[2] for uri in table["scan_uri"].to_pylist()]
        good = [name for name, status in zip(names, table["status"].to_pylist(), strict=True) if status == "ok"]
        if any(name.startswith("kills-its-predictor") for name in good):
            os.kill(os.getpid(), signal.SIGKILL)
        while any(name.startswith("hangs-its-predictor") for name in good):
            time.sleep(1)
        if any(name.startswith("raises-its-predictor") for name in good):
            raise ZeroDivisionError("JOHN^DOE")
        if any(name.startswith("gives-nan") for name in good):
            from mribatch.errors import RunFailed

            raise RunFailed("NaN, as of a scan on which the network overflows")
        return real(self, table)

    return predict


def _at_a_step(real: Callable[..., Any], when: str, count: int, word: str) -> Callable[..., Any]:
    calls = 0

    @functools.wraps(real)
    def step(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += word in repr(args)
        if when == "before" and calls == count:
            _kill_the_driver()
        result = real(*args, **kwargs)
        if when == "after" and calls == count:
            _kill_the_driver()
        return result

    return step


def _kill_the_driver() -> None:
    os.kill(int(os.environ["SABOTAGE_DRIVER"]), signal.SIGKILL)
    time.sleep(600)  # this process, too, does nothing more


def _sabotaged(module: ModuleType) -> None:
    if module.__name__ == "mribatch.scans.decode":
        module.scan_frames = _decode(module.scan_frames)  # type: ignore[attr-defined]
    if module.__name__ == "mribatch.models.predictor":
        module.Predictor.__call__ = _predict(module.Predictor.__call__)  # type: ignore[attr-defined]
    if hasattr(module, "datetime") and CLOCK_H:
        module.datetime = _Skewed  # type: ignore[attr-defined]
    place, _, rest = STEP.partition(":")
    if module.__name__ == place:
        words = rest.split(":", 3)
        function, when, count, word = (*words, *("1", "")[len(words) - 2 :])
        owner: Any = module
        *path, name = function.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, name, _at_a_step(getattr(owner, name), when, int(count), word))


class _Finder(importlib.abc.MetaPathFinder):
    """Sabotage modules of the package as they are imported. Ray's own processes never load them."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith("mribatch."):
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (run(module), _sabotaged(module))[0]  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
