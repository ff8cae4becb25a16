"""How a file is written: byte orders, missing starts, codecs, cuts, bombs and syntaxes that nobody reads."""

import io
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

from tests.dicom_cases.case import CLEAN, Case, rejected, scored
from tests.unit.dicom_files import as_coded, clean, coded, compressed, picture, written

__all__ = ["ENCODINGS"]

_BOMB_MIB = 256
_PREAMBLE_BYTES, _LENGTH_BYTES = 132, 12  # with DICM; the element that holds the length of the meta information
_DELIMITER_BYTES = 8


def _body(data: bytes) -> int:
    """Return where the data set begins, behind the meta information."""
    return _PREAMBLE_BYTES + _LENGTH_BYTES + int.from_bytes(data[_PREAMBLE_BYTES + 8 : _PREAMBLE_BYTES + 12], "little")


def _bare(syntax: str) -> bytes:
    """A data set without preamble and meta information."""
    data = written(clean(), syntax)
    return data[_body(data) :]


def _cut_in_the_header() -> bytes:
    data = written(clean())
    return data[: data.index(MRImageStorage.encode(), _body(data)) + 9]


def _only_meta() -> bytes:
    data = written(clean())
    return data[: _body(data)]


def _twin(data: bytes) -> Case:
    return scored(clean(), data, twin=CLEAN)


def _half(syntax: str) -> bytes:
    """A whole file with half a frame in it."""
    frame = coded(as_coded(syntax), syntax)
    return compressed(syntax, [frame[: len(frame) // 2]])


def _baseline() -> Case:
    frame = coded(as_coded(JPEGBaseline8Bit), JPEGBaseline8Bit)
    header = clean(BitsAllocated=8, BitsStored=8, HighBit=7, WindowCenter=125, WindowWidth=250)
    return scored(
        header, compressed(JPEGBaseline8Bit, [frame]), stored=np.asarray(Image.open(io.BytesIO(frame))).astype(np.uint8)
    )


def _lying_frame() -> bytes:
    """Lossless JPEG whose frame header claims 65500 x 65500 pixels."""
    frame = bytearray(coded(picture(), JPEGLosslessSV1))
    size = frame.index(b"\xff\xc3") + 5
    frame[size : size + 4] = (65500).to_bytes(2, "big") * 2
    return compressed(JPEGLosslessSV1, [bytes(frame)])


def _bomb() -> bytes:
    """A deflated data set of a private element full of zeros: blocks that stand alone, so that one is enough."""
    head = written(clean(), DeflatedExplicitVRLittleEndian)
    head = head[: _body(head)]
    element = b"\x09\x00\x10\x10UN\0\0" + (_BOMB_MIB << 20).to_bytes(4, "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = packer.compress(element) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + start + block * _BOMB_MIB + packer.flush()


ENCODINGS: Mapping[str, Callable[[], Case]] = {
    "implicit.dcm": lambda: _twin(written(clean(), ImplicitVRLittleEndian)),
    "big_endian.dcm": lambda: _twin(written(clean(), ExplicitVRBigEndian)),
    "no_preamble_with_meta": lambda: _twin(written(clean())[_PREAMBLE_BYTES:]),
    "no_preamble_no_meta": lambda: _twin(_bare("1.2.840.10008.1.2.1")),
    "no_preamble_implicit": lambda: _twin(_bare(ImplicitVRLittleEndian)),
    "truncated_native.dcm": lambda: rejected("truncated", written(clean())[:-2000]),
    "truncated_header.dcm": lambda: rejected("truncated", _cut_in_the_header()),
    "only_meta.dcm": lambda: rejected("truncated", _only_meta()),
    "deflated.dcm": lambda: _twin(written(clean(), DeflatedExplicitVRLittleEndian)),
    "deflate_bomb_256MiB.dcm": lambda: rejected("too_large", _bomb()),
    "rle.dcm": lambda: _twin(compressed(RLELossless)),
    "rle_no_end_delimiter.dcm": lambda: rejected("truncated", compressed(RLELossless)[:-_DELIMITER_BYTES]),
    "rle_cut_in_frame.dcm": lambda: rejected("truncated", compressed(RLELossless)[:-2000]),
    "jpegls.dcm": lambda: _twin(compressed(JPEGLSLossless)),
    "jpegls_cut.dcm": lambda: rejected("truncated", _half(JPEGLSLossless)),
    "j2k.dcm": lambda: _twin(compressed(JPEG2000Lossless)),
    "j2k_cut.dcm": lambda: rejected("truncated", _half(JPEG2000Lossless)),
    "jpeg_baseline.dcm": _baseline,
    "jpeg_baseline_cut.dcm": lambda: rejected("truncated", _half(JPEGBaseline8Bit)),
    "jpeg_lossless.dcm": lambda: _twin(compressed(JPEGLosslessSV1)),
    "jpeg_lossless_cut.dcm": lambda: rejected("truncated", _half(JPEGLosslessSV1)),
    "jpeg_lossless_lies.dcm": lambda: rejected("corrupt", _lying_frame()),
    "mpeg4.dcm": lambda: rejected("unsupported_format", compressed(MPEG4HP41, [bytes(200)])),
    "unknown_syntax.dcm": lambda: rejected("unsupported_format", compressed("1.2.3.4.5.6.7", [bytes(200)])),
}
