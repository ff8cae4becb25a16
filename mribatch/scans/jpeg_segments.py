"""Split a JPEG into its segments (ITU-T T.81), and build a plain stream of those that matter to the pixels.

The plain stream omits what makes libjpeg warn although the pixels are intact: junk between segments, application data,
odd version numbers, padding after a scan, a missing end marker. So whatever libjpeg warns of in a plain stream is
damage.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["JpegScan", "JpegSegments", "plain_stream", "read_segments"]

EOI, SOS, DHT, DQT, DRI, DNL, DHP = 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xDC, 0xDE
APP0, APP1, APP2, APP14, TEM, JPG, DAC = 0xE0, 0xE1, 0xE2, 0xEE, 0x01, 0xC8, 0xCC
FRAMES = set(range(0xC0, 0xD0)) - {DHT, JPG, DAC}
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
HUFFMAN_FRAMES = {BASELINE, EXTENDED, PROGRESSIVE}  # the others are lossless, arithmetic or hierarchical
_SKIPPED = {*range(0xE0, 0xF0), 0xFE, DNL, DAC}  # application data, comments

_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)  # not a stuffed byte, a restart marker or a fill byte
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_JFIF = bytes.fromhex("ffe0 0010 4a46494600 0101 00 0001 0001 0000")
_ADOBE = bytes.fromhex("ffee 000e 41646f6265 0064 0000 0000")  # followed by one byte, the colour transform
_MOST_SEGMENTS = 1 << 16  # long metadata takes many of 64 KiB; more than these would take minutes to read
_MOST_SCANS = 256  # encoders write about ten; each takes as long as the whole picture
_BLOCK_SIDE = 8  # pixels
_MAY_BE_DATA = 2  # zero bytes at the end of a scan that are kept


@dataclass(frozen=True)
class JpegScan:
    """One scan: where its entropy-coded data is, what it codes, and the Huffman tables that it uses."""

    header: bytes
    start: int
    end: int
    components: tuple[int, ...]  # identifiers
    spectrum: tuple[int, int]  # the first and the last coefficient
    bit_high: int  # successive approximation: 0 in the first scan of a coefficient, otherwise the bit refined before
    bit_low: int
    ac_zero_symbols: tuple[int | None, ...]  # the symbol coded by zeros in the AC tables of the components
    preamble: int  # number of `JpegSegments.tables` before it

    def intervals(self, data: bytes) -> list[tuple[int, int]]:
        """Return start and end of the data between restart markers."""
        restarts = [match.span() for match in _RESTART.finditer(data, self.start, self.end)]
        starts = [self.start, *(end for _, end in restarts)]
        ends = [*(start for start, _ in restarts), self.end]
        return list(zip(starts, ends, strict=True))


@dataclass
class JpegSegments:
    """What the segments declare."""

    frame: int = 0  # marker of the frame header; 0 if there is none
    precision: int = 0
    width: int = 0
    height: int = 0
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  # horizontal and vertical, by identifier
    has_jfif: bool = False
    transform: int | None = None  # Adobe's colour transform
    exif: bytes = b""
    xmp: bytes = b""
    has_picture_index: bool = False  # as in a file with several pictures (MPO, CIPA DC-007)
    tables: list[bytes] = field(default_factory=list)  # the frame header and all tables, as segments
    scans: list[JpegScan] = field(default_factory=list)
    is_ended: bool = False  # whether there is an end marker

    @property
    def is_progressive(self) -> bool:
        return self.frame == PROGRESSIVE

    def is_complete(self) -> bool:
        """Return whether the scans code every bit of every coefficient of every component."""
        if not self.is_progressive:
            return {name for scan in self.scans for name in scan.components} >= self.sampling.keys()
        low_bits = {name: [1] * 64 for name in self.sampling}  # above 0: coded partly or not at all
        for scan in self.scans:
            first, last = scan.spectrum
            for name in low_bits.keys() & set(scan.components):
                low_bits[name][first : last + 1] = [scan.bit_low] * len(low_bits[name][first : last + 1])
        return not any(map(any, low_bits.values()))

    def is_too_short(self) -> bool:
        """Return whether the scans have fewer bits than half the picture's blocks, each of which takes one or more."""
        blocks = -(-self.width // _BLOCK_SIDE) * -(-self.height // _BLOCK_SIDE)
        return 8 * sum(scan.end - scan.start for scan in self.scans) < blocks // 2

    def without_padding(self, data: bytes) -> "JpegSegments":
        """Return a copy whose scans end where the zero bytes after their data begin."""
        ends = [scan.start + len(data[scan.start : scan.end].rstrip(b"\0")) for scan in self.scans]
        scans = [
            replace(scan, end=min(end + _MAY_BE_DATA, scan.end)) for scan, end in zip(self.scans, ends, strict=True)
        ]
        return replace(self, scans=scans)


def read_segments(data: bytes) -> JpegSegments:
    """Read the segments up to the end marker or the end of the file. Raises RejectionError."""
    jpeg, zero_symbols, position = JpegSegments(), dict[int, int](), 2
    for _ in range(_MOST_SEGMENTS):
        match = _MARKER.search(data, position)
        if match is None:
            return jpeg
        marker, position = match[1][0], match.end()
        if marker == EOI:
            jpeg.is_ended = True
            return jpeg
        if marker == TEM:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if position + max(length, 2) > len(data):
            return jpeg
        segment = data[position - 2 : position + length]
        position += length
        if marker == SOS:
            position = _add_scan(jpeg, segment, data, position, zero_symbols)
        else:
            _add_segment(jpeg, marker, segment, zero_symbols)
    raise _corrupt("the JPEG file has too many segments")


def plain_stream(
    jpeg: JpegSegments, data: bytes, scans: Sequence[JpegScan], without: tuple[int, int] | None = None
) -> bytes:
    """Return a stream of some scans. `without` is a range of bytes of the last one to leave out."""
    parts: list[bytes | memoryview] = [b"\xff\xd8", _JFIF if jpeg.has_jfif else b""]
    if jpeg.transform is not None:
        unknown = 2 if len(jpeg.sampling) == 4 else 1  # as libjpeg assumes
        parts.append(_ADOBE + bytes([jpeg.transform if jpeg.transform <= 2 else unknown]))
    view, written = memoryview(data), 0
    for scan in scans:
        parts += [*jpeg.tables[written : scan.preamble], scan.header]
        first, last = without if without and scan is scans[-1] else (scan.end, scan.end)
        parts += [view[scan.start : first], view[last : scan.end]]
        written = scan.preamble
    return b"".join([*parts, b"\xff\xd9"])


def _add_segment(jpeg: JpegSegments, marker: int, segment: bytes, zero_symbols: dict[int, int]) -> None:
    body = segment[4:]
    if marker in (DQT, DRI, DHT):
        jpeg.tables.append(segment)
        if marker == DHT:
            zero_symbols.update(_zero_symbols(body))
    elif marker in FRAMES:
        _add_frame(jpeg, marker, segment)
    elif marker == APP0 and body.startswith(b"JFIF\0"):
        jpeg.has_jfif = True
    elif marker == APP1 and body.startswith(b"Exif\0\0"):
        jpeg.exif += body if not jpeg.exif else body[6:]
    elif marker == APP1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        jpeg.xmp = body
    elif marker == APP2 and body.startswith(b"MPF\0"):
        jpeg.has_picture_index = True
    elif marker == APP14 and body.startswith(b"Adobe") and len(body) >= 12:
        jpeg.transform = body[11]
    elif marker == DHP:
        raise RejectionError(Reason.UNSUPPORTED_FORMAT, "hierarchical JPEG files are not supported")
    elif marker not in _SKIPPED:
        raise _corrupt("the JPEG file has an unexpected segment")


def _add_frame(jpeg: JpegSegments, marker: int, segment: bytes) -> None:
    body = segment[4:]
    if jpeg.frame or len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise _corrupt("the JPEG file has a damaged frame header")
    jpeg.frame, jpeg.precision = marker, body[0]
    jpeg.height, jpeg.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    parts = [body[at : at + 3] for at in range(6, 6 + 3 * body[5], 3)]
    jpeg.sampling = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
    jpeg.tables.append(segment)
    if len(jpeg.sampling) != body[5]:
        raise _corrupt("the JPEG file names a component twice")


def _add_scan(jpeg: JpegSegments, segment: bytes, data: bytes, start: int, zero_symbols: dict[int, int]) -> int:
    """Add the scan whose data begins at `start`, and return where the data ends."""
    body = segment[4:]
    if not body or len(body) < 4 + 2 * body[0] or len(jpeg.scans) == _MOST_SCANS:
        raise _corrupt("the JPEG file has a damaged scan header")
    names, selectors = body[1 : 1 + 2 * body[0] : 2], body[2 : 2 + 2 * body[0] : 2]
    first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
    if not jpeg.is_progressive:  # some writers store other values, which have no meaning
        first, last, bits = 0, 63, 0
    following = _MARKER.search(data, start)
    end = len(data) if following is None else following.start()
    jpeg.scans.append(
        JpegScan(
            header=segment[: 5 + 2 * body[0]] + bytes([first, last, bits]),
            start=start,
            end=end,
            components=tuple(names),
            spectrum=(first, last),
            bit_high=bits >> 4,
            bit_low=bits & 15,
            ac_zero_symbols=tuple(zero_symbols.get(0x10 | which & 15) for which in selectors),
            preamble=len(jpeg.tables),
        )
    )
    return end


def _zero_symbols(body: bytes) -> dict[int, int]:
    """Return the symbol coded by zeros, which is the first of its table, by the table's class and number."""
    symbols, start = {}, 0
    while start + 17 < len(body):
        symbols[body[start]] = body[start + 17]
        start += 17 + sum(body[start + 1 : start + 17])
    return symbols


def _corrupt(detail: str) -> RejectionError:
    return RejectionError(Reason.CORRUPT, detail)
