"""Compressed DICOM frames to samples: JPEG, lossless JPEG, JPEG-LS, JPEG 2000, RLE and deflated frames.

Each frame is checked before a codec sees it: that it is whole, and that its own size is the header's.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mribatch.scans.dicom.codestreams import (
    JPEG_LS,
    Codestream,
    begins_jpeg,
    begins_jpeg_2000,
    jpeg_2000_codestream,
    jpeg_codestream,
)
from mribatch.scans.dicom.layout import Layout
from mribatch.scans.dicom.samples import Samples, raw_samples
from mribatch.scans.formats import RejectionError
from mribatch.scans.jpeg import sound_pixels
from mribatch.scans.jpeg_segments import HUFFMAN_FRAMES, read_segments
from mribatch.scans.pillow import HOSTILE, hush
from mribatch.scans.strict_jpeg import misses_data
from mribatch.schema import Reason

__all__ = ["Codec", "codec_of"]

_LOSSLESS = 0xC3
_JPEG = "1.2.840.10008.1.2.4."
_NOT_READ = "the transfer syntax of the DICOM file is not read here"
_IN_RGB = bytes.fromhex("ffee000e 41646f6265 0064 0000 0000 00")  # Adobe's segment: colour as it is, no transform
_RLE_HEADER = 64
_RLE_RATIO = 64  # two bytes stand for at most 128
_RLE_SLACK = 256  # bytes that some writers add behind a plane


@dataclass(frozen=True)
class Codec:
    """How the frames of a transfer syntax begin, are checked and are decoded."""

    begins: Callable[[bytes], bool]
    check: Callable[[bytes, Layout], None]
    decode: Callable[[bytes, Layout], Samples]


def codec_of(syntax: str) -> Codec:
    """Return the codec of a transfer syntax. Raises RejectionError for those that are not read."""
    codec = _CODECS.get(syntax)
    if codec is None:
        raise RejectionError(Reason.UNSUPPORTED_FORMAT, _NOT_READ)
    return codec


def _check_jpeg(frame: bytes, layout: Layout) -> None:
    stream = jpeg_codestream(frame)
    if stream.kind not in {*HUFFMAN_FRAMES, _LOSSLESS, JPEG_LS}:
        raise RejectionError(Reason.UNSUPPORTED_FORMAT, "arithmetic or hierarchical JPEG frames are not read here")
    stream.check(layout)


def _decode_jpeg(frame: bytes, layout: Layout) -> Samples:
    stream = jpeg_codestream(frame)
    if stream.kind in HUFFMAN_FRAMES and stream.precision == 8:
        return _decode_jpeg_8(frame, layout)
    if stream.kind != JPEG_LS and misses_data(
        _shallow(frame, stream), stream.components, is_lossless=stream.kind == _LOSSLESS
    ):
        raise _damaged()
    decode = {_LOSSLESS: imagecodecs.jpegsof3_decode, JPEG_LS: imagecodecs.jpegls_decode}.get(
        stream.kind, imagecodecs.jpeg8_decode
    )
    return Samples(_shaped(_attempt(lambda: decode(frame)), layout))


def _shallow(frame: bytes, stream: Codestream) -> bytes:
    """Return a frame of more bits as one of 8, in RGB: it has other pixels and the same codes, so it misses the same data.

    The decoders of deep frames fill missing data with grey, without a word.
    """
    at = stream.precision_at
    return frame[:2] + _IN_RGB + frame[2:at] + b"\x08" + frame[at + 1 :]


def _decode_jpeg_8(frame: bytes, layout: Layout) -> Samples:
    """Decode with every warning of libjpeg an error. Colour becomes RGB by the frame's markers, else by the header."""
    jpeg = read_segments(frame)
    if layout.samples == 3 and not jpeg.has_jfif and jpeg.transform is None:
        jpeg = replace(jpeg, transform=0 if layout.photometric == "RGB" else 1)
    pixels = sound_pixels(jpeg, frame)
    return Samples(_shaped(pixels, layout), is_rgb=layout.samples == 3)


def _check_jpeg_2000(frame: bytes, layout: Layout) -> None:
    jpeg_2000_codestream(frame).check(layout)


def _decode_jpeg_2000(frame: bytes, layout: Layout) -> Samples:
    """Decode JPEG 2000, high throughput or not. OpenJPH, which knows the former only, ignores its own errors."""
    stream = jpeg_2000_codestream(frame)
    if stream.precision > 16:
        raise RejectionError(Reason.UNSUPPORTED_FORMAT, "JPEG 2000 frames of more than 16 bits are not read here")
    is_rgb = not layout.photometric.startswith("YBR_FULL")
    try:
        pixels = _shaped(_through_pillow(frame, layout), layout)
    except HOSTILE:
        if stream.is_subsampled:
            raise _damaged() from None
        tiled = _attempt(lambda: imagecodecs.jpeg2k_decode(frame))  # of tiles that Pillow does not expect
        return Samples(_shaped(tiled, layout), is_rgb=is_rgb)
    if layout.samples == 3:
        return Samples(pixels, bits=8, is_rgb=is_rgb)
    return Samples(_unscaled(pixels, stream))


def _through_pillow(frame: bytes, layout: Layout) -> NDArray[np.generic]:
    hush()
    with Image.open(io.BytesIO(frame), formats=["JPEG2000"]) as image:
        if image.size != (layout.columns, layout.rows):
            raise _damaged()
        image.load()
        return np.asarray(image)


def _unscaled(pixels: NDArray[np.generic], stream: Codestream) -> NDArray[np.generic]:
    """Undo what Pillow does to grey: it scales the values to 8 or 16 bits and shifts signed ones above 0."""
    container = 8 * pixels.dtype.itemsize
    values = pixels.astype(np.int32) >> (container - stream.precision)
    return values - (1 << (stream.precision - 1)) if stream.is_signed else values


def _decode_rle(frame: bytes, layout: Layout) -> Samples:
    """Decode byte planes, the high bytes of the first sample first (PS3.5, annex G)."""
    planes, values = layout.samples * layout.allocated // 8, layout.rows * layout.columns
    if len(frame) < _RLE_HEADER:
        raise _truncated()
    count, *offsets = np.frombuffer(frame[:_RLE_HEADER], "<u4").tolist()
    if count != planes or layout.allocated % 8 or offsets[0] != _RLE_HEADER:
        raise _damaged()
    ends = [*offsets[1:planes], len(frame)]
    pixels = np.empty((values, layout.samples, layout.allocated // 8), np.uint8)
    for number, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        sample, byte = divmod(number, pixels.shape[2])
        pixels[:, sample, pixels.shape[2] - 1 - byte] = _rle_plane(frame[start:end], values)
    interleaved = replace(layout, is_planar=False, photometric=layout.photometric.removesuffix("_422"))
    return raw_samples(pixels.tobytes(), interleaved, is_little_endian=True)


def _rle_plane(segment: bytes, values: int) -> NDArray[np.uint8]:
    if values > _RLE_RATIO * len(segment):
        raise _truncated()
    try:
        plane = imagecodecs.packbits_decode(segment, out=bytearray(values + _RLE_SLACK))
    except MemoryError:
        raise
    except Exception:  # imagecodecs raises all kinds
        raise _truncated() from None
    if len(plane) < values:
        raise _truncated()
    return np.frombuffer(plane, np.uint8, values)


def _check_rle(frame: bytes, layout: Layout) -> None:
    _decode_rle(frame, layout)  # the only way to see that no byte is missing; it is quick


def _decode_deflated(frame: bytes, layout: Layout) -> Samples:
    size = (layout.frame_bits + 7) // 8
    try:
        raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(frame, size)
    except zlib.error:
        raise _damaged() from None
    if len(raw) < size:
        raise _truncated()
    return raw_samples(raw, layout, is_little_endian=True)


def _decode_native(frame: bytes, layout: Layout) -> Samples:
    if 8 * len(frame) < layout.frame_bits:
        raise _truncated()
    return raw_samples(frame, layout, is_little_endian=True)


def _check_deflated(frame: bytes, layout: Layout) -> None:
    _decode_deflated(frame, layout)


def _check_native(frame: bytes, layout: Layout) -> None:
    if 8 * len(frame) < layout.frame_bits:
        raise _truncated()


def _attempt(decode: Callable[[], NDArray[np.generic]]) -> NDArray[np.generic]:
    try:
        return decode()
    except MemoryError:
        raise
    except Exception:  # imagecodecs raises all kinds
        raise _damaged() from None


def _shaped(pixels: NDArray[np.generic], layout: Layout) -> NDArray[np.generic]:
    """Return pixels as (rows, columns) or (rows, columns, samples)."""
    shape = (layout.rows, layout.columns) if layout.samples == 1 else (layout.rows, layout.columns, layout.samples)
    if pixels.shape != shape and pixels.shape != (*shape, 1):
        raise _damaged()
    if pixels.dtype.kind not in "iu":
        raise _damaged()
    return pixels.reshape(shape)


def _always(_: bytes) -> bool:
    return True


def _damaged() -> RejectionError:
    return RejectionError(Reason.CORRUPT, "a compressed frame is damaged")


def _truncated() -> RejectionError:
    return RejectionError(Reason.TRUNCATED, "a compressed frame ends before its data does")


_JPEG_CODEC = Codec(begins_jpeg, _check_jpeg, _decode_jpeg)
_JPEG_2000_CODEC = Codec(begins_jpeg_2000, _check_jpeg_2000, _decode_jpeg_2000)
_CODECS = {
    "1.2.840.10008.1.2.5": Codec(_always, _check_rle, _decode_rle),
    "1.2.840.10008.1.2.8.1": Codec(_always, _check_deflated, _decode_deflated),
    "1.2.840.10008.1.2.1.98": Codec(_always, _check_native, _decode_native),
    **{_JPEG + str(number): _JPEG_CODEC for number in (*range(50, 67), 70, 80, 81)},
    **{_JPEG + str(number): _JPEG_2000_CODEC for number in (90, 91, 201, 202, 203)},
}
