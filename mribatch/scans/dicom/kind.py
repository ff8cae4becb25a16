"""What a DICOM object is: anatomical MR, or which of the kinds that the model is not for.

Coded fields decide first: SOP class, modality, image type, b-value, frame type. Then the words of the series. Then the
codes that hint at a kind only: echo planar sequences, temporal positions. What none of them names is anatomical.
"""

from mribatch.scans.dicom.codes import coded_kind, hinted_kind, is_mosaic, is_tiled
from mribatch.scans.dicom.header import Header
from mribatch.scans.dicom.selection import ANATOMICAL
from mribatch.scans.dicom.words import word_kind
from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["has_tiles", "kind_of"]

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CLASSIC_MR = _STORAGE + "4"
_ENHANCED_MR = tuple(_STORAGE + end for end in ("4.1", "4.3", "4.4"))  # enhanced, enhanced colour, legacy converted
_SECONDARY_CAPTURE = _STORAGE + "7"
_SEGMENTATIONS = tuple(_STORAGE + end for end in ("66.4", "66.7"))
_PARAMETRIC_MAP = _STORAGE + "30"
_WITHOUT_PIXELS = tuple(  # that may hold Rows and Columns all the same
    _STORAGE + end for end in ("4.2", "66", "66.1", "66.2", "66.3", "66.5", "66.6")
)

_SOP_CLASS = 0x00080016
_MODALITIES_OF_CAPTURES = ("MR", "OT", "SC", "")
_PHYSICS = (0x00180020, 0x00180080, 0x00180081, 0x00180087)  # sequence, repetition and echo time, field strength


def kind_of(header: Header) -> str:
    """Return the kind of an object: `anatomical`, or a reason to skip it. Raises RejectionError for a cut header."""
    elements = header.elements
    if _has_no_pixels(header):
        return Reason.NO_PIXELS
    if header.sop_class in _SEGMENTATIONS or header.modality == "SEG":
        return Reason.SEGMENTATION
    if header.sop_class == _PARAMETRIC_MAP:
        return Reason.MAP
    if header.sop_class == _SECONDARY_CAPTURE or header.sop_class.startswith(_SECONDARY_CAPTURE + "."):
        has_physics = any(elements.content(tag).strip(b" \0") for tag in _PHYSICS)
        if not has_physics or header.modality not in _MODALITIES_OF_CAPTURES:
            return Reason.SECONDARY_CAPTURE
    elif header.modality != "MR" and header.sop_class not in (_CLASSIC_MR, *_ENHANCED_MR):
        return Reason.NOT_MR
    return _mr_kind(header)


def has_tiles(header: Header) -> bool:
    """Return whether one picture holds many slices. Enhanced objects that say so do not."""
    return header.sop_class not in _ENHANCED_MR and is_tiled(header.elements)


def _has_no_pixels(header: Header) -> bool:
    """Return whether an object is of a kind without pixels; one with a size has lost them."""
    if header.pixels is not None or header.is_open:
        return False
    if header.is_short:
        raise RejectionError(Reason.TRUNCATED, "the DICOM file ends before its data does")
    is_image = header.has_size or header.elements.text(_SOP_CLASS) in (_CLASSIC_MR, *_ENHANCED_MR)
    return header.sop_class in _WITHOUT_PIXELS or not is_image


def _mr_kind(header: Header) -> str:
    elements = header.elements
    if header.sop_class not in _ENHANCED_MR and is_mosaic(elements):
        return Reason.MOSAIC
    return (
        coded_kind(elements, header.groups) or word_kind(elements) or hinted_kind(elements, header.groups) or ANATOMICAL
    )
