"""PNG and BMP: nothing beside the pixels rejects a file; any fault in the pixels does."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from mribatch.scans.limits import ImageSpec
from mribatch.schema import Reason, Status
from tests.frames import decode
from tests.unit.test_images import GREY, RGB, UPRIGHT, encoded, exif, ok, png, rejected

ANCILLARY = tuple(
    b"tEXt zTXt iTXt iCCP gAMA cHRM sRGB sBIT bKGD hIST pHYs sPLT tIME eXIf cICP acTL fcTL fdAT vpAg teSt".split()
)
PLAIN = encoded(RGB, "PNG")
MEGABYTES = 3_000_000


def chunk(name: bytes, body: bytes, *, right: bool = True) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ (not right))


def with_chunk(data: bytes, added: bytes, before: bytes = b"IDAT") -> bytes:
    at = data.index(before) - 4
    return data[:at] + added + data[at:]


def digest(data: bytes) -> str | None:
    decoded = decode(data, ImageSpec(side_px=32))
    assert (decoded.status, decoded.detail) == (Status.OK, None)
    return decoded.pixels_sha256


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("name", ANCILLARY)
def test_wrong_checksum_of_an_ancillary_chunk_does_not_matter(name: bytes, before: bytes) -> None:
    for body in (b"", b"Title\0text", bytes(26), bytes(100)):
        assert digest(with_chunk(PLAIN, chunk(name, body, right=False), before)) == digest(PLAIN)


@pytest.mark.parametrize("name", [name for name in ANCILLARY if name not in (b"acTL", b"fcTL")])
def test_senseless_ancillary_chunk_does_not_matter(name: bytes) -> None:
    for body in (b"", b"x\0\0junk", b"\xff" * 40):
        assert digest(with_chunk(PLAIN, chunk(name, body))) == digest(PLAIN)


@pytest.mark.parametrize(
    "added",
    [
        chunk(b"tEXt", b"Comment\0" + b"a" * MEGABYTES),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(MEGABYTES))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"a" * MEGABYTES),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(MEGABYTES))),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(MEGABYTES))),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(np.random.default_rng(0).bytes(MEGABYTES))),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(MEGABYTES))),
        chunk(b"iCCP", b"profile\0\0broken"),
        chunk(b"tEXt", b"a\0b") * 5000,
    ],
)
def test_metadata_of_any_size_does_not_matter(added: bytes) -> None:
    assert digest(with_chunk(PLAIN, added)) == digest(PLAIN)
    assert digest(with_chunk(PLAIN, added, b"IEND")) == digest(PLAIN)


def test_transparency_with_a_wrong_checksum_is_left_out_as_libpng_does() -> None:
    assert digest(with_chunk(PLAIN, chunk(b"tRNS", bytes(6), right=False))) == digest(PLAIN)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"IDAT"])
def test_wrong_checksum_of_a_chunk_of_the_picture_becomes_corrupt(name: bytes) -> None:
    data = bytearray(encoded(Image.fromarray(RGB).convert("P"), "PNG"))
    at = data.index(name)
    length = int.from_bytes(data[at - 4 : at], "big")
    data[at + 4 + length] ^= 1
    assert rejected(bytes(data)).reason is Reason.CORRUPT


def test_parts_of_the_pixels_are_read_as_one() -> None:
    at = PLAIN.index(b"IDAT")
    body = PLAIN[at + 4 : at + 4 + int.from_bytes(PLAIN[at - 4 : at], "big")]
    parts = b"".join(chunk(b"IDAT", body[start : start + 7]) + chunk(b"IDAT", b"") for start in range(0, len(body), 7))
    assert digest(PLAIN[: at - 4] + parts + chunk(b"IEND", b"")) == digest(PLAIN)


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("turn", UPRIGHT)
def test_orientation_is_read_wherever_writers_keep_it(turn: int, before: bytes) -> None:
    upright = digest(encoded(np.ascontiguousarray(UPRIGHT[turn](RGB)), "PNG"))
    block = exif(orientation=turn).tobytes()
    text = b"\nexif\n  %d\n" % len(block) + block.hex().encode()
    packet = b'<x tiff:Orientation="%d"/>' % turn
    for added in (
        chunk(b"eXIf", block.removeprefix(b"Exif\0\0")),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)),
    ):
        assert digest(with_chunk(PLAIN, added, before)) == upright


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("top", [4095, 65535])
def test_deep_grey_with_alpha_is_windowed_on_black(top: int, is_interlaced: bool) -> None:
    values = np.linspace(100, top, 32 * 32).astype(np.uint16).reshape(32, 32)
    alpha = np.full((32, 32), 65535, np.uint16)
    alpha[0], alpha[1] = 0, 32768
    values[0] = 65535  # transparent, so it does not count in the range
    window = np.rint((values - values[1:].min()) / (values[1:].max() - values[1:].min()) * 255)
    grey = ok(sixteen_bits(values, alpha, is_interlaced))[:, :, 0]
    np.testing.assert_array_equal(grey[2:], window[2:])
    np.testing.assert_allclose(grey[1], window[1] / 2, atol=1)
    assert not grey[0].any()


def sixteen_bits(values: np.ndarray, alpha: np.ndarray, is_interlaced: bool) -> bytes:
    """Return a 16-bit PNG of grey and alpha that uses all five filters."""
    stored = np.dstack([values, alpha]).astype(">u2")
    adam7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = [stored[y::dy, x::dx] for y, x, dy, dx in adam7] if is_interlaced else [stored]
    rows = b"".join(filtered(part) for part in passes)
    header = struct.pack(">IIBBBBB", 32, 32, 16, 4, 0, 0, is_interlaced)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def filtered(part: np.ndarray) -> bytes:
    """Return rows with the filters none, sub and up in turn, at four bytes a pixel."""
    raw = np.frombuffer(part.tobytes(), np.uint8).reshape(part.shape[0], -1)
    left, above = np.zeros_like(raw), np.zeros_like(raw)
    left[:, 4:], above[1:] = raw[:, :-4], raw[:-1]
    kinds = (raw, raw - left, raw - above)
    return b"".join(bytes([number % 3]) + kinds[number % 3][number].tobytes() for number in range(len(raw)))


def test_chunks_without_end_are_bounded() -> None:
    assert rejected(PLAIN[:33] + chunk(b"tEXt", b"") * 1_100_000).reason is Reason.CORRUPT


@pytest.mark.parametrize(
    ("frames", "leads", "is_one"), [(1, True, True), (1, False, False), (2, True, False), (0, True, True)]
)
def test_animation_of_one_frame_is_a_picture(frames: int, leads: bool, is_one: bool) -> None:
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 40, 24, 0, 0, 1, 10, 0, 0)) if leads else b""
    data = with_chunk(PLAIN, chunk(b"acTL", struct.pack(">II", frames, 0)) + control)
    if is_one:
        assert digest(data) == digest(PLAIN)
    else:
        assert rejected(data).reason is Reason.MULTIPLE_FRAMES


def test_claims_are_checked_before_anything_is_decoded() -> None:
    big = png(9_000, 9_000, (16, 6), b"")
    assert rejected(big, ImageSpec(side_px=8, max_memory_bytes=300_000_000)).reason is Reason.TOO_LARGE


def test_a_last_chunk_that_claims_more_than_there_is_asks_for_no_memory() -> None:
    start, end = PLAIN.index(b"IDAT") - 4, PLAIN.index(b"IEND") - 4
    lying = PLAIN[:start] + struct.pack(">I", 0x7FFFFFFF) + PLAIN[start + 4 : end]
    tracemalloc.start()
    assert digest(lying) == digest(PLAIN), "the pixels are all there"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 << 20


# BMP


def bmp32(alpha: np.ndarray | int, header_bytes: int, masks: bytes) -> bytes:
    """Return a handmade 32-bit BMP, with rows from the bottom up."""
    pixels = np.dstack([RGB[::-1, :, ::-1], np.broadcast_to(np.uint8(alpha), GREY.shape)])
    fields = struct.pack("<IiiHHIIiiII", header_bytes, 40, 24, 1, 32, 3 if masks else 0, pixels.size, 0, 0, 0, 0)
    header = fields + masks
    header += bytes(max(0, header_bytes - len(header)))
    offset = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", offset + pixels.size, 0, 0, offset) + header + pixels.tobytes()


RGB_MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
RGBA_MASKS = RGB_MASKS + struct.pack("<I", 0xFF000000)


@pytest.mark.parametrize(
    ("header_bytes", "masks"),
    [
        (40, b""),
        (40, RGB_MASKS),
        (52, RGB_MASKS),
        (56, RGBA_MASKS),
        (108, RGBA_MASKS),
        (124, RGBA_MASKS),
        (56, bytes(16)),
    ],
)
@pytest.mark.parametrize("alpha", [0, 255])
def test_bmp_whose_alpha_is_0_or_255_everywhere_is_opaque(alpha: int, header_bytes: int, masks: bytes) -> None:
    assert digest(bmp32(alpha, header_bytes, masks)) == digest(PLAIN)


def test_bmp_with_alpha_is_composed_on_black() -> None:
    alpha = np.where(np.arange(24) < 12, 0, 255).astype(np.uint8)[:, np.newaxis]
    pixels = ok(bmp32(alpha, 124, RGBA_MASKS), side_px=24)
    assert pixels[:10].any() and not pixels[14:].any()
