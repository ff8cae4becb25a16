"""What compressed frames say about themselves, and whether they are whole. Nothing is decoded here.

Decoders fill cut frames with grey, or loop on them; so an end marker must follow the last start of scan.
"""

import re
from dataclasses import dataclass

from mribatch.scans.dicom.layout import Layout
from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["Codestream", "begins_jpeg", "begins_jpeg_2000", "jpeg_2000_codestream", "jpeg_codestream"]

_SOI, _EOI, _SOS, _DHT, _JPG, _DAC, _DNL = 0xD8, 0xD9, 0xDA, 0xC4, 0xC8, 0xCC, 0xDC
JPEG_LS = 0xF7
_FRAME_HEADERS = {*range(0xC0, 0xD0), JPEG_LS} - {_DHT, _JPG, _DAC}
_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd8-\xfe])")  # below C0 data is stuffed, D0 to D7 are restarts
_MOST_SEGMENTS = 1 << 16
_SOC_SIZ, _SOD, _EOC = b"\xff\x4f\xff\x51", b"\xff\x93", b"\xff\xd9"
_JP2 = b"\0\0\0\x0cjP  "
_SIZ_BYTES = 40  # from its length on, with one component
_TILE_BYTES = 14  # of an empty tile part, with its markers


@dataclass(frozen=True)
class Codestream:
    """The claims of a codestream."""

    kind: int  # marker of a JPEG's frame header; 0 for JPEG 2000
    width: int
    height: int
    components: int
    precision: int
    precision_at: int = 0  # where a JPEG's frame header says how many bits it has
    is_signed: bool = False
    is_subsampled: bool = False  # some components have fewer pixels (JPEG 2000)

    def check(self, layout: Layout) -> None:
        """Check the claims against the header's. Raises RejectionError."""
        if (self.width, self.height, self.components) != (layout.columns, layout.rows, layout.samples):
            raise _corrupt("a compressed frame has another size than the DICOM header claims")
        if not 1 <= self.precision <= layout.allocated:
            raise _corrupt("a compressed frame has more bits than the DICOM header claims")


def begins_jpeg(frame: bytes) -> bool:
    return frame.startswith(b"\xff\xd8\xff")


def begins_jpeg_2000(frame: bytes) -> bool:
    return frame.startswith((_SOC_SIZ, _JP2))


def jpeg_codestream(frame: bytes) -> Codestream:
    """Read the segments of a JPEG or JPEG-LS frame up to its end marker. Raises RejectionError."""
    if not begins_jpeg(frame):
        raise _corrupt("a compressed frame is no JPEG")
    stream, has_scan, position = None, False, 2
    for _ in range(_MOST_SEGMENTS):
        marker = _MARKER.search(frame, position)
        if marker is None:
            raise _truncated()
        code, position = marker[1][0], marker.end()
        if code == _SOI:
            continue
        if code == _EOI and has_scan:
            break
        length = int.from_bytes(frame[position : position + 2], "big")
        if code in _FRAME_HEADERS and stream is None:
            stream = _frame_header(code, frame[position : position + 8], position + 2)
        has_scan |= code == _SOS
        position += length
    if stream is None:
        raise _corrupt("a compressed frame has no frame header")
    return stream


def jpeg_2000_codestream(frame: bytes) -> Codestream:
    """Read the size of a JPEG 2000 frame and look for its end marker. Raises RejectionError."""
    start = frame.find(_SOC_SIZ)
    if start < 0:
        raise _corrupt("a compressed frame is no JPEG 2000")
    size = frame[start + 4 : start + 4 + _SIZ_BYTES]
    if len(size) < _SIZ_BYTES or frame.rfind(_EOC) <= frame.rfind(_SOD) or _SOD not in frame:
        raise _truncated()
    width, height, left, top, *tile = (int.from_bytes(size[at : at + 4], "big") for at in range(4, 36, 4))
    if not 0 < _TILE_BYTES * _tiles(width, height, *tile) <= len(frame):
        raise _corrupt("a compressed frame claims more tiles than it holds")
    components = int.from_bytes(size[36:38], "big")
    sampling = frame[start + 42 : start + 42 + 3 * components]
    return Codestream(
        kind=0,
        width=width - left,
        height=height - top,
        components=components,
        precision=(size[38] & 0x7F) + 1,
        is_signed=size[38] > 0x7F,
        is_subsampled=any(step != 1 for place, step in enumerate(sampling) if place % 3),
    )


def _tiles(right: int, bottom: int, width: int, height: int, left: int, top: int) -> int:
    """Return the number of tiles (T.800, equation B-5); 0 for tiles without a size."""
    return -((left - right) // width) * -((top - bottom) // height) if width and height else 0


def _frame_header(code: int, body: bytes, precision_at: int) -> Codestream:
    if len(body) < 8:
        raise _truncated()
    height, width = int.from_bytes(body[3:5], "big"), int.from_bytes(body[5:7], "big")
    return Codestream(
        kind=code, width=width, height=height, components=body[7], precision=body[2], precision_at=precision_at
    )


def _truncated() -> RejectionError:
    return RejectionError(Reason.TRUNCATED, "a compressed frame ends before its data does")


def _corrupt(detail: str) -> RejectionError:
    return RejectionError(Reason.CORRUPT, detail)
