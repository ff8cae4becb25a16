"""Measure what reading a DICOM archive costs, in processor time: skipped files, and slices against their JPEGs.

In the root of the repository:  python benchmarks/archive_reading.py

Files are read, judged and decoded as workers of a run do it, without Ray and without a model. Processor time hardly
depends on what else the machine does. Prints a table.
"""

import logging
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import tyro
from dicom_archive import make_archive, make_twins

from mribatch import schema
from mribatch.cluster.decoding import decode_table
from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.stores import uris

log = logging.getLogger("bench")

_BATCH_FILES = 32  # as in a run


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """The sizes of the archives. The defaults take half a minute of processor time."""

    skips: int = 3000
    """DICOM files of kinds that the model is not for."""

    slices: int = 200
    """Slices to read as DICOM and as JPEG."""

    image_side: int = 224
    """Pixels of a side that the model needs."""

    rounds: int = 3
    """How often each is read, in turns."""


def cpu_ms(folder: Path, spec: ImageSpec, reading: Reading) -> float:
    """Return the processor time for a file of a folder, in ms, of this process and of the decoder."""
    files = [{"scan_uri": entry.uri, "scan_version": entry.version} for entry in uris.walk(str(folder))]
    table = pa.Table.from_pylist(files, schema=schema.PLAN)
    decode_table(table.slice(0, 1), spec=spec, reading=reading)  # starts the decoder
    before = time.process_time() + _decoder_s()
    for first in range(0, table.num_rows, _BATCH_FILES):
        decode_table(table.slice(first, _BATCH_FILES), spec=spec, reading=reading)
    spent_s: float = time.process_time() + _decoder_s() - before
    return 1000 * spent_s / int(table.num_rows)


def _decoder_s() -> float:
    """Return the processor time of the child of this process."""
    children = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split()
    times = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13] for child in children]
    return sum(int(ticks) for pair in times for ticks in pair) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(ReadingConfig, description=str(__doc__))
    spec = ImageSpec(side_px=config.image_side)
    reading = Reading(identifiers=Identifiers(mode="keyed", secret=os.urandom(32)))
    with tempfile.TemporaryDirectory(prefix="mribatch-reading-") as work:
        make_archive(Path(work) / "skips", config.skips, skipped=config.skips)
        make_twins(Path(work) / "slices", config.slices)
        folders = {
            "skipped DICOM file": "skips",
            "DICOM slice": "slices/dicom",
            "the same slice as JPEG": "slices/jpeg",
        }
        rounds = [
            {name: cpu_ms(Path(work) / folder, spec, reading) for name, folder in folders.items()}
            for _ in range(config.rounds)
        ]
    log.info("| | processor time, ms | files/s of a core |\n|---|---|---|")
    for name in folders:
        times = sorted(each[name] for each in rounds)
        log.info(
            "| %s | %.2f (%.2f–%.2f) | %.0f |", name, times[len(times) // 2], times[0], times[-1], 1000 / times[-1]
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
