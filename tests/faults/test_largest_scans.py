"""The largest scans that are read, a hundred megapixels each: decoding them takes what is reserved for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from mribatch.cluster.decoding import DECODER_BYTES
from tests.conftest import ROOT
from tests.unit.test_memory import LARGEST

SIDE = 10_000

_DECODE = """
import sys
from mribatch.scans.limits import ImageSpec
from mribatch.cluster.decoding import decode_table
from mribatch.sources.listing import list_scans
from mribatch.scans.sandbox import decoder
spec = ImageSpec(side_px=224)
row = decode_table(list_scans(sys.argv[1:]), spec=spec, timeout_s=300).to_pylist()[0]
own = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(row["status"], own + decoder(spec, 300).peak_bytes())
"""
"""Not `ru_maxrss`: in a child it begins with what its parent has had, here that of the test that made the scan."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGEST)
def test_largest_scan_takes_no_more_than_is_reserved(kind: str, tmp_path: Path) -> None:
    scan = tmp_path / "scan"
    scan.write_bytes(LARGEST[kind](SIDE))
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _DECODE, scan], capture_output=True, text=True, check=True, cwd=ROOT
        )
    finally:
        scan.unlink()
    status, peak_bytes = ran.stdout.split()
    print(f"{kind}: {int(peak_bytes) / 1e6:.0f} MB")
    assert status == "ok"
    assert int(peak_bytes) <= DECODER_BYTES
