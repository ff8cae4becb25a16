"""Provide the flags, preloaded scans and clock of the bare measurements, which run without Ray."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import InputError
from mribatch.scans.decode import decode
from mribatch.scans.limits import ImageSpec
from mribatch.settings.score import ScoreConfig
from mribatch.settings.train import TrainConfig
from mribatch.stores import uris

__all__ = ["BareScoreConfig", "BareTrainConfig", "clocked", "pixels", "write"]

_WARM_UP_CALLS = 2  # the first call traces the function, or plans its kernels
_MIN_CALLS = 3


@dataclass(frozen=True, kw_only=True)
class BareScoreConfig(ScoreConfig):
    """The flags of jobs/score.py, so that both have the same settings. output: the JSON file to write."""

    seconds: float = 10.0
    """Measuring time in seconds, after the warm-up."""


@dataclass(frozen=True, kw_only=True)
class BareTrainConfig(TrainConfig):
    """The flags of jobs/train.py, so that both have the same settings. output: the JSON file to write."""

    seconds: float = 10.0
    """Measuring time in seconds, after the warm-up."""


def pixels(scan_uris: Iterable[str], spec: ImageSpec) -> NDArray[np.uint8]:
    """Return the scans as the jobs decode them, (N, side, side, 3) uint8. Raises InputError for an unreadable scan."""
    scans = []
    for uri in scan_uris:
        (scan,) = decode(uris.read(uri), spec)
        if scan.pixels is None:
            raise InputError(f"a benchmark needs readable scans, got one that is {scan.reason}: {uri}")
        scans.append(scan.pixels)
    return np.stack(scans)


def clocked(call: Callable[[int], object], *, scans_per_call: int, seconds: float) -> dict[str, Any]:
    """Call the function with 0, 1, … for this many seconds; return the number of scans, the seconds and the rate."""
    for number in range(_WARM_UP_CALLS):
        call(number)
    calls, start = 0, time.perf_counter()
    while calls < _MIN_CALLS or time.perf_counter() - start < seconds:
        call(_WARM_UP_CALLS + calls)
        calls += 1
    elapsed = time.perf_counter() - start
    scans = calls * scans_per_call
    return {"scans": scans, "seconds": round(elapsed, 3), "scans_per_s": scans / elapsed}


def write(output: str, measured: dict[str, Any]) -> None:
    """Write the result as JSON, with the number of GPUs that TensorFlow used."""
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    Path(output).write_text(json.dumps(measured | {"gpus": gpus}))
