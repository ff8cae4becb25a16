"""Decode the bytes of a file into frames of checked pixels: the one door to all formats.

The bytes alone decide what a file is; names and extensions are never read. No Ray, no TensorFlow, no I/O.
"""

import hashlib
from collections.abc import Iterator

from mribatch.scans.formats import DICOM, UNKNOWN, RejectionError, sniffed
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.raster import raster_frame
from mribatch.scans.reading import Reading
from mribatch.schema import Status

__all__ = ["decode", "frames"]

_PLAIN = Reading()


def decode(data: bytes, spec: ImageSpec, reading: Reading = _PLAIN) -> list[Frame]:
    """Return the frames of a file in their order, all in memory. See `frames`."""
    return list(frames(data, spec, reading))


def frames(data: bytes, spec: ImageSpec, reading: Reading = _PLAIN) -> Iterator[Frame]:
    """Yield the frames of a file in their order, or one frame with the reason why it has none.

    A JPEG, PNG, TIFF or BMP has one frame. Those of a DICOM file are decoded one at a time. Raises MemoryError, and
    nothing else whatever the bytes. Thread-safe.
    """
    digest = hashlib.sha256(data).hexdigest()
    name: str | None = None
    try:
        name = sniffed(data, spec.max_bytes)
        if name != DICOM:
            yield raster_frame(data, name, digest, spec)
            return
    except RejectionError as fault:
        yield Frame(
            status=Status.REJECTED,
            reason=fault.reason,
            detail=fault.detail,
            content_sha256=digest,
            format=name,
            reading=reading.of_unknown if fault.reason in UNKNOWN else None,
        )
        return
    from mribatch.scans.dicom.rows import dicom_frames  # loads pydicom, which most archives of pictures never need

    yield from dicom_frames(data, digest, spec, reading)
