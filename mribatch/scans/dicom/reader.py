"""DICOM bytes to frames of checked pixels: the door to all that is read of a DICOM file.

An object is scored, skipped or rejected by its header; then its frames are decoded one at a time, so that a thousand of
them need no more memory than one. No text of a header leaves, neither in a result nor in an error or a log.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mribatch.scans.dicom.colour import rgb_of
from mribatch.scans.dicom.elements import Elements
from mribatch.scans.dicom.frames import FrameReader, frame_reader
from mribatch.scans.dicom.geometry import slice_place
from mribatch.scans.dicom.groups import FrameGroups
from mribatch.scans.dicom.header import Header, read_header, read_on
from mribatch.scans.dicom.identity import Identifiers, Keys
from mribatch.scans.dicom.kind import has_tiles, kind_of
from mribatch.scans.dicom.layout import Layout, declared_frames, read_layout
from mribatch.scans.dicom.levels import levels_of
from mribatch.scans.dicom.names import known_modality, syntax_name, vendor_of
from mribatch.scans.dicom.samples import Samples
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.dicom.start import is_dicom
from mribatch.scans.dicom.stored import padding_range, stored_values
from mribatch.scans.dicom.windows import COLOUR, Grey, rescaled, shaded
from mribatch.scans.dicom.words import series_texts
from mribatch.scans.formats import RejectionError
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Reason, Status

__all__ = ["DicomFrame", "DicomObject", "Identifiers", "Selection", "is_dicom", "read_dicom"]

_NO_KEYS = Keys()


@dataclass(frozen=True, kw_only=True)
class DicomFrame:
    """One frame, or why there is none: SKIPPED where it is blank, REJECTED where its pixels are damaged."""

    index: int
    status: Status
    reason: Reason | None = None
    detail: str | None = None
    window: str | None = None  # header, lut, computed or colour
    plane: str | None = None  # axial, coronal or sagittal
    slice_mm: float | None = None
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """(rows, columns) grey or (rows, columns, 3) RGB, C-contiguous."""


@dataclass(frozen=True, kw_only=True)
class DicomObject:
    """One DICOM file. `frames` is for one pass, and empty unless the status is OK."""

    status: Status
    reason: Reason | None = None
    detail: str | None = None
    kind: str | None = None
    modality: str | None = None
    vendor: str | None = None
    syntax: str | None = None
    keys: Keys = _NO_KEYS
    frame_count: int = 0
    rows_px: int | None = None
    columns_px: int | None = None
    frames: Iterator[DicomFrame] = field(default=iter(()), repr=False, compare=False)


@dataclass(frozen=True)
class _Reader:
    """All that the frames of one object need."""

    elements: Elements
    groups: FrameGroups
    layout: Layout
    decode: FrameReader
    ignore_header: bool

    def frames(self) -> Iterator[DicomFrame]:
        for index in range(self.layout.frames):
            plane, slice_mm = slice_place(self.elements, self.groups, index)
            yield replace(self._frame(index), plane=plane, slice_mm=slice_mm)

    def _frame(self, index: int) -> DicomFrame:
        try:
            shown = self._shown(self.decode(index), index)
        except RejectionError as fault:
            return DicomFrame(index=index, status=Status.REJECTED, reason=fault.reason, detail=fault.detail)
        if shown is None:
            return DicomFrame(index=index, status=Status.SKIPPED, reason=Reason.BLANK)
        pixels, window = shown
        return DicomFrame(index=index, status=Status.OK, window=window, pixels=np.ascontiguousarray(pixels))

    def _shown(self, samples: Samples, index: int) -> tuple[NDArray[np.uint8], str] | None:
        """Return the pixels of a frame and the name of their window; None where they are all alike."""
        if not self.layout.is_grey:
            pixels = rgb_of(samples, self.layout, self.elements)
            return None if (pixels == pixels[0, 0]).all() else (pixels, COLOUR)
        is_inverted = self.layout.photometric == "MONOCHROME1"
        grey = Grey(self.elements, self.groups, index, self.layout.is_signed, is_inverted)
        padding = padding_range(self.elements, self.layout)
        levels = rescaled(levels_of(stored_values(samples, self.layout), padding), grey)
        if levels.is_constant:
            return None
        shades, window = shaded(levels, grey, ignore_header=self.ignore_header)
        return levels.paint(shades), window


def read_dicom(data: bytes, spec: ImageSpec, selection: Selection, identifiers: Identifiers) -> DicomObject:
    """Read a DICOM file up to its pixels, and return what it is with an iterator that decodes its frames.

    No bytes make it raise, nor its frames; only the machine does (MemoryError).
    """
    known = DicomObject(status=Status.REJECTED)
    try:
        if len(data) > spec.max_bytes:
            raise RejectionError(Reason.TOO_LARGE, f"{len(data)} bytes exceed the cap of {spec.max_bytes}")
        header = read_header(data)
        known = _chosen(header, _described(header, identifiers), selection)
        if known.reason is None and header.is_open:
            header = read_on(header, declared_frames(header.elements, selection.max_frames))
            known = _chosen(header, known, selection)
        return known if known.reason else _opened(header, known, spec, selection)
    except RejectionError as fault:
        return replace(known, status=Status.REJECTED, reason=fault.reason, detail=fault.detail)


def _described(header: Header, identifiers: Identifiers) -> DicomObject:
    """Return what a header says of an object and may leave."""
    return DicomObject(
        status=Status.REJECTED,
        modality=known_modality(header.modality),
        vendor=vendor_of(header.elements),
        syntax=syntax_name(header.syntax),
        keys=identifiers.keys(header.elements),
    )


def _chosen(header: Header, known: DicomObject, selection: Selection) -> DicomObject:
    """Return what is known of an object with its kind, and skipped where it is not selected. Raises RejectionError."""
    kind = kind_of(header)
    reason = selection.skip_reason(kind, series_texts(header.elements))
    if reason is None and has_tiles(header):
        reason = Reason.MOSAIC
    status = known.status if reason is None else Status.SKIPPED
    return replace(known, kind=str(kind), status=status, reason=reason)


def _opened(header: Header, known: DicomObject, spec: ImageSpec, selection: Selection) -> DicomObject:
    """Check an object that is to be scored. Raises RejectionError."""
    if header.pixels is None:
        raise RejectionError(Reason.TRUNCATED, "the DICOM file ends before its pixels begin")
    layout = read_layout(header, header.pixels, spec, selection.max_frames)
    reader = _Reader(
        header.elements,
        header.groups,
        layout,
        frame_reader(header, header.pixels, layout, spec),
        selection.window == "computed",
    )
    return replace(
        known,
        status=Status.OK,
        frame_count=layout.frames,
        rows_px=layout.rows,
        columns_px=layout.columns,
        frames=reader.frames(),
    )
