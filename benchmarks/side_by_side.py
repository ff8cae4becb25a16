"""Score the same scans with mribatch and with its peers, in turns, and compare their time, processor time and results.

In the root of the repository:  python benchmarks/side_by_side.py

A peer is a file in benchmarks/peers/. Daft and ONNX Runtime are left out where they are not installed; see
benchmarks/peers/requirements.txt. CPU-seconds are those of all processes of a command, Ray's included; they depend less than
wall times on what else the machine does. Writes OUTPUT.json (all runs) and OUTPUT.md (the tables).
"""

import dataclasses
import logging
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import material
import side_by_side_results
import tyro
from bench import SCAN_FOLDER
from contenders import NOTHING, PEERS, Contenders, Peer

from mribatch.errors import MribatchError, RunFailed

log = logging.getLogger("bench")


@dataclass(frozen=True, kw_only=True)
class SideBySideConfig:
    """Settings of the comparison. The defaults take about 20 minutes on two quiet cores."""

    model: str = "models/brain-mri-v2"
    """The model directory to score with."""

    data: str | None = None
    """A folder of scans to score. Default: the public testing scans, else copies of samples/."""

    scans: tuple[int, ...] = (17, 256)
    """Numbers of scans to score."""

    rounds: int = 2
    """Runs of each command on each number of scans."""

    batch_size: int = 32
    """Scans per forward pass."""

    peers: tuple[str, ...] = tuple(peer.script for peer in PEERS)
    """The files in benchmarks/peers/ to compare with, without .py."""

    output: str = "benchmarks/side_by_side"
    """Path of the results without extension."""


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that child processes end
    try:
        print(compare(tyro.cli(SideBySideConfig, description=__doc__)))
    except MribatchError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    return 0


def compare(config: SideBySideConfig) -> str:
    """Measure everything, write both files and return the Markdown.

    Raises ModelError or InputError if the model or scans are missing, RunFailed if a command fails.
    """
    started_at, load = datetime.now(UTC), os.getloadavg()[0]
    wanted = [peer for peer in PEERS if peer.script in config.peers]
    peers = [peer for peer in wanted if peer.is_installed]
    measured: dict[str, Any] = {"sizes": [], "peers": {}}
    with tempfile.TemporaryDirectory(prefix="mribatch-bench-") as folder:
        for count in config.scans:
            contenders = Contenders(config.model, Path(folder) / str(count), config.batch_size)
            scans = material.gather(config.data, SCAN_FOLDER, count, contenders.scans)
            if not measured["peers"]:  # before the runs: it also exports the graph for ONNX Runtime
                measured["peers"] = {peer.name: contenders.pixels(peer) for peer in peers}
            measured["sizes"].append({"count": count, "scans": scans, **_size(contenders, peers, config.rounds)})
    return side_by_side_results.write(
        config.output,
        {
            "started_at": started_at.isoformat(timespec="seconds"),
            **machine.facts(),
            "load_before": round(load, 1),
            "settings": side_by_side_results.settings(dataclasses.asdict(config)),
            "not_installed": {peer.name: peer.library for peer in wanted if not peer.is_installed},
            **measured,
        },
    )


def _size(contenders: Contenders, peers: list[Peer], rounds: int) -> dict[str, Any]:
    """Run all commands on one folder, every second round in the opposite order. A peer that fails is left out from then on."""
    runs: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number in range(rounds):
        order = (None, NOTHING, *peers)
        for peer in order if number % 2 == 0 else reversed(order):
            if peer is None:
                runs.append({"round": number, **contenders.mribatch(number)})
                runs.append({"round": number, **contenders.on_ray(number)})
            elif peer.name not in failed:
                runs += _runs_of(contenders, peer, number, failed)
    extra = [contenders.rerun(number) for number in range(rounds)] + [contenders.help() for _ in range(rounds)]
    agreement = {peer.name: contenders.agreement(peer) for peer in peers if peer.name not in failed}
    return {
        "runs": [run for run in runs + extra if run["name"] not in failed],
        "failed": failed,
        "agreement": agreement,
    }


def _runs_of(contenders: Contenders, peer: Peer, number: int, failed: dict[str, str]) -> list[dict[str, Any]]:
    """Return the run of a peer, or none and note why."""
    try:
        return [{"round": number, **contenders.peer(peer, number)}]
    except RunFailed as err:
        log.warning("%s", err)
        failed[peer.name] = str(err).splitlines()[-1]
        return []


if __name__ == "__main__":
    sys.exit(main())
