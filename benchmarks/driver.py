"""Measure how many scans one driver keeps moving when predictors only sleep.

In the root of the repository:  python benchmarks/driver.py

Blocks, tasks, actors, bookkeeping and parts are those of `score`. Files are not read, nothing is computed, and pixels are tiny,
because to move real ones is the work of the nodes. A few predictors that sleep a short time stand for many that compute: a
driver's work depends on the blocks. The workers share this machine's cores with the driver, so the rate is a lower bound. The
processor time of the driver says how many scans a core of its own would sustain.
"""

import json
import logging
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import machine
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import tyro
from numpy.typing import NDArray

from mribatch import schema
from mribatch.cluster import guarded, sink
from mribatch.cluster.blocks import growing, rows_of
from mribatch.cluster.guarded import WatchedPredictor
from mribatch.cluster.notes import run_notes
from mribatch.cluster.progress import watched
from mribatch.cluster.session import session
from mribatch.errors import RunFailed
from mribatch.predictions import lock
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Status
from mribatch.settings.score import ScoreConfig

log = logging.getLogger("bench")

DIGEST = "0123456789ab"
LABELS = ("glioma", "meningioma", "notumor", "pituitary")
TINY = ImageSpec(side_px=2)
REAL_SIDE_PX = 224  # what sizes the blocks
CORES = {"reader": 0.25, "predictor": 0.05, "writer": 0.25}  # so that all run at once on two cores
CLUSTER_CORES = 64  # leaves the blocks as large as they are on a cluster


@dataclass(frozen=True, kw_only=True)
class DriverConfig:
    """The size of the run."""

    scans: int = 100_000
    """Number of scans."""

    predictors: int = 4
    """Number of predictors."""

    rate: float = 2000.0
    """Scans that a predictor sleeps through in a second."""

    batch_size: int = 32
    """Scans per call of a predictor."""

    output: str | None = None
    """A JSON file to write the result to as well."""


class Sleeper:
    """Stands in for a `Predictor`."""

    class Model(NamedTuple):
        """What a `WatchedPredictor` asks of a model."""

        image_spec: ImageSpec
        digest: str

    model = Model(TINY, DIGEST)

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return that all classes are alike."""
        return np.full((len(pixels), len(LABELS)), 1 / len(LABELS), np.float32)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Sleep, and add predictions."""
        time.sleep(table.num_rows / self._rate)
        constants: dict[str, Any] = dict.fromkeys(map(schema.probability_column, LABELS), 0.25)
        constants |= {"predicted_class": LABELS[0], "confidence": 0.25, "model_digest": DIGEST}
        constants |= {"scored_at": datetime.now(UTC)}
        return _with_constants(table.drop_columns(["pixels", "pixels_sha256"]), constants, _predicted_fields(table))


class SleepingPredictor(WatchedPredictor):
    """A `WatchedPredictor` that holds a Sleeper."""

    def __init__(self, notes: Any, rate: float) -> None:
        with patch.object(guarded, "Predictor", Sleeper):
            super().__init__(notes, 60.0, False, rate=rate)


def decoded(table: pa.Table) -> pa.Table:
    """Return the rows of a block as if all scans had been read."""
    digest = "0" * 64
    constants = {"frame": 0, "frames": 1, "status": Status.OK, "format": "JPEG", "width_px": 512, "height_px": 512}
    constants |= {"content_sha256": digest, "pixels_sha256": digest, "pixels": bytes(12), "decoder_peak_bytes": 0}
    return _with_constants(table, constants, schema.decoded_fields(TINY.side_px))


def _with_constants(table: pa.Table, constants: dict[str, Any], fields: list[pa.Field]) -> pa.Table:
    for field in fields:
        values = pa.repeat(pa.scalar(constants.get(field.name), field.type), table.num_rows)
        table = table.append_column(field, values)
    return table


def _predicted_fields(table: pa.Table) -> list[pa.Field]:
    fields = schema.prediction_schema(LABELS)
    return [field for field in fields if field.name not in (*table.column_names, "run_id")]


def measure(config: DriverConfig, folder: str) -> dict[str, Any]:
    """Run all scans through; return rates and the driver's processor time."""
    numbers = range(config.scans)
    names = [f"{folder}/scans/study-{number // 200:06}/scan-{number:09}.jpg" for number in numbers]
    listing = pa.table([names, [f"20000-{number}" for number in numbers]], schema=schema.PLAN)
    with session(), lock.held(folder, DIGEST, lock.new_run_id(), lease_s=60.0) as fence:
        before, start = _cpu_s(), time.monotonic()
        _run(config, listing, fence)
        driver_cpu_s, seconds = _cpu_s() - before, time.monotonic() - start
    rows = pyarrow.dataset.dataset(folder, format="parquet", exclude_invalid_files=True).to_table(columns=["scored_at"])
    if rows.num_rows != config.scans:
        raise RunFailed(f"expected {config.scans} rows, got {rows.num_rows}")
    return {
        "scans": config.scans,
        "seconds": round(seconds, 1),
        "steady_scans_per_s": round(_steady(rows["scored_at"])),
        "driver_cpu_ms_per_scan": round(1000 * driver_cpu_s / config.scans, 3),
        "scans_per_driver_core_s": round(config.scans / driver_cpu_s),
        "driver_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }


def _run(config: DriverConfig, listing: pa.Table, fence: lock.Fence) -> None:
    """Do what `score_parts.write_parts` does, with readers and predictors that do nothing."""
    from ray.data import ActorPoolStrategy

    notes, settings = run_notes(), ScoreConfig(model="MODEL", input=("SCANS",), output="PREDICTIONS")
    blocks = growing(listing, config.batch_size, REAL_SIDE_PX, CLUSTER_CORES)
    parts = sink.PartSink(fence, LABELS, settings.part_rows, notes)
    with watched(notes, lambda *_: None):
        rows_of(listing, blocks, num_cpus=CORES["reader"]).map_batches(
            decoded, batch_format="pyarrow", batch_size=None, num_cpus=CORES["reader"]
        ).map_batches(
            SleepingPredictor,
            fn_constructor_args=(notes, config.rate),
            batch_size=config.batch_size,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=config.predictors),
            num_cpus=CORES["predictor"],
        ).write_datasink(parts, ray_remote_args={"num_cpus": CORES["writer"]})


def _steady(scored_at: pa.ChunkedArray) -> float:
    """Return the rate between a tenth and nine tenths of the scans, which leaves the start and the end out."""
    moments = np.sort(scored_at.to_numpy())
    first, last = moments[len(moments) // 10], moments[len(moments) * 9 // 10]
    return float(0.8 * len(moments) / ((last - first) / np.timedelta64(1, "s")))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    config, load = tyro.cli(DriverConfig, description=str(__doc__)), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(config, folder)
    text = json.dumps({**measured, "load_before": round(load, 1), **machine.facts()}, indent=1)
    if config.output is not None:
        Path(config.output).write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
