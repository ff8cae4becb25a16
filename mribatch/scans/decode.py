"""Decode the bytes of a file into frames of checked pixels: the one door to all formats.

The bytes alone decide what a file is; names and extensions are never read. No Ray, no TensorFlow, no I/O.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from mribatch.scans.archive import Archive, Content, open_archive
from mribatch.scans.formats import ARCHIVES, DICOM, GZIP, NIFTI, TAR, UNKNOWN, RejectionError, sniffed
from mribatch.scans.frames import Frame
from mribatch.scans.inflate import gzip_content, gzip_start
from mribatch.scans.limits import ImageSpec, beside
from mribatch.scans.raster import raster_frame
from mribatch.scans.reading import Reading
from mribatch.schema import Reason, Status

__all__ = ["Opened", "decode", "frames", "opened", "opened_archive", "scan_frames", "unpacked"]

_PLAIN = Reading()


@dataclass(frozen=True)
class Opened:
    """The scans in a file: itself, or the members of an archive."""

    names: tuple[str, ...]  # of the members; none unless it is an archive
    scans: Callable[[int], Iterator[Iterator[Frame]]]
    """Yield the frames of each scan, from a number on. Each scan must be read before the next one is asked for."""


def decode(data: bytes, spec: ImageSpec, reading: Reading = _PLAIN) -> list[Frame]:
    """Return the frames of a file in their order, all in memory. See `frames`."""
    return list(frames(data, spec, reading))


def frames(data: bytes, spec: ImageSpec, reading: Reading = _PLAIN) -> Iterator[Frame]:
    """Yield the frames of a file in their order, or one frame with the reason why it has none.

    A JPEG, PNG, TIFF or BMP has one frame. Those of a DICOM file, a volume or an archive are decoded one at a time.
    Raises MemoryError, and nothing else whatever the bytes. Thread-safe.
    """
    for scan in opened(data, spec, reading).scans(0):
        yield from scan


def opened(data: bytes, spec: ImageSpec, reading: Reading = _PLAIN) -> Opened:
    """Return the scans in a file. Raises what `frames` raises."""
    try:
        archive = opened_archive(data, spec, reading)
    except RejectionError as fault:
        rejected = _rejected(fault, hashlib.sha256(data).hexdigest(), None, reading)
        return Opened((), lambda start: iter([iter([rejected])][start:]))
    if archive is None:
        return Opened((), lambda start: iter([scan_frames(data, spec, reading)][start:]))
    return Opened(archive.names, partial(_member_frames, archive, beside(len(data), spec), reading))


def opened_archive(data: bytes, spec: ImageSpec, reading: Reading) -> Archive | None:
    """Return the archive in some bytes, None if they are another file. Raises RejectionError."""
    name = _archive_format(data, spec)
    if name is None:
        return None
    if not reading.archives:
        raise RejectionError(Reason.MULTIPLE_FRAMES, "archives are not read here: unpack it")
    return open_archive(data, name, spec)


def _archive_format(data: bytes, spec: ImageSpec) -> str | None:
    """Return the format of an archive, gzip for a tar.gz; None for another file, also one of no known format."""
    try:
        name = sniffed(data, spec.max_bytes)
        if name == GZIP:
            return GZIP if sniffed(gzip_start(data, spec), spec.max_bytes) == TAR else None
    except RejectionError:
        return None
    return name if name in ARCHIVES else None


def unpacked(data: bytes, spec: ImageSpec) -> tuple[bytes, str, ImageSpec]:
    """Return the bytes of a scan without gzip, their format, and the limits for them. Raises RejectionError."""
    name = sniffed(data, spec.max_bytes)
    if name == GZIP:
        data, spec = gzip_content(data, spec), beside(len(data), spec)
        name = sniffed(data, spec.max_bytes)
    if name == GZIP or name in ARCHIVES:
        raise RejectionError(Reason.UNSUPPORTED_FORMAT, "archives inside archives are not read")
    return data, name, spec


def scan_frames(data: bytes, spec: ImageSpec, reading: Reading) -> Iterator[Frame]:
    """Yield the frames of a file that is no archive."""
    digest = hashlib.sha256(data).hexdigest()
    name: str | None = None
    try:
        data, name, spec = unpacked(data, spec)
        if name not in (DICOM, NIFTI):
            yield raster_frame(data, name, digest, spec, reading)
            return
    except RejectionError as fault:
        yield _rejected(fault, digest, name, reading)
        return
    if name == NIFTI:
        from mribatch.scans.slices import volume_frames  # loads NiBabel, which most archives of pictures never need

        yield from volume_frames(data, digest, spec, reading)
        return
    from mribatch.scans.dicom.rows import dicom_frames  # loads pydicom, as above

    yield from dicom_frames(data, digest, spec, reading)


def _member_frames(archive: Archive, spec: ImageSpec, reading: Reading, start: int) -> Iterator[Iterator[Frame]]:
    for number, content in enumerate(archive.contents(start), start):
        yield (
            replace(frame, name=archive.names[number], member=number, members=len(archive.names))
            for frame in _content_frames(content, spec, reading)
        )


def _content_frames(content: Content, spec: ImageSpec, reading: Reading) -> Iterator[Frame]:
    try:
        data = content()
    except RejectionError as fault:
        yield _rejected(fault, None, None, reading)
        return
    yield from scan_frames(data, spec, reading)


def _rejected(fault: RejectionError, digest: str | None, name: str | None, reading: Reading) -> Frame:
    return Frame(
        status=Status.REJECTED,
        reason=fault.reason,
        detail=fault.detail,
        content_sha256=digest,
        format=name,
        reading=reading.of_unknown if fault.reason in UNKNOWN else None,
    )
