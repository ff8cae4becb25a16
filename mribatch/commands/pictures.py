"""Read scans once more for the small pictures that pages show beside their rows."""

import logging
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mribatch import schema
from mribatch.causes import cause
from mribatch.cluster.decoding import decode_blocks
from mribatch.errors import MribatchError
from mribatch.reports.overlays import fitted
from mribatch.reports.rendering import Picture, picture, png
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.schema import PLAN

__all__ = ["small_pictures"]

log = logging.getLogger("mribatch.pictures")

_SIDE_PX = 96  # the longer side; about 8 KB a picture
_SECONDS = 20.0  # for the pictures of a page; a page without some of them is better than a late one


def small_pictures(rows: pa.Table, most: int, reading: Reading | None = None) -> dict[tuple[str, int], Picture]:
    """Return pictures of the first `most` rows, by scan_uri and frame. rows: with the columns of schema.KEY.

    Members of archives, and scans that have changed or can no longer be read, have none. Reading stops after 20 s.
    """
    first = rows.slice(0, most)
    if "container" in first.column_names:
        first = first.filter(first["container"].is_null())
    keys = {tuple(row.values()) for row in first.select(schema.KEY).to_pylist()}
    until, pictures = time.monotonic() + _SECONDS, dict[tuple[str, int], Picture]()
    for uri, version in sorted({(uri, version) for uri, version, _ in keys}):
        if time.monotonic() > until:
            log.warning("warning: the page lacks pictures: reading them took longer than %g s", _SECONDS)
            break
        frames = [frame for known_uri, known_version, frame in keys if (known_uri, known_version) == (uri, version)]
        try:
            pictures |= _of_scan(uri, version, frames, reading or Reading())
        except MribatchError as err:  # of the storage, so the other scans would fail too
            log.warning("warning: the page lacks pictures (%s)", cause(err))
            break
    return pictures


def _of_scan(uri: str, version: str, frames: Sequence[int], reading: Reading) -> dict[tuple[str, int], Picture]:
    table = pa.table([[uri], [version]], schema=PLAN)
    rows = [
        row
        for block in decode_blocks(table, spec=ImageSpec(side_px=_SIDE_PX), reading=reading)
        for row in block.select(["frame", "pixels", "width_px", "height_px"]).to_pylist()
        if row["frame"] in frames and row["pixels"]
    ]
    return {(uri, row["frame"]): _drawn(row["pixels"], row["width_px"], row["height_px"]) for row in rows}


def _drawn(data: bytes, width_px: int, height_px: int) -> Picture:
    pixels = np.frombuffer(data, np.uint8).reshape(_SIDE_PX, _SIDE_PX, 3)
    shown = fitted(pixels, width_px, height_px)
    is_grey = bool((shown == shown[..., :1]).all())
    return picture("", png(shown[..., 0] if is_grey else shown))
