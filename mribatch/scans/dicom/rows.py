"""DICOM bytes to the frames that become rows: what `scans.dicom.reader` reads, resized as all scans are."""

from collections.abc import Iterator
from dataclasses import asdict

from mribatch.scans.dicom.reader import DicomFrame, DicomObject, read_dicom
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.pictures import ArrayPicture
from mribatch.scans.raster import digest_and_square
from mribatch.scans.reading import Reading
from mribatch.schema import Status

__all__ = ["dicom_frames"]

_FORMAT = "DICOM"


def dicom_frames(data: bytes, content_sha256: str, spec: ImageSpec, reading: Reading) -> Iterator[Frame]:
    """Yield the frames of a DICOM file one at a time, or one frame that says why it is skipped or rejected."""
    scan = read_dicom(data, spec, reading.selection, reading.identifiers)
    if scan.status is not Status.OK:
        yield _closed(scan, content_sha256, reading)
    for frame in scan.frames:
        yield _opened(scan, frame, content_sha256, spec, reading)


def _closed(scan: DicomObject, content_sha256: str, reading: Reading) -> Frame:
    return Frame(
        status=scan.status,
        reason=scan.reason,
        detail=scan.detail,
        content_sha256=content_sha256,
        format=_FORMAT,
        reading=reading.of_skipped if scan.status is Status.SKIPPED else reading.of_rejected,
        kind=scan.kind,
        modality=scan.modality,
        **asdict(scan.keys),
    )


def _opened(scan: DicomObject, frame: DicomFrame, content_sha256: str, spec: ImageSpec, reading: Reading) -> Frame:
    pixels_sha256, pixels = None, None
    if frame.pixels is not None:
        pixels_sha256, pixels = digest_and_square(ArrayPicture(frame.pixels), spec.side_px, reading)
    return Frame(
        status=frame.status,
        frame=frame.index,
        frames=scan.frame_count,
        reason=frame.reason,
        detail=frame.detail,
        content_sha256=content_sha256,
        format=_FORMAT,
        width_px=None if pixels is None else scan.columns_px,
        height_px=None if pixels is None else scan.rows_px,
        reading=reading.of_damaged if frame.status is Status.REJECTED else reading.of_opened,
        kind=scan.kind,
        modality=scan.modality,
        plane=frame.plane,
        slice_mm=frame.slice_mm,
        window=frame.window,
        **asdict(scan.keys),
        pixels_sha256=pixels_sha256,
        pixels=pixels,
    )
