"""Read scans once more for the small pictures that pages show beside their rows."""

import logging
import time
from collections import defaultdict

import numpy as np
import pyarrow as pa

from mribatch import schema
from mribatch.causes import cause
from mribatch.cluster.decoding import decode_blocks
from mribatch.errors import MribatchError
from mribatch.predictions.files import file_uris
from mribatch.reports.overlays import fitted
from mribatch.reports.rendering import Picture, picture, png
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.schema import PLAN

__all__ = ["small_pictures"]

log = logging.getLogger("mribatch.pictures")

_SIDE_PX = 96  # the longer side; about 8 KB a picture
Key = tuple[str, int]  # scan_uri and frame
_SECONDS = 20.0  # for the pictures of a page; a page without some of them is better than a late one


def small_pictures(rows: pa.Table, most: int, reading: Reading | None = None) -> dict[Key, Picture]:
    """Return pictures of the first `most` rows, by scan_uri and frame.

    rows: with the columns of schema.KEY, and container if some are members of archives. Scans that have changed or can no
    longer be read have no picture. Reading stops after 20 s.
    """
    first = rows.slice(0, most)
    files: dict[tuple[str, str], set[Key]] = defaultdict(set)
    for uri, row in zip(file_uris(first).to_pylist(), first.select(schema.KEY).to_pylist(), strict=True):
        files[uri, row["scan_version"]].add((row["scan_uri"], row["frame"]))
    until, pictures = time.monotonic() + _SECONDS, dict[Key, Picture]()
    for (uri, version), keys in sorted(files.items()):
        try:
            pictures |= _of_file(uri, version, keys, reading or Reading(), until)
        except MribatchError as err:  # of the storage, so the other scans would fail too
            log.warning("warning: the page lacks pictures (%s)", cause(err))
            break
        if time.monotonic() > until:
            log.warning("warning: the page lacks pictures: reading them took longer than %g s", _SECONDS)
            break
    return pictures


def _of_file(uri: str, version: str, keys: set[Key], reading: Reading, until: float) -> dict[Key, Picture]:
    """Return the pictures of some frames of a file, or of members of an archive, up to a moment of the monotonic clock."""
    table, pictures = pa.table([[uri], [version]], schema=PLAN), dict[Key, Picture]()
    for block in decode_blocks(table, spec=ImageSpec(side_px=_SIDE_PX), reading=reading):
        for row in block.select(["scan_uri", "frame", "pixels", "width_px", "height_px"]).to_pylist():
            key = (row["scan_uri"], row["frame"])
            if key in keys and row["pixels"]:
                pictures[key] = _drawn(row["pixels"], row["width_px"], row["height_px"])
        if len(pictures) == len(keys) or time.monotonic() > until:
            break
    return pictures


def _drawn(data: bytes, width_px: int, height_px: int) -> Picture:
    pixels = np.frombuffer(data, np.uint8).reshape(_SIDE_PX, _SIDE_PX, 3)
    shown = fitted(pixels, width_px, height_px)
    is_grey = bool((shown == shown[..., :1]).all())
    return picture("", png(shown[..., 0] if is_grey else shown))
