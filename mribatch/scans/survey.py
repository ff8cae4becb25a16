"""Say of a file what scoring would do with it, from its header alone: no pixels are decoded."""

import hashlib
from dataclasses import dataclass

from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.formats import DICOM, RejectionError, sniffed
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.schema import Reason, Status

__all__ = ["Surveyed", "survey"]


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """What is known of a file. `status` OK means that it would be scored, unless its pixels are damaged."""

    status: Status
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


def survey(data: bytes, spec: ImageSpec, reading: Reading) -> Surveyed:
    """Return what is known of a file by its header. Raises MemoryError, and nothing else whatever the bytes."""
    name: str | None = None
    try:
        name = sniffed(data, spec.max_bytes)
    except RejectionError as fault:
        return Surveyed(status=Status.REJECTED, reason=fault.reason, detail=fault.detail)
    if name != DICOM:
        return Surveyed(status=Status.OK, format=name)
    from mribatch.scans.dicom.reader import read_dicom  # loads pydicom

    scan = read_dicom(data, spec, reading.selection, Identifiers(mode="plain"))
    series = scan.keys.series_key
    return Surveyed(
        status=scan.status,
        reason=scan.reason,
        detail=scan.detail,
        format=name,
        kind=scan.kind,
        modality=scan.modality,
        vendor=scan.vendor,
        syntax=scan.syntax,
        frames=max(1, scan.frame_count),
        width_px=scan.columns_px,
        height_px=scan.rows_px,
        series=None if series is None else hashlib.sha256(series.encode()).hexdigest(),
    )
