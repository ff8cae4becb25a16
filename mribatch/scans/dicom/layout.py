"""How the pixels of a DICOM object are laid out, checked against the caps before anything is decoded."""

from dataclasses import dataclass

from mribatch.scans.dicom.elements import Elements
from mribatch.scans.dicom.header import Header, PixelElement
from mribatch.scans.formats import RejectionError
from mribatch.scans.limits import ImageSpec, check_memory, check_size
from mribatch.schema import Reason

__all__ = ["GREY", "Layout", "declared_frames", "read_layout"]

_SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES = 0x00280002, 0x00280004, 0x00280006, 0x00280008
_ROWS, _COLUMNS, _ALLOCATED, _STORED, _SIGN = 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103
GREY = ("MONOCHROME1", "MONOCHROME2")
_CHANNELS = dict.fromkeys((*GREY, "PALETTE COLOR"), 1) | dict.fromkeys(
    ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3
)
_RETIRED = ("ARGB", "CMYK", "HSV", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "XYB")
_ALLOCATIONS = {"integer": (1, 8, 16, 32), "float": (32,), "double": (64,)}
_TABLE_BITS = 16  # values of so many bits are looked up; deeper ones are sorted
_LOOKED_UP_BYTES, _SORTED_BYTES = 12, 60  # that a value takes while it is windowed


@dataclass(frozen=True)
class Layout:
    """The claims of a header about its pixels."""

    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    is_planar: bool
    allocated: int  # bits of a value, with unused ones
    stored: int
    is_signed: bool
    kind: str  # "integer", "float" or "double"

    @property
    def is_grey(self) -> bool:
        return self.photometric in GREY

    @property
    def frame_values(self) -> int:
        return self.rows * self.columns * self.samples

    @property
    def frame_bits(self) -> int:
        """The bits of a frame that is not compressed."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples  # two pixels share their colour
        return self.rows * self.columns * samples * self.allocated


def read_layout(header: Header, pixels: PixelElement, spec: ImageSpec, max_frames: int) -> Layout:
    """Read how pixels are laid out. Raises RejectionError for what cannot be, is not read or exceeds a cap."""
    elements = header.elements
    photometric = _photometric(elements)
    allocated = _count(elements, _ALLOCATED, "Bits Allocated")
    layout = Layout(
        rows=_count(elements, _ROWS, "Rows"),
        columns=_count(elements, _COLUMNS, "Columns"),
        frames=declared_frames(elements, max_frames),
        samples=_count(elements, _SAMPLES, "Samples per Pixel", default=_CHANNELS[photometric]),
        photometric=photometric,
        is_planar=_number(elements, _PLANAR) == 1,
        allocated=allocated,
        stored=_count(elements, _STORED, "Bits Stored", default=allocated),
        is_signed=_number(elements, _SIGN) == 1,
        kind=pixels.kind,
    )
    _check(layout)
    check_size(layout.columns, layout.rows, spec)
    check_memory(len(header.data), layout.frame_bits // 8 + _working_bytes(layout), spec)
    return layout


def _check(layout: Layout) -> None:
    if layout.samples != _CHANNELS[layout.photometric]:
        raise _corrupt("the DICOM header claims a number of samples that its photometric interpretation has not")
    if layout.allocated not in _ALLOCATIONS[layout.kind] or layout.stored > layout.allocated:
        raise _corrupt(f"the DICOM header claims {layout.stored} bits of {layout.allocated}, which no reader knows")


def _working_bytes(layout: Layout) -> int:
    """Return what a frame takes while it becomes 8 bits."""
    is_sorted = layout.is_grey and (layout.allocated > _TABLE_BITS or layout.kind != "integer")
    return layout.frame_values * (_SORTED_BYTES if is_sorted else _LOOKED_UP_BYTES)


def _photometric(elements: Elements) -> str:
    photometric = elements.text(_PHOTOMETRIC).upper()
    if photometric in _RETIRED:
        raise RejectionError(Reason.UNSUPPORTED_FORMAT, "the DICOM file has colours of a kind not read here")
    if photometric not in _CHANNELS:
        raise _corrupt("the DICOM header does not say what its pixel values mean")
    return photometric


def declared_frames(elements: Elements, max_frames: int) -> int:
    """Return the number of frames. None, and 0, which sloppy software writes, count as one. Raises RejectionError."""
    text = elements.text(_FRAMES)
    if not text:
        return 1
    if not (text.isascii() and text.removeprefix("+").isdigit() and len(text) <= 12):
        raise _corrupt("the number of frames in the DICOM header is no number")
    frames = max(1, int(text))
    if frames > max_frames:
        raise RejectionError(Reason.TOO_LARGE, f"{frames} frames exceed the cap of {max_frames}")
    return frames


def _count(elements: Elements, tag: int, name: str, default: int = 0) -> int:
    value = _number(elements, tag)
    count = default if value is None else value
    if count < 1:
        raise _corrupt(f"the DICOM header has no usable {name}")
    return count


def _number(elements: Elements, tag: int) -> int | None:
    value = elements.number(tag, "US")
    return None if value is None else int(value)


def _corrupt(detail: str) -> RejectionError:
    return RejectionError(Reason.CORRUPT, detail)
