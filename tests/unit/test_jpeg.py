"""JPEG: complete files are scored, whatever surrounds their pixels; detectable damage is rejected."""

import io
import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Reason, Status
from tests.frames import decode

SPEC = ImageSpec(side_px=32)
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimized": {"optimize": True},
    "fine": {"quality": 97, "subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
    "progressive_restarts": {"progressive": True, "restart_marker_rows": 2},
}
SEQUENTIAL = ("baseline", "optimized", "fine", "restarts")
MODES = ("L", "RGB", "CMYK")
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)


@cache
def picture(number: int, mode: str) -> Image.Image:
    """Return a head on black: a bright ellipse with stripes and noise, different for each number."""
    noise = np.random.default_rng(number)
    y, x = np.mgrid[-1:1:160j, -1 : 1 : (160 + 13 * number % 50) * 1j]
    head = x**2 / 0.5 + y**2 / (0.5 + 0.3 * noise.random()) < 1
    grey = head * (120 + 60 * np.sin(9 * x + 5 * number * y) + noise.normal(0, 9, x.shape))
    image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    tinted = Image.merge("RGB", [image, image.point(lambda v: v * 2 // 3), image.point(lambda v: 255 - v)])
    return image if mode == "L" else tinted.convert(mode)


@cache
def jpeg(number: int = 0, mode: str = "RGB", variant: str = "baseline") -> bytes:
    file = io.BytesIO()
    picture(number, mode).save(file, "JPEG", **VARIANTS[variant])
    return file.getvalue()


def scan_data(data: bytes) -> list[tuple[int, int]]:
    """Return start and end of the entropy-coded data of each scan."""
    ranges, position = [], 2
    while (marker := _MARKER.search(data, position)) and marker[1] != b"\xd9":
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        if marker[1] == b"\xda":
            following = _MARKER.search(data, position)
            end = len(data) if following is None else following.start()
            ranges.append((position, end))
            position = end
    return ranges


def before(data: bytes, marker: int, junk: bytes) -> bytes:
    """Insert something before the first segment of a kind."""
    at = data.index(bytes([0xFF, marker]))
    return data[:at] + junk + data[at:]


def ok(data: bytes) -> Frame:
    decoded = decode(data, SPEC)
    assert (decoded.status, decoded.detail) == (Status.OK, None)
    return decoded


def reason(data: bytes) -> Reason | None:
    return decode(data, SPEC).reason


def libjpeg_warns(data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data, "CMYK" if b"Adobe" in data[:40] else "RGB", strict=True)
    except ValueError:
        return True
    return False


# Complete files


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_pixels_are_those_of_pillow(variant: str, mode: str) -> None:
    for number in range(5):
        data = jpeg(number, mode, variant)
        with Image.open(io.BytesIO(data)) as image:
            lossless = io.BytesIO()
            image.convert("RGB").save(lossless, "PNG")
        assert ok(data).pixels_sha256 == decode(lossless.getvalue(), SPEC).pixels_sha256


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "junk between segments": lambda data: before(data, 0xDB, b"\1\2\3junk"),
    "fill bytes": lambda data: before(data, 0xC4, b"\xff" * 9),
    "a comment": lambda data: before(data, 0xDB, b"\xff\xfe\0\x06text"),
    "a broken colour profile": lambda data: before(data, 0xDB, b"\xff\xe2\0\x12ICC_PROFILE\0\5\2ab"),
    "a broken EXIF block": lambda data: before(data, 0xDB, b"\xff\xe1\0\x0cExif\0\0MM\0*"),
    "an unknown JFIF version": lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\7"),
    "an unknown colour transform": lambda data: before(data, 0xDB, b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\7"),
    "text behind": lambda data: data + b"\r\n<html>" * 50,
    "another picture behind": lambda data: data + jpeg(3, "L"),
    "no end marker": lambda data: data[:-2],
    "a cut end marker": lambda data: data[:-1],
    "zero bytes behind the data": lambda data: data[:-2] + bytes(5000) + data[-2:],
    "zero bytes in the place of the end marker": lambda data: data[:-2] + bytes(5000),
    "odd numbers in the scan's header": lambda data: data.replace(b"\0\x3f\0", b"\0\x3f\1"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_beside_the_pixels_does_not_matter(what: str) -> None:
    sound = jpeg()
    odd = HARMLESS[what](sound)
    assert odd != sound
    assert ok(odd).pixels_sha256 == ok(sound).pixels_sha256


# Damage


def damaged(data: bytes, draw: random.Random, kind: str) -> bytes:
    """Damage the entropy-coded data at random with zeros, a cut or flipped bits."""
    scans = scan_data(data)
    start, end = draw.choices(scans, [end - start for start, end in scans])[0]
    at = draw.randrange(start, end)
    if kind == "cut":
        return data[:at]
    if kind == "cut with an end marker":
        return data[:at] + b"\xff\xd9"
    if kind.startswith("flip"):
        flipped = bytearray(data)
        for _ in range(int(kind.split()[1])):
            flipped[draw.randrange(start, end)] ^= 1 << draw.randrange(8)
        return bytes(flipped)
    share = kind.split()[1]
    length = max(8, int(share[:-1]) * (end - start) // 100) if share.endswith("%") else int(share)
    at = max(start, min(at, end - length))
    length = min(length, end - at)
    return data[:at] + bytes(length) + data[at + length :]


def whole_files() -> Iterator[tuple[str, bytes]]:
    for variant in VARIANTS:
        for mode in MODES:
            for number in range(8):
                yield variant, jpeg(number, mode, variant)


@pytest.mark.parametrize("kind", ["hole 8", "hole 64", "hole 1%", "hole 10%", "hole 50%"])
def test_hole_of_zeros_becomes_corrupt(kind: str) -> None:
    draw, missed = random.Random(kind), Counter[str]()
    for variant, data in whole_files():
        broken = damaged(data, draw, kind)
        missed[variant] += broken != data and reason(broken) is not Reason.CORRUPT
    assert not sum(missed[variant] for variant in SEQUENTIAL), missed
    assert sum(missed.values()) <= 12, missed  # of 48: short holes in refinement scans


def test_cut_with_an_end_marker_behind_becomes_corrupt_and_a_cut_truncated() -> None:
    draw = random.Random(1)
    for _, data in whole_files():
        assert reason(damaged(data, draw, "cut with an end marker")) is Reason.CORRUPT
        assert reason(damaged(data, draw, "cut")) is Reason.TRUNCATED


@pytest.mark.parametrize("flips", [1, 3, 10])
def test_flipped_bits_that_libjpeg_warns_of_are_refused(flips: int) -> None:
    draw, warned = random.Random(flips), 0
    for _, data in whole_files():
        broken = damaged(data, draw, f"flip {flips}")
        if libjpeg_warns(broken):
            warned += 1
            assert reason(broken) in (Reason.CORRUPT, Reason.TRUNCATED)
    assert warned > 20


def test_progressive_file_without_its_last_scans_becomes_corrupt() -> None:
    """For libjpeg a file may end after any scan; it then shows what it has so far."""
    data = jpeg(variant="progressive")
    for _, end in scan_data(data)[:-1]:
        assert reason(data[:end] + b"\xff\xd9") is Reason.CORRUPT
        assert reason(data[:end]) is Reason.TRUNCATED


def test_flat_pictures_whose_data_are_zeros_are_whole() -> None:
    for shade in range(0, 256, 15):
        for variant in VARIANTS:
            file = io.BytesIO()
            Image.new("L", (900, 700), shade).save(file, "JPEG", **VARIANTS[variant])
            ok(file.getvalue())


# Unsupported kinds


def with_frame(data: bytes, offset: int, value: int) -> bytes:
    """Change a byte of the frame header; its marker is at -8."""
    changed = bytearray(data)
    changed[data.index(b"\xff\xc0") + offset] = value
    return bytes(changed)


@pytest.mark.parametrize(
    ("offset", "value", "word"),
    [
        (1, 0xC3, "lossless"),
        (1, 0xC9, "arithmetic"),
        (1, 0xC5, "hierarchical"),
        (4, 12, "12 bits"),
        (11, 0x42, "subsampling"),
    ],
)
def test_kinds_of_jpeg_that_are_not_read_become_unsupported_format(offset: int, value: int, word: str) -> None:
    decoded = decode(with_frame(jpeg(), offset, value), SPEC)
    assert decoded.reason is Reason.UNSUPPORTED_FORMAT
    assert word in str(decoded.detail)


@pytest.mark.parametrize(
    "options", [{"bitspersample": 12}, {"lossless": True}, {"lossless": True, "bitspersample": 16}]
)
def test_deep_and_lossless_jpeg_become_unsupported_format(options: dict[str, Any]) -> None:
    values = np.arange(64 * 64).reshape(64, 64)
    deep = values.astype(np.uint16) if "bitspersample" in options else (values % 251).astype(np.uint8)
    assert reason(imagecodecs.jpeg8_encode(deep, **options)) is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("marker", [b"\xff\xcc\0\4\0\0", b"\xff\xde\0\x0b\x08\0\x20\0\x20\1\1\x11\0"])
def test_arithmetic_and_hierarchical_jpeg_become_unsupported_format(marker: bytes) -> None:
    assert reason(with_frame(before(jpeg(), 0xDB, marker), 1, 0xC9)) is Reason.UNSUPPORTED_FORMAT


def test_height_at_the_end_is_not_read() -> None:
    assert reason(with_frame(with_frame(jpeg(), 5, 0), 6, 0)) is Reason.UNSUPPORTED_FORMAT


def test_claims_are_checked_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr("simplejpeg.decode_jpeg", never)
    data = bytearray(jpeg(mode="CMYK", variant="progressive"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc2") + 5, 10_000, 10_000)
    decoded = decode(bytes(data), ImageSpec(side_px=32, max_memory_bytes=1_000_000_000))
    assert decoded.reason is Reason.TOO_LARGE
    assert decoded.detail == "decoding takes 1228 MiB, more than the cap of 953", (
        "400 MB of pixels, 800 of coefficients, and the strips"
    )
    struct.pack_into(">HH", data, data.index(b"\xff\xc2") + 5, 65_535, 65_535)
    assert "65535 x 65535" in str(decode(bytes(data), SPEC).detail)


def test_out_of_memory_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise ValueError("Insufficient memory (case 4)")

    monkeypatch.setattr("simplejpeg.decode_jpeg", full)
    with pytest.raises(MemoryError):
        decode(jpeg(), SPEC)


def test_segments_without_end_are_bounded() -> None:
    assert reason(b"\xff\xd8" + b"\xff\xfe\0\2" * 100_000) is Reason.CORRUPT
    scan = jpeg()[scan_data(jpeg())[0][0] - 14 : -2]
    assert reason(jpeg()[:-2] + scan * 300 + b"\xff\xd9") is Reason.CORRUPT


# Real files


def test_no_whole_file_of_the_public_sets_is_refused(shared: Path) -> None:
    reasons: Counter[str] = Counter()
    for path in sorted([*(shared / "data").rglob("*.jpg"), *(shared / "trust").rglob("*.jp*g")]):
        data = path.read_bytes()
        if data.startswith(b"\xff\xd8\xff"):
            reasons[str(decode(data, SPEC).reason)] += 1
    assert set(reasons) == {"None"}
    assert reasons["None"] >= 6_363


def test_damage_of_real_files_is_refused(shared: Path) -> None:
    draw, passed = random.Random(14), Counter[str]()
    for path in draw.sample(sorted((shared / "data").rglob("*.jpg")), 200):
        data = path.read_bytes()
        for kind in ("hole 8", "hole 64", "hole 1%", "hole 5%", "hole 30%", "cut with an end marker"):
            broken = damaged(data, draw, kind)
            assert broken == data or reason(broken) is Reason.CORRUPT, (path, kind)
        broken = damaged(data, draw, "flip 1")
        assert reason(broken) is not None or not libjpeg_warns(broken)
        passed["flip 1"] += reason(broken) is None
    assert 100 < passed["flip 1"] < 190, "JPEG has no checksum: about three flipped bits of four give another picture"
