"""The largest accepted scans, a hundred megapixels each: decoding stays within the memory reserved for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from mribatch.cluster.streaming import DECODER_BYTES
from tests.conftest import ROOT
from tests.unit.test_memory import LARGEST

SIDE = 10_000

_DECODE = """
import sys
from mribatch.scans.limits import ImageSpec
from mribatch.cluster.decoding import decode_table
from mribatch.sources.listing import list_scans
from mribatch.scans.reading import ONE_FRAME
from mribatch.scans.sandbox import decoder
spec = ImageSpec(side_px=224)
row = decode_table(list_scans(sys.argv[1:]), spec=spec, timeout_s=300).to_pylist()[0]
own = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(row["status"], own + decoder(spec, 300, ONE_FRAME).peak_bytes())
"""
"""Reads VmHWM and not `ru_maxrss`, which a child inherits from its parent: here, from the test that made the scan."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGEST)
def test_decoding_the_largest_scan_takes_no_more_memory_than_is_reserved(kind: str, tmp_path: Path) -> None:
    scan = tmp_path / "scan"
    scan.write_bytes(LARGEST[kind](SIDE))
    try:
        command = [sys.executable, "-c", _DECODE, str(scan)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    finally:
        scan.unlink()
    status, peak_bytes = done.stdout.split()
    print(f"{kind}: {int(peak_bytes) / 1e6:.0f} MB")
    assert status == "ok"
    assert int(peak_bytes) <= DECODER_BYTES
