"""NIfTI bytes to the frames that become rows: what `scans.nifti` reads, resized as all scans are."""

from collections.abc import Iterator

from mribatch.scans.formats import NIFTI, UNKNOWN, RejectionError
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.nifti import Volume, read_volume
from mribatch.scans.pictures import ArrayPicture
from mribatch.scans.raster import digest_and_square
from mribatch.scans.reading import Reading
from mribatch.schema import Reason, Status

__all__ = ["volume_frames"]


def volume_frames(data: bytes, content_sha256: str, spec: ImageSpec, reading: Reading) -> Iterator[Frame]:
    """Yield the slices of a volume one at a time, or one frame that says why it is skipped or rejected."""
    try:
        volume = read_volume(data, spec, reading.selection.max_frames)
    except RejectionError as fault:
        yield Frame(
            status=Status.REJECTED,
            reason=fault.reason,
            detail=fault.detail,
            content_sha256=content_sha256,
            format=NIFTI,
            reading=reading.of_unknown if fault.reason in UNKNOWN else reading.of_rejected,
        )
        return
    if reading.selection.wants(volume.kind):
        yield from (_slice(volume, frame, content_sha256, spec, reading) for frame in range(volume.frame_count))
        return
    yield Frame(
        status=Status.SKIPPED,
        reason=Reason(volume.kind),
        content_sha256=content_sha256,
        format=NIFTI,
        reading=reading.of_skipped,
        kind=str(volume.kind),
    )


def _slice(volume: Volume, frame: int, content_sha256: str, spec: ImageSpec, reading: Reading) -> Frame:
    shown, pixels_sha256, pixels = volume.shown(frame), None, None
    if shown is not None:
        pixels_sha256, pixels = digest_and_square(ArrayPicture(shown[0]), spec.side_px, reading)
    width_px, height_px = volume.size if shown else (None, None)
    return Frame(
        status=Status.OK if shown else Status.SKIPPED,
        frame=frame,
        frames=volume.frame_count,
        reason=None if shown else Reason.BLANK,
        detail=volume.detail,
        content_sha256=content_sha256,
        format=NIFTI,
        width_px=width_px,
        height_px=height_px,
        reading=reading.of_volumes,
        kind=str(volume.kind),
        plane=volume.plane,
        slice_mm=volume.slice_mm(frame),
        window=shown[1] if shown else None,
        pixels_sha256=pixels_sha256,
        pixels=pixels,
    )
