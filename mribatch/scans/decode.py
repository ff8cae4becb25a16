"""Decode the bytes of a file into frames of checked pixels: the one door to all formats.

The bytes alone decide what a file is; names and extensions are never read. No Ray, no TensorFlow, no I/O.
"""

import hashlib

from mribatch.scans.formats import RejectionError, sniffed
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.raster import raster_frame
from mribatch.schema import Status

__all__ = ["decode"]


def decode(data: bytes, spec: ImageSpec) -> list[Frame]:
    """Return the frames of a file in their order, or one frame with the reason why it has none.

    A JPEG, PNG, TIFF or BMP has one frame. Raises MemoryError, and nothing else whatever the bytes. Thread-safe.
    """
    digest = hashlib.sha256(data).hexdigest()
    name: str | None = None
    try:
        name = sniffed(data, spec.max_bytes)
        return [raster_frame(data, name, digest, spec)]
    except RejectionError as fault:
        status, reason, detail = Status.REJECTED, fault.reason, fault.detail
        return [Frame(status=status, reason=reason, detail=detail, content_sha256=digest, format=name)]
