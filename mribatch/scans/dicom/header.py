"""The header of a DICOM file: its meta information, its data set up to the pixels, and where these are.

A file is known by its bytes: with a preamble and DICM, with meta information alone, or as a bare data set, by its first
element. The deflated transfer syntax is inflated up to a cap.
"""

import re
import zlib
from dataclasses import dataclass, replace

from mribatch.scans.dicom.elements import Elements, read_elements, read_item, read_more
from mribatch.scans.dicom.groups import PER_FRAME, SHARED, FrameGroups
from mribatch.scans.dicom.source import HEADER_READS, Source
from mribatch.scans.dicom.start import MAGIC, PREAMBLE, VRS, ByteOrder, first_order
from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["Header", "PixelElement", "read_header", "read_on"]

_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PIXEL_TAGS = {0x7FE00008: "float", 0x7FE00009: "double", 0x7FE00010: "integer"}
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # how an item begins, by byte order
_FRAME_READS = 500  # the groups of a frame take 100 to 800
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
    elements: Elements
    groups: FrameGroups
    pixels: PixelElement | None
    is_open: bool  # the functional groups of the frames and what follows, as pixels, are not read yet
    is_short: bool  # the file ends within an element of the header

    @property
    def has_size(self) -> bool:
        return _ROWS in self.elements and _COLUMNS in self.elements


def read_header(data: bytes) -> Header:
    """Read a header up to its pixels, or to the functional groups of its frames. Raises RejectionError.

    Of the frames' groups, which may take seconds to read, the first is read: most often it tells the kind.
    """
    meta, body = _meta(data, _start(data))
    syntax = _uid(meta, _TRANSFER_SYNTAX)
    if syntax == _DEFLATED:
        data, body = _inflated(data, body), 0
    source = Source(data)
    source.seek(body)
    stop = _Stop(source, (*_PIXEL_TAGS, PER_FRAME))
    elements = read_elements(source, _order(data, body, syntax), stop)
    return Header(
        data=data,
        syntax=syntax,
        sop_class=_uid(elements, _SOP_CLASS) or _uid(meta, _STORED_CLASS),
        modality=elements.text(_MODALITY).upper(),
        elements=elements,
        groups=FrameGroups(elements.item(SHARED), _first_group(stop, elements)),
        pixels=stop.pixels,
        is_open=stop.tag == PER_FRAME,
        is_short=stop.tag is None and (source.is_short or not len(elements)),
    )


def read_on(header: Header, frames: int) -> Header:
    """Read the functional groups of so many frames and what follows them. Raises RejectionError."""
    if not header.is_open:
        return header
    source = header.elements.source
    source.budget += HEADER_READS + frames * _FRAME_READS
    stop = _Stop(source, (*_PIXEL_TAGS,))
    elements = read_more(source, header.elements, stop)
    return replace(
        header,
        elements=elements,
        groups=FrameGroups(elements.item(SHARED), elements.items(PER_FRAME)),
        pixels=stop.pixels,
        is_open=False,
        is_short=stop.tag is None and source.is_short,
    )


class _Stop:
    """Stops the reading before some elements, and knows where it did."""

    def __init__(self, source: Source, tags: tuple[int, ...]) -> None:
        self._source, self._tags = source, frozenset(tags)
        self.tag: int | None = None
        self.pixels: PixelElement | None = None
        self.start = 0  # of the element's value

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        if tag not in self._tags:
            return False
        self.tag, self.start = int(tag), self._source.tell()
        if tag in _PIXEL_TAGS:
            is_encapsulated = length == _UNDEFINED
            length = 0 if is_encapsulated else length
            self.pixels = PixelElement(_PIXEL_TAGS[tag], vr or "OW", self.start, length, is_encapsulated)
        return True


def _first_group(stop: _Stop, elements: Elements) -> list[Elements]:
    """Return the functional groups of the first frame, and leave the source where it stands."""
    source = elements.source
    position = source.tell()
    if stop.tag != PER_FRAME or source.peek(stop.start, 4) not in _ITEMS:
        return []
    source.seek(stop.start)
    item = read_item(source, elements.order)
    source.seek(position)
    return [] if item is None else [item]


def _start(data: bytes) -> int:
    """Return where the meta information or the bare data set begins."""
    if data[PREAMBLE : PREAMBLE + 4] == MAGIC:
        return PREAMBLE + 4
    return 4 if data[:4] == MAGIC else 0


def _meta(data: bytes, start: int) -> tuple[Elements, int]:
    """Read the meta information, group 2, which is explicit little endian. Return it and where the data set begins."""
    source = Source(data)
    source.seek(start)
    is_implicit = data[start + 4 : start + 6] not in VRS
    meta = read_elements(source, ByteOrder(is_implicit, True), lambda tag, _vr, _length: tag >> 16 != 2)
    if not len(meta):
        return meta, start
    return meta, source.tell()


def _order(data: bytes, body: int, syntax: str) -> ByteOrder:
    if syntax == _BIG_ENDIAN:
        return ByteOrder(False, False)
    if syntax == _IMPLICIT:
        return ByteOrder(True, True)
    return (not syntax and first_order(data, body)) or ByteOrder(False, True)


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
