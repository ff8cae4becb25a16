"""Broken files, the same for the same number: mutations of JPEG, PNG, TIFF, BMP and DICOM files made here, and of others.

Each file is a pure function of its number and of the originals, so that a failing one can be made again alone.
"""

import io
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.dicom_cases import CASES
from tests.pictures import head
from tests.unit.dicom_files import COMPRESSED, NATIVE, clean, coded, compressed, picture, slice_of, stack, written
from tests.unit.test_memory import LARGEST

__all__ = ["broken_file", "broken_files", "files_below", "write_broken_files"]

Originals = Sequence[Sequence[bytes]]  # by format, so that each format is broken equally often
Mutation = Callable[[bytes, random.Random, bytes], bytes]  # of a file, with another one of any format

SIDE = 96
MOST_BYTES = 1 << 20  # of an original: time goes into kinds of damage, not into pixels
_MOST_MUTATIONS = 3
_HEADER_BYTES = 2048  # where half of the damage is done, as headers steer decoders
_CLAIM_BYTES = 8192  # where fields are looked for

_END_MARKERS = (
    b"\xff\xd9",
    b"\0\0\0\0IEND\xaeB`\x82",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"\xff\xd9\0\xfe\xff\xdd\xe0\0\0\0\0",
)
_CLAIMS = (0, 1, 2, 0x7F, 0xFF, 9999, 0x7FFF, 0xFFFF, 10**6, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 62)
_FIELDS: tuple[tuple[re.Pattern[bytes], tuple[int, ...]], ...] = (
    (re.compile(rb"\xff[\xc0-\xcf\xda-\xfe]"), (2, 4, 5, 7, 9)),  # JPEG: length, precision, height, width, components
    (re.compile(rb"\xff\x4f\xff\x51"), (8, 12, 16, 20, 24, 28, 40)),  # JPEG 2000: sizes, tiles, components
    (re.compile(rb"IHDR|IDAT|PLTE|tRNS|iCCP|IEND"), (-4, 4, 8, 12, 13, 16)),  # PNG: length, width, height, depth
    (re.compile(rb"[\0-\x1c\x42-\x53]\x01[\x01-\x05\x10]\0"), (2, 4, 8)),  # TIFF: type, count and value of an entry
    (re.compile(rb"\x01[\0-\x1c\x42-\x53]\0[\x01-\x05\x10]"), (2, 4, 8)),  # the same in big endian
    (re.compile(rb"^BM"), (2, 10, 14, 18, 22, 26, 28, 30, 46)),  # BMP: sizes, depth, compression, colours
    (re.compile(rb"\x28\0[\0-\x08\x10\x11]\0(?:US|IS)|\x28\0[\0-\x03]\x01US"), (4, 6, 8)),  # DICOM: rows, bits …
    (re.compile(rb"\xe0\x7f[\x08-\x10]\0|\x00\x52[\x29\x30]\x92|SQ\0\0"), (4, 8)),  # pixels and sequences
    (re.compile(rb"\xfe\xff[\0\x0d\xdd]\xe0"), (0, 4)),  # items of sequences and of pixels
)
_PNG = b"\x89PNG\r\n\x1a\n"


def broken_files(count: int, others: Iterable[bytes] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield this many broken files with their names. Files of others are broken as often as those of one format."""
    originals = _originals(tuple(others))
    for number in range(count):
        yield f"{number:05}", broken_file(number, originals)


def write_broken_files(folder: Path, count: int, others: Iterable[bytes] = ()) -> None:
    """Write broken files into a folder, which is made."""
    folder.mkdir(parents=True)
    for name, data in broken_files(count, others):
        (folder / name).write_bytes(data)


def files_below(*folders: Path, most: int) -> list[bytes]:
    """Return the files of at most MOST_BYTES below folders, of each folder as many at most, evenly chosen."""
    chosen: list[bytes] = []
    for folder in folders:
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size <= MOST_BYTES)
        chosen += [path.read_bytes() for path in paths[:: max(1, -(-len(paths) // most))]]
    return chosen


def broken_file(number: int, originals: Originals) -> bytes:
    """Return a broken file: one to three mutations of an original; every other PNG gets checksums that fit."""
    rng = random.Random(f"broken {number}")
    data = rng.choice(rng.choice(originals))
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        data = rng.choice(MUTATIONS)(data, rng, rng.choice(rng.choice(originals))) if data else data
    return _with_checksums(data) if data.startswith(_PNG) and rng.random() < 0.5 else data


@cache
def _originals(others: tuple[bytes, ...]) -> Originals:
    made = [*_rasters(), *_dicom()]
    formats = [
        [data for data in made if data.startswith(start)] for start in (b"\xff\xd8", _PNG, (b"II", b"MM"), b"BM")
    ]
    return [*formats, [data for data in made if data[128:132] == b"DICM"], *([others] if others else [])]


def _rasters() -> Iterator[bytes]:
    """Yield a picture in every format and layout that Pillow writes, and noise in those it does not."""
    image = head(1).resize((SIDE, SIDE))
    colour = image.convert("RGB")
    yield from (make(64) for make in LARGEST.values())
    for quality, progressive in ((90, False), (40, True)):
        yield _saved(image, "JPEG", quality=quality, progressive=progressive)
        yield _saved(colour, "JPEG", quality=quality, progressive=progressive, restart_marker_rows=1)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield _saved(colour.convert("L").convert(mode) if mode == "I;16" else colour.convert(mode), "PNG")
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd"):
        yield _saved(colour, "TIFF", compression=compression)
    yield from (_saved(image.convert("1"), "TIFF", compression=name) for name in ("group3", "group4", "tiff_ccitt"))
    yield from (_saved(colour.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB"))


def _saved(image: Any, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def _dicom() -> Iterator[bytes]:
    """Yield the made cases, and one picture in every transfer syntax, in colour and in frames."""
    yield from (data for make in CASES.values() if len(data := make().data) < MOST_BYTES // 16)
    yield from (written(clean(), syntax) for syntax in NATIVE)
    yield from (compressed(syntax) for syntax in COMPRESSED)
    yield from (written(stack(5, 48), syntax) for syntax in (NATIVE[0], DeflatedExplicitVRLittleEndian))
    frames = [coded(picture(), syntax) for syntax in (COMPRESSED[2],)] * 4
    yield compressed(COMPRESSED[2], frames, NumberOfFrames=len(frames))
    grey = (picture() >> 4).astype(np.uint8)
    for photometric in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        yield written(slice_of(np.dstack([grey, grey[::-1], 255 - grey]), PhotometricInterpretation=photometric))


# Mutations


def _place(data: bytes, rng: random.Random) -> int:
    """Return a position, every other time one in the header."""
    return rng.randrange(min(len(data), rng.choice((_HEADER_BYTES, len(data)))))


def _range(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = _place(data, rng)
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, 64, 512, 4096)))


def _flip_bits(data: bytes, rng: random.Random, _: bytes) -> bytes:
    changed = bytearray(data)
    for _count in range(rng.choice((1, 1, 2, 8, 64))):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random, _: bytes) -> bytes:
    return data[: rng.choice((_place(data, rng), len(data) - rng.randint(1, min(64, len(data)))))]


def _cut_and_end(data: bytes, rng: random.Random, _: bytes) -> bytes:
    """A cut file with an end marker, so that it looks complete."""
    return data[: _place(data, rng)] + rng.choice(_END_MARKERS)


def _fill(data: bytes, rng: random.Random, _: bytes) -> bytes:
    start, end = _range(data, rng)
    return data[:start] + bytes([rng.choice((0, 0, 0xFF))]) * (end - start) + data[end:]


def _repeat(data: bytes, rng: random.Random, _: bytes) -> bytes:
    start, end = _range(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def _remove(data: bytes, rng: random.Random, _: bytes) -> bytes:
    start, end = _range(data, rng)
    return data[:start] + data[end:]


def _swap(data: bytes, rng: random.Random, _: bytes) -> bytes:
    (a, b), (c, d) = sorted((_range(data, rng), _range(data, rng)))
    return data if c < b else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _claim(data: bytes, rng: random.Random, _: bytes) -> bytes:
    """Write a huge or odd number into a field that holds a length or a size, and every other time into the next one, too."""
    start = data[:_CLAIM_BYTES]
    known = [match.start() + at for field, offsets in _FIELDS for match in field.finditer(start) for at in offsets]
    places = [place for place in known if 0 <= place < len(data)]
    place = rng.choice(places) if places and rng.random() < 0.9 else _place(data, rng)
    width, order = rng.choice((1, 2, 2, 4, 4, 8)), rng.choice(("little", "big"))
    number = (rng.choice(_CLAIMS) % (1 << 8 * width)).to_bytes(width, order)
    changed = bytearray(data)
    for at in (place, place + rng.choice((width, 10, 12)))[: rng.randint(1, 2)]:
        changed[at : at + width] = number
    return bytes(changed)


def _splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """The start of one file and the end of another."""
    return data[: _place(data, rng)] + (other[_place(other, rng) :] if other else b"")


def _insert(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A file within a file."""
    place = _place(data, rng)
    return data[:place] + other + data[place:]


def _shorten(data: bytes, rng: random.Random, _: bytes) -> bytes:
    """Nothing, or next to it."""
    return data[: rng.choice((0, 1, 2, 4, 8, 16, 33, 64, 132, 140, 200))]


def _scramble(data: bytes, rng: random.Random, _: bytes) -> bytes:
    """Noise behind a start that is kept."""
    start, end = _range(data, rng)
    return data[:start] + rng.randbytes(end - start) + data[end:]


MUTATIONS: tuple[Mutation, ...] = (
    *(_flip_bits, _flip_bits, _claim, _claim, _claim, _cut, _cut_and_end, _fill, _repeat, _remove, _swap),
    *(_splice, _insert, _scramble, _shorten),
)


def _with_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks have checksums that fit, as far as their lengths lead; else damage ends at the first one."""
    changed, place = bytearray(data), len(_PNG)
    while place + 12 <= len(changed):
        end = place + 8 + int.from_bytes(changed[place : place + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(changed[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(changed)
