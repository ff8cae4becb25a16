"""Run mribatch and its peers on one folder of scans, and compare what they read and what they write with mribatch's."""

import json
import logging
import os
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import bare
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from children import run
from numpy.typing import NDArray

from mribatch import schema
from mribatch.models import directory
from mribatch.settings.score import ScoreConfig
from mribatch.statistics.calibration import calibrated

__all__ = ["HELP", "MRIBATCH", "NOTHING", "ON_RAY", "PEERS", "RERUN", "Contenders", "Peer"]


class Peer(NamedTuple):
    """A file in benchmarks/peers/ that scores a folder of scans."""

    name: str
    script: str
    library: str | None = None
    """What it needs and mribatch does not have."""

    @property
    def is_installed(self) -> bool:
        return self.library is None or find_spec(self.library) is not None


NOTHING = Peer("Ray Data, nothing computed", "ray_nothing")
PEERS = (
    Peer("Ray's recipe", "ray_recipe"),
    Peer("Daft, TensorFlow frozen", "daft_recipe", "daft"),
    Peer("Keras loader and predict", "keras_loader"),
    Peer("plain loop, ONNX Runtime", "onnx_loop", "onnxruntime"),
    Peer("plain loop, OpenVINO f32", "openvino_loop"),
)
MRIBATCH, ON_RAY = "mribatch", "mribatch, on Ray"
RERUN, HELP = "mribatch, nothing to do", "mribatch score --help"

Run = dict[str, Any]

log = logging.getLogger("bench")

_LEAST = 1e-37  # a probability that still has a logarithm in float32


@dataclass(frozen=True)
class Contenders:
    """Score the folder `work`/scans, with all outputs in `work`."""

    model: str
    work: Path
    batch_size: int

    @property
    def scans(self) -> Path:
        return self.work / "scans"

    def mribatch(self, number: int) -> Run:
        """Run `score` as a user does."""
        output = self.work / f"mribatch-{number}"
        return self._ran(MRIBATCH, self._score(output), output)

    def on_ray(self, number: int) -> Run:
        """Run `score` with a Ray cluster of its own, which few scans do without."""
        output = self.work / f"on-ray-{number}"
        return self._ran(ON_RAY, self._score(output), output, RAY_ADDRESS="local")

    def rerun(self, number: int) -> Run:
        """Run `score` once more on an output that has all rows."""
        return self._ran(RERUN, self._score(self.work / f"mribatch-{number}"))

    def help(self) -> Run:
        """Run `score --help`."""
        return self._ran(HELP, "python jobs/score.py --help")

    def peer(self, peer: Peer, number: int) -> Run:
        """Run a peer."""
        output = self.work / f"{peer.script}-{number}"
        return self._ran(peer.name, self._command(peer, output), output)

    def pixels(self, peer: Peer) -> dict[str, Any]:
        """Return the versions of a peer, and how far the pixels that it reads are from mribatch's, in grey levels."""
        output, log = self.work / f"{peer.script}-pixels", self.work / "pixels.log"
        run(f"{self._command(peer, output)} --pixels", log)
        rows = _rows(output, "scan", "pixels")
        places = {path.name: str(path) for path in self.scans.rglob("*.*")}
        ours = bare.pixels(
            (places[name] for name in rows["scan"].to_pylist()), directory.open_model(self.model).image_spec
        )
        theirs = np.stack([np.frombuffer(image, np.uint8) for image in rows["pixels"].to_pylist()])
        apart = np.abs(theirs.reshape(ours.shape).astype(int) - ours)
        same = int((apart.max(axis=(1, 2, 3)) == 0).sum())
        facts = {"scans": len(ours), "identical": same, "mean_grey_levels": round(float(apart.mean()), 3)}
        return {"versions": json.loads(log.read_text().splitlines()[-1]), **facts}

    def agreement(self, peer: Peer) -> dict[str, Any]:
        """Return how far a peer's probabilities are from mribatch's, both of the first round.

        Peers do not calibrate theirs, so that is done here.
        """
        model = directory.open_model(self.model)
        columns = [schema.probability_column(label) for label in model.labels]
        ours = _probabilities(self.work / "mribatch-0", "scan_uri", columns)
        theirs = _probabilities(self.work / f"{peer.script}-0", "scan", columns)
        if model.temperature is not None:
            theirs = calibrated(np.log(np.maximum(theirs, _LEAST)), model.temperature).astype(np.float32)
        changed = int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
        return {"largest_difference": round(float(np.abs(ours - theirs).max()), 6), "changed_classes": changed}

    def _score(self, output: Path) -> str:
        return ScoreConfig(
            model=self.model,
            input=(str(self.scans),),
            output=str(output),
            batch_size=self.batch_size,
        ).command("jobs/score.py")

    def _command(self, peer: Peer, output: Path) -> str:
        flags = f"--model {self.model} --data {self.scans} --output {output} --batch-size {self.batch_size}"
        return f"python benchmarks/peers/{peer.script}.py {flags}"

    def _ran(self, name: str, command: str, output: Path | None = None, **variables: str) -> Run:
        load = os.getloadavg()[0]
        ended = run(command, self.work / "run.log", **variables)
        took: Run = {"name": name, "wall_s": round(ended.seconds, 2), "cpu_s": round(ended.cpu_s, 2)}
        if output is not None:
            took["first_row_s"] = round(_first_row(output) - ended.started_at.timestamp(), 2)
        took["load_before"] = round(load, 1)
        log.info("%s", took)
        return took


def _rows(output: Path, *columns: str) -> pa.Table:
    """Return columns of all Parquet files in a folder, sorted by the first column."""
    rows = pyarrow.dataset.dataset(output, format="parquet", exclude_invalid_files=True).to_table(columns=list(columns))
    return rows.sort_by(columns[0])


def _probabilities(output: Path, scan: str, columns: list[str]) -> NDArray[np.float32]:
    """Return the probabilities of all scans in the order of their names, (N, labels)."""
    rows = _rows(output, scan, *columns)
    names = [Path(uri).name for uri in rows[scan].to_pylist()]
    scores = np.stack([rows[name].to_numpy() for name in columns], axis=1)
    return np.asarray(scores[np.argsort(names)], np.float32)


def _first_row(output: Path) -> float:
    """Return the moment at which the first row was computed, in seconds since 1970."""
    first = pc.min(_rows(output, "scored_at")["scored_at"]).as_py()
    return float(first.timestamp() if isinstance(first, datetime) else first)
