"""The frames of a DICOM object, one at a time: compressed or as they lie in the file."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mribatch.scans.dicom.codecs import codec_of
from mribatch.scans.dicom.fragments import read_fragments
from mribatch.scans.dicom.header import Header, PixelElement
from mribatch.scans.dicom.layout import Layout
from mribatch.scans.dicom.samples import Samples, raw_samples
from mribatch.scans.formats import RejectionError
from mribatch.scans.limits import ImageSpec, check_ratio
from mribatch.schema import Reason

__all__ = ["frame_reader"]

_NATIVE = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")

_FREE_FRAME_BYTES = 32_000_000  # the largest radiographs; up to here a frame may be black all over

FrameReader = Callable[[int], Samples]


def frame_reader(header: Header, pixels: PixelElement, layout: Layout, spec: ImageSpec) -> FrameReader:
    """Check that all frames are there, and return what decodes one of them. Both raise RejectionError.

    A few bytes that claim a large picture are refused: JPEG 2000 decoders fill in what is missing, at full cost.
    """
    if header.syntax in _NATIVE:
        if pixels.is_encapsulated:
            raise RejectionError(Reason.CORRUPT, "the DICOM file holds compressed pixels and does not say which")
        return _native_reader(header, pixels, layout)
    codec = codec_of(header.syntax)
    if not pixels.is_encapsulated:
        raise RejectionError(Reason.CORRUPT, "the DICOM file claims compressed pixels and holds none")
    fragments = read_fragments(header.data, pixels.start, header.elements, layout.frames, codec.begins)
    for index in range(layout.frames):
        frame = fragments.frame(index)
        codec.check(frame, layout)
        check_ratio(layout.frame_bits // 8, len(frame.rstrip(b"\0")), spec, _FREE_FRAME_BYTES)
    return lambda index: codec.decode(fragments.frame(index), layout)


def _native_reader(header: Header, pixels: PixelElement, layout: Layout) -> FrameReader:
    available = min(pixels.length, len(header.data) - pixels.start)
    if layout.photometric == "YBR_FULL_422":
        if available * 8 >= layout.frames * layout.frame_values * layout.allocated:  # they do not share it after all
            layout = replace(layout, photometric="YBR_FULL")
        elif layout.columns % 2:
            raise RejectionError(Reason.CORRUPT, "pixels that share their colour in pairs are odd in number")
    if available * 8 < layout.frames * layout.frame_bits:
        raise RejectionError(Reason.TRUNCATED, "the DICOM file ends before its pixels do")
    view = memoryview(header.data)[pixels.start : pixels.start + available]
    is_little = header.elements.is_little_endian
    is_swapped = not is_little and layout.allocated == 8 and pixels.vr == "OW"

    def read(index: int) -> Samples:
        first, skipped = divmod(index * layout.frame_bits, 8)
        raw = view[first : (index + 1) * layout.frame_bits // 8 + 1]
        if skipped:
            bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[skipped:]
            raw = memoryview(np.packbits(bits, bitorder="little").tobytes())
        if is_swapped:
            raw = memoryview(np.frombuffer(raw[: len(raw) // 2 * 2], np.uint16).byteswap().tobytes())
        size = len(raw) if layout.allocated == 1 else layout.frame_bits // 8
        return raw_samples(raw[:size], layout, is_little_endian=is_little)

    return read
