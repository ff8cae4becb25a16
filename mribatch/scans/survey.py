"""Say of a file what scoring would do with it, from its headers alone: no pixels are decoded."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mribatch.scans.archive import Content
from mribatch.scans.decode import opened_archive, unpacked
from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.formats import DICOM, NIFTI, RejectionError
from mribatch.scans.limits import ImageSpec, beside
from mribatch.scans.reading import Reading
from mribatch.schema import Reason, Status

__all__ = ["Surveyed", "survey"]


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """What is known of a scan. `status` OK means that it would be scored, unless its pixels are damaged."""

    status: Status
    name: str | None = None  # of the member of an archive
    size_bytes: int | None = None  # of the member
    reason: Reason | None = None
    detail: str | None = None
    format: str | None = None
    kind: str | None = None
    modality: str | None = None
    vendor: str | None = None
    syntax: str | None = None
    frames: int = 1
    width_px: int | None = None
    height_px: int | None = None
    series: str | None = None  # a hash: equal for files of one series
    study: str | None = None


def survey(data: bytes, spec: ImageSpec, reading: Reading) -> Iterator[Surveyed]:
    """Yield what is known of a file, or of each member of an archive. Raises MemoryError, and nothing else."""
    try:
        archive = opened_archive(data, spec, reading)
    except RejectionError as fault:
        yield Surveyed(status=Status.REJECTED, reason=fault.reason, detail=fault.detail)
        return
    if archive is None:
        yield _scan(lambda: data, spec, reading)
        return
    for name, content in zip(archive.names, archive.contents(), strict=True):
        yield replace(_scan(content, beside(len(data), spec), reading), name=name)


def _scan(content: Content, spec: ImageSpec, reading: Reading) -> Surveyed:
    size_bytes: int | None = None
    try:
        packed = content()
        size_bytes = len(packed)
        data, name, spec = unpacked(packed, spec)
        known = _volume(data, spec, reading) if name == NIFTI else None
    except RejectionError as fault:
        return Surveyed(status=Status.REJECTED, reason=fault.reason, detail=fault.detail, size_bytes=size_bytes)
    if name == DICOM:
        known = _object(data, spec, reading)
    return replace(known or Surveyed(status=Status.OK, format=name), size_bytes=size_bytes)


def _volume(data: bytes, spec: ImageSpec, reading: Reading) -> Surveyed:
    """Return what is known of a NIfTI volume. Raises RejectionError."""
    from mribatch.scans.nifti import read_volume  # loads NiBabel

    volume = read_volume(data, spec, reading.selection.max_frames)
    is_wanted = reading.selection.wants(volume.kind)
    return Surveyed(
        status=Status.OK if is_wanted else Status.SKIPPED,
        reason=None if is_wanted else Reason(volume.kind),
        detail=volume.detail,
        format=NIFTI,
        kind=str(volume.kind),
        frames=volume.frame_count,
        width_px=volume.size[0],
        height_px=volume.size[1],
    )


def _object(data: bytes, spec: ImageSpec, reading: Reading) -> Surveyed:
    """Return what is known of a DICOM object."""
    from mribatch.scans.dicom.reader import read_dicom  # loads pydicom

    scan = read_dicom(data, spec, reading.selection, Identifiers(mode="plain"))
    return Surveyed(
        status=scan.status,
        reason=scan.reason,
        detail=scan.detail,
        format=DICOM,
        kind=scan.kind,
        modality=scan.modality,
        vendor=scan.vendor,
        syntax=scan.syntax,
        frames=max(1, scan.frame_count),
        width_px=scan.columns_px,
        height_px=scan.rows_px,
        series=_hash(scan.keys.series_key),
        study=_hash(scan.keys.study_key),
    )


def _hash(uid: str | None) -> str | None:
    return None if uid is None else hashlib.sha256(uid.encode()).hexdigest()
