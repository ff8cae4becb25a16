"""What decoding a block of scans keeps and when it stops, without Ray. Odd files are in test_odd_files.py."""

import weakref
from pathlib import Path

import numpy as np
import pytest

from mribatch import schema
from mribatch.cluster import decoding
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Status
from mribatch.sources.listing import list_scans
from tests.conftest import write_scans


def test_the_moment_after_which_scans_are_left_counts_within_a_batch_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scans(tmp_path, {"glioma": 4})
    answers = iter([False, False, True])
    monkeypatch.setattr(decoding, "_ASK_S", 0.0)
    rows = decoding.decode_table(list_scans((str(tmp_path),)), spec=ImageSpec(side_px=32), over=lambda: next(answers))
    assert rows["status"].to_pylist() == ["ok", "ok", "left", "left"]


def test_the_pixels_of_a_scan_are_freed_with_its_block() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    kept, frame = weakref.ref(pixels), Frame(status=Status.OK, pixels=pixels)
    columns = decoding._columns([frame], ["/a"], schema.decoded_fields(32), 0)
    assert columns
    del pixels, frame
    assert kept() is None
