"""Decoding takes the memory that the header claims, and no more than is reserved for it."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from mribatch.cluster.streaming import DECODER_BYTES
from mribatch.scans.limits import MAX_MEMORY_BYTES, ImageSpec
from mribatch.scans.sandbox import Decoder
from mribatch.schema import Reason, Status
from tests.frames import only
from tests.unit.dicom_files import COMPRESSED, as_coded, coded, compressed

SIDE = 2400  # several strips of each kind
LYING_PX = 10_000  # the side that small files claim


def noise(dtype: str, side: int, channels: int = 1) -> NDArray[Any]:
    """Return values that no codec can compress."""
    raw = np.random.default_rng(0).bytes(side * side * channels * np.dtype(dtype).itemsize)
    values = np.frombuffer(raw, dtype.replace("f", "i")).reshape((side, side, channels)[: 3 if channels > 1 else 2])
    return values.astype(dtype) if "f" in dtype else values


def tiff(dtype: str, channels: int = 1, **options: Any) -> Callable[[int], bytes]:
    def file(side: int) -> bytes:
        data, array = io.BytesIO(), noise(dtype, side, channels)
        array = np.moveaxis(array, 2, 0) if options.get("planarconfig") == "separate" else array
        tifffile.imwrite(data, array, photometric="rgb" if channels > 1 else "minisblack", metadata=None, **options)
        return data.getvalue()

    return file


def png(bits: int, colour_type: int, channels: int, interlaced: bool = False) -> Callable[[int], bytes]:
    def file(side: int) -> bytes:
        row = side * channels * bits // 8
        draw, packer = np.random.default_rng(0), zlib.compressobj(0)
        header = struct.pack(">IIBBBBB", side, side, bits, colour_type, 0, 0, interlaced)
        parts = [chunk(b"IHDR", header), chunk(b"tEXt", b"a\0b")]
        parts += [
            chunk(b"IDAT", packer.compress(bytes(row + 1) if interlaced else b"\0" + draw.bytes(row)))
            for _ in range(side)
        ]
        rest = bytes(8 * side) if interlaced else b""  # more and shorter rows, each with a filter byte
        return b"".join(
            [b"\x89PNG\r\n\x1a\n", *parts, chunk(b"IDAT", packer.compress(rest) + packer.flush()), chunk(b"IEND", b"")]
        )

    return file


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def pillow(kind: str, mode: str, **options: Any) -> Callable[[int], bytes]:
    def file(side: int) -> bytes:
        data, shades = io.BytesIO(), noise("u1", side, 3) >> 4
        Image.fromarray(shades).convert(mode).save(data, kind, **options)
        return data.getvalue()

    return file


LARGEST: dict[str, Callable[[int], bytes]] = {
    "TIFF, 16 bits": tiff("u2"),
    "TIFF, 16 bits, deflated in one strip": tiff(
        "u2", compression="zlib", rowsperstrip=10**5, compressionargs={"level": 1}
    ),
    "TIFF, 16 bits, LZW tiles": tiff("u2", compression="lzw", predictor=True, tile=(256, 256)),
    "TIFF, float": tiff("f4"),
    "TIFF, double": tiff("f8"),
    "TIFF, double, big-endian, deflated": tiff("f8", compression="zlib", byteorder=">", compressionargs={"level": 1}),
    "TIFF, 16-bit colour": tiff("u2", 3),
    "TIFF, 16-bit colour in planes": tiff("u2", 3, planarconfig="separate"),
    "TIFF, 8-bit colour, lying": tiff("u1", 3, extratags=[(274, 3, 1, 6, True)]),
    "TIFF, JPEG in one strip": tiff("u1", 3, compression="jpeg", rowsperstrip=10**5, compressionargs={"level": 50}),
    "PNG, 8-bit colour": png(8, 2, 3),
    "PNG, 16-bit grey": png(16, 0, 1),
    "PNG, 16-bit grey with alpha": png(16, 4, 2),
    "PNG, 16-bit colour": png(16, 2, 3),
    "PNG, 8-bit colour, interlaced": png(8, 2, 3, interlaced=True),
    "BMP": pillow("BMP", "RGB"),
    "JPEG": pillow("JPEG", "RGB", quality=90, subsampling=0),
    "JPEG, progressive": pillow("JPEG", "RGB", quality=90, subsampling=0, progressive=True),
    "JPEG, CMYK, progressive": pillow("JPEG", "CMYK", quality=75, progressive=True),
}


@pytest.fixture(scope="module")
def at_rest() -> int:
    """Return the memory of a decoder that has decoded small scans of each kind."""
    decoder = Decoder(ImageSpec(side_px=224))
    for file in LARGEST.values():
        assert only(decoder.decode(file(16))).status is Status.OK
    return decoder.peak_bytes()


@pytest.mark.parametrize("kind", LARGEST)
def test_what_a_scan_takes_is_known_from_its_header(kind: str, at_rest: int) -> None:
    data = LARGEST[kind](SIDE)
    decoder = Decoder(ImageSpec(side_px=224))
    assert only(decoder.decode(data)).status is Status.OK
    taken = decoder.peak_bytes() - at_rest + len(data)  # and the copy of the process that read it
    refused = only(Decoder(ImageSpec(side_px=224, max_memory_bytes=taken - 1)).decode(data))
    assert refused.reason is Reason.TOO_LARGE, "more was taken than the header claimed"


@pytest.mark.parametrize("kind", [kind for kind in LARGEST if kind.startswith("JPEG")])
def test_a_small_jpeg_that_claims_to_be_large_asks_for_no_memory(kind: str, at_rest: int) -> None:
    decoder = Decoder(ImageSpec(side_px=224))
    assert only(decoder.decode(lying(LARGEST[kind](16)))).reason is Reason.CORRUPT
    assert decoder.peak_bytes() < at_rest + (50 << 20)


def lying(stream: bytes) -> bytes:
    """Return a JPEG, JPEG-LS or JPEG 2000 stream that claims to be LYING_PX wide and high; others as they are."""
    sizes = ((rb"\xff[\xc0-\xc3\xf7]\0[\x0b\x11\x14]", 5, ">HH"), (rb"\xff\x4f\xff\x51", 8, ">II"))
    sizes += ((rb"\xff\x4f\xff\x51", 24, ">II"),)  # in one tile
    data = bytearray(stream)
    for marker, offset, form in sizes:
        if size := re.search(marker, stream):
            struct.pack_into(form, data, size.start() + offset, LYING_PX, LYING_PX)
    return bytes(data)


def test_small_dicom_frames_that_claim_to_be_large_ask_for_little_memory() -> None:
    decoder = Decoder(ImageSpec(side_px=224))
    for syntax in COMPRESSED:
        frame = lying(coded(as_coded(syntax), syntax))
        file = compressed(syntax, [frame], Rows=LYING_PX, Columns=LYING_PX)
        assert only(decoder.decode(file)).reason in (Reason.TOO_LARGE, Reason.TRUNCATED, Reason.CORRUPT), syntax.name
    assert decoder.peak_bytes() < 256 << 20


def test_what_is_reserved_is_what_the_cap_allows() -> None:
    """A Ray worker that has read its first scans takes 294 MB with its decoder (measured)."""
    assert MAX_MEMORY_BYTES + 294_000_000 <= DECODER_BYTES
