"""Broken files, the same for the same number: mutations of JPEG, PNG, TIFF, BMP and DICOM files made here, and of others.

Each file is a pure function of its number and of the originals, so that a failing one can be made again alone.
"""

import io
import json
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.dicom_cases import CASES
from tests.pictures import head
from tests.unit.dicom_files import COMPRESSED, NATIVE, clean, coded, compressed, picture, slice_of, stack, written
from tests.unit.test_memory import LARGEST

__all__ = ["LOST", "MOST_DECODER_BYTES", "MOST_S", "broken_file", "broken_files", "check_answers", "originals"]

Originals = Sequence[Sequence[bytes]]  # by format, so that each format is broken equally often
Mutation = Callable[[bytes, random.Random, bytes], bytes]  # of a file, with another one of any format

SIDE = 96
MOST_BYTES, MOST_OTHERS = 1 << 20, 200  # of an original, and below a folder: time goes into kinds of damage
MOST_S, MOST_DECODER_BYTES = 10.0, 1 << 30
"""The time and memory that any file may take. The sandbox ends a decoder that takes longer."""

_MUTATION_COUNTS = (1, 1, 1, 2, 3)
_HEADER_BYTES = 2048  # where half of the damage is done, as headers steer decoders
_CLAIM_BYTES = 8192  # where fields are looked for

LOST = frozenset({"timed_out", "crashed_decoder"})
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


def broken_files(count: int, *folders: Path) -> Iterator[tuple[str, bytes]]:
    """Yield this many broken files with their names. The files of a folder are broken as often as those of a format."""
    formats = originals(*folders)
    for number in range(count):
        yield f"{number:05}", broken_file(number, formats)


def broken_file(number: int, formats: Originals) -> bytes:
    """Return a broken file: one to three mutations of an original; every other PNG gets checksums that fit."""
    rng = random.Random(f"broken {number}")
    data = rng.choice(rng.choice(formats))
    for _ in range(rng.choice(_MUTATION_COUNTS)):
        data = rng.choice(MUTATIONS)(data, rng, rng.choice(rng.choice(formats))) if data else data
    return _with_checksums(data) if data.startswith(_PNG) and rng.random() < 0.5 else data


@cache
def originals(*folders: Path) -> Originals:
    """Return whole files: JPEG, PNG, TIFF, BMP, DICOM, then those below each folder."""
    rasters, dicom = list(_rasters()), list(_dicom())
    starts = (b"\xff\xd8", _PNG, (b"II", b"MM"), b"BM")
    formats = [[data for data in rasters if data.startswith(start)] for start in starts]
    return [*formats, dicom, *map(_files_below, folders)]


def _files_below(folder: Path) -> list[bytes]:
    """Return at most MOST_OTHERS files of at most MOST_BYTES, evenly chosen."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size <= MOST_BYTES)
    return [path.read_bytes() for path in paths[:: -(-len(paths) // MOST_OTHERS)]]


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


def check_answers(output: Path, uris: set[str]) -> dict[str, int]:
    """Check that a run answered each file, once and within the limits, and return how many rows have which status.

    A file has one row, or all its frames. None failed, was left, or killed its decoder by time or memory.
    """
    (record,) = (json.loads(path.read_text()) for path in (output / "_runs").glob("*.json"))
    assert (record["counts"]["failed"], record["counts"]["left"], record["plan"]["planned"]) == (0, 0, len(uris))
    assert record["peak_memory_bytes"]["decoder"] <= MOST_DECODER_BYTES
    rows = duckdb.execute(f"select * from read_parquet('{output}/model=*/*.parquet', union_by_name = true)").df()
    assert set(rows["scan_uri"]) == uris
    assert set(rows["reason"].dropna()) & LOST == set()
    for uri, own in rows.groupby("scan_uri"):
        assert sorted(own["frame"]) == list(range(own["frames"].iloc[0])), uri
    return dict(rows["status"].value_counts())


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
    width = rng.choice((1, 2, 2, 4, 4, 8))
    number = (rng.choice(_CLAIMS) % (1 << 8 * width)).to_bytes(width, "little" if rng.random() < 0.5 else "big")
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
