"""The header of a DICOM file: its meta information, its data set up to the pixels, and where these are.

A file is known by its bytes: with a preamble and DICM, with meta information alone, or as a bare data set, by its first
element. The deflated transfer syntax is inflated up to a cap.
"""

import re
import zlib
from dataclasses import dataclass

from mribatch.scans.dicom_elements import ByteOrder, Elements, Source, read_elements
from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["Header", "PixelElement", "is_dicom", "read_header"]

_PREAMBLE = 128
_MAGIC = b"DICM"
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # with four bytes of length after two of none
_VRS = _LONG_VRS | frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_FIRST_GROUPS = (0x0002, 0x0004, 0x0008)
_MOST_FIRST_BYTES = 1024  # the first element of a data set is short: a group length, a character set, a type
_FLOAT_PIXELS, _DOUBLE_PIXELS, _PIXELS = 0x7FE00008, 0x7FE00009, 0x7FE00010
_TRANSFER_SYNTAX, _STORED_CLASS = 0x00020010, 0x00020002
_SOP_CLASS, _MODALITY = 0x00080016, 0x00080060
_ROWS, _COLUMNS = 0x00280010, 0x00280011
_UNDEFINED = 0xFFFFFFFF
_MOST_INFLATED = 256 << 20
_LEAST_INFLATED = 8 << 20  # so much is inflated whatever the ratio
_MOST_RATIO = 64  # scans deflate to a third, mostly black ones to a fiftieth; a bomb to a thousandth
_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)


@dataclass(frozen=True)
class PixelElement:
    """Where the pixels are."""

    kind: str  # "integer", "float" or "double"
    vr: str
    start: int  # in `Header.data`
    length: int  # as the element claims it; 0 where they are encapsulated
    is_encapsulated: bool


@dataclass(frozen=True)
class Header:
    """All that is known before a pixel is looked at."""

    data: bytes  # of the file, or what they inflate to
    syntax: str  # UID of the transfer syntax; empty where the file does not name one
    sop_class: str
    modality: str
    order: ByteOrder
    elements: Elements
    pixels: PixelElement | None
    is_short: bool  # the file ends within an element of the header

    @property
    def has_size(self) -> bool:
        return _ROWS in self.elements and _COLUMNS in self.elements


def is_dicom(data: bytes) -> bool:
    """Return whether bytes are a DICOM file, by their magic or by their first element."""
    return data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC or data[:4] == _MAGIC or _first_order(data) is not None


def read_header(data: bytes) -> Header:
    """Read a header. Raises RejectionError."""
    start = _start(data)
    meta, body = _meta(data, start)
    syntax = _uid(meta, _TRANSFER_SYNTAX)
    if syntax == _DEFLATED:
        data, body = _inflated(data, body), 0
    order = _order(data, body, syntax)
    source = Source(data)
    source.seek(body)
    pixels: list[PixelElement] = []

    def stop(tag: int, vr: str | None, length: int) -> bool:
        if tag not in (_FLOAT_PIXELS, _DOUBLE_PIXELS, _PIXELS):
            return False
        pixels.append(_pixel_element(tag, vr or "OW", length, source.tell()))
        return True

    elements = read_elements(source, order, stop)
    implicit, little = elements.dataset.original_encoding
    return Header(
        data=data,
        syntax=syntax,
        sop_class=_uid(elements, _SOP_CLASS) or _uid(meta, _STORED_CLASS),
        modality=elements.text(_MODALITY).upper(),
        order=ByteOrder(bool(implicit), bool(little)),
        elements=elements,
        pixels=pixels[-1] if pixels else None,
        is_short=not pixels and (source.is_short or not len(elements)),
    )


def _start(data: bytes) -> int:
    """Return where the meta information or the bare data set begins."""
    if data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC:
        return _PREAMBLE + 4
    return 4 if data[:4] == _MAGIC else 0


def _meta(data: bytes, start: int) -> tuple[Elements, int]:
    """Read the meta information, group 2, which is explicit little endian. Return it and where the data set begins."""
    source = Source(data)
    source.seek(start)
    is_implicit = data[start + 4 : start + 6] not in _VRS
    meta = read_elements(source, ByteOrder(is_implicit, True), lambda tag, _vr, _length: tag >> 16 != 2)
    if not len(meta):
        return meta, start
    return meta, source.tell()


def _order(data: bytes, body: int, syntax: str) -> ByteOrder:
    if syntax == _BIG_ENDIAN:
        return ByteOrder(False, False)
    if syntax == _IMPLICIT:
        return ByteOrder(True, True)
    if not syntax and (order := _first_order(data[body : body + 16], has_more=True)):
        return order
    return ByteOrder(False, True)


def _first_order(data: bytes, *, has_more: bool = False) -> ByteOrder | None:
    """Return the encoding of a bare data set by its first element; None where the bytes are no data set."""
    for is_little in (True, False):
        order = "little" if is_little else "big"
        group, element = int.from_bytes(data[:2], order), int.from_bytes(data[2:4], order)  # type: ignore[arg-type]
        if group not in _FIRST_GROUPS or len(data) < 8 or element > 0x1FFF:
            continue
        if data[4:6] in _VRS and (data[6:8] == b"\0\0" if data[4:6] in _LONG_VRS else True):
            return ByteOrder(False, is_little)
        length = int.from_bytes(data[4:8], "little")
        if is_little and length <= _MOST_FIRST_BYTES and length % 2 == 0 and (has_more or 8 + length <= len(data)):
            return ByteOrder(True, True)
    return None


def _pixel_element(tag: int, vr: str, length: int, start: int) -> PixelElement:
    kind = {_FLOAT_PIXELS: "float", _DOUBLE_PIXELS: "double"}.get(tag, "integer")
    is_encapsulated = length == _UNDEFINED
    return PixelElement(kind, vr, start, 0 if is_encapsulated else length, is_encapsulated)


def _uid(elements: Elements, tag: int) -> str:
    text = elements.text(tag)
    return text if _UID.fullmatch(text) else ""


def _inflated(data: bytes, start: int) -> bytes:
    """Inflate a deflated data set. Raises RejectionError."""
    cap = min(_MOST_INFLATED, max(_LEAST_INFLATED, _MOST_RATIO * (len(data) - start)))
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(memoryview(data)[start:], cap)
    except zlib.error:
        raise RejectionError(Reason.CORRUPT, "the deflated DICOM data set is damaged") from None
    if stream.eof:
        return inflated
    if len(inflated) >= cap:
        raise RejectionError(Reason.TOO_LARGE, f"the deflated DICOM data set exceeds the cap of {cap >> 20} MiB")
    raise RejectionError(Reason.TRUNCATED, "the deflated DICOM data set ends before its data does")
