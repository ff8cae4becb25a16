"""TIFF in every combination that `tifffile` writes: the pixels are those written, or the file is rejected."""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Reason, Status
from tests.frames import decode
from tests.unit.test_images import UPRIGHT, tiff

pytestmark = pytest.mark.filterwarnings("error:::mribatch")

SIDE = 40
SPEC = ImageSpec(side_px=SIDE)
DTYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
COMPRESSIONS = (None, "lzw", "zlib", "packbits", "zstd", "lzma")
LAYOUTS = ("grey", "white_is_zero", "chunky", "planar")


def values(dtype: str, channels: int = 1) -> NDArray[Any]:
    """Return noisy values (SIDE, SIDE[, channels]) over much of the range of a type, without symmetry."""
    kind = np.dtype(dtype)
    noise = np.random.default_rng(7).uniform(-0.1, 0.1, (SIDE, SIDE, channels))
    ramp = np.linspace(0.1, 0.9, SIDE * SIDE * channels).reshape(SIDE, SIDE, channels) + noise
    if kind.kind == "f":
        span = (ramp - 0.3) * 3000
    else:
        info = np.iinfo(kind)
        span = ramp * (float(info.max) - float(info.min)) + float(info.min)
    return span.astype(kind)[:, :, 0] if channels == 1 else span.astype(kind)


def windowed(array: NDArray[Any]) -> NDArray[np.float64]:
    """Scale from least to greatest value to 0…255, with Python's exact numbers."""
    low, high = array.min().item(), array.max().item()
    shades = [255 * (value - low) / (high - low) for value in array.ravel().tolist()]
    return np.array(shades).reshape(array.shape)


def expected(array: NDArray[Any], layout: str) -> NDArray[np.float64]:
    """Return (SIDE, SIDE, 3) as a viewer shows it."""
    if array.dtype.kind == "u" and array.dtype.itemsize <= (1 if array.ndim == 2 else 2):
        shades = (array >> (8 * array.dtype.itemsize - 8)).astype(np.float64)
    else:
        shades = windowed(array)
    if layout == "white_is_zero":
        shades = 255 - shades
    return shades if shades.ndim == 3 else np.dstack([shades] * 3)


def written(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **options)
    return file.getvalue()


def entry(order: str, tag: int, value: int) -> bytes:
    """Return a directory entry with one number, as `tifffile` writes widths, bits and offsets."""
    kind = 3 if tag in (258, 259, 262) else 4
    return struct.pack(order + ("HHLHH" if kind == 3 else "HHLL"), tag, kind, 1, value, *([0] if kind == 3 else []))


def ok(data: bytes) -> NDArray[np.uint8]:
    decoded = decode(data, SPEC)
    assert (decoded.status, decoded.detail) == (Status.OK, None)
    assert decoded.pixels is not None
    return decoded.pixels


def rejected(data: bytes, spec: ImageSpec = SPEC) -> Frame:
    decoded = decode(data, spec)
    assert decoded.status is Status.REJECTED, decoded
    return decoded


def combinations(dtype: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return all layouts of one type, with the arguments for `tifffile`."""
    predictors = (False,) if dtype in ("u8", "i8") else (False, True)  # tifffile writes no others
    for order, compression, predictor, is_tiled, layout in product(
        "<>", COMPRESSIONS, predictors, (False, True), LAYOUTS
    ):
        if predictor and compression is None:
            continue
        options: dict[str, Any] = {"byteorder": order, "compression": compression, "predictor": predictor}
        options |= {"tile": (16, 32)} if is_tiled else {"rowsperstrip": 7}
        options["photometric"] = {"grey": "minisblack", "white_is_zero": "miniswhite"}.get(layout, "rgb")
        if layout in ("chunky", "planar"):
            options["planarconfig"] = "contig" if layout == "chunky" else "separate"
        yield layout, options


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_gives_the_array_that_was_written(dtype: str) -> None:
    counts: Counter[str] = Counter()
    for layout, options in combinations(dtype):
        array = values(dtype, 3 if layout in ("chunky", "planar") else 1)
        file = written(np.moveaxis(array, 2, 0) if layout == "planar" else array, **options)
        error = np.abs(ok(file) - expected(array, layout)).max()
        assert error <= 1, (layout, options, error)
        counts[layout] += 1
    assert len(counts) == len(LAYOUTS) and min(counts.values()) >= 24


# Other kinds of values


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15])
def test_packed_values_are_scaled_up_to_eight_bits_and_windowed_beyond(bits: int, order: str) -> None:
    array = np.random.default_rng(bits).integers(0, 1 << bits, (SIDE, SIDE))
    binary = (array[:, :, np.newaxis] >> np.arange(bits)[::-1] & 1).astype("u1").reshape(SIDE, -1)
    rows = np.packbits(binary, axis=1)  # tifffile packs only little-endian values correctly
    plain = written(rows, byteorder=order, photometric="minisblack")
    file = plain
    for tag, old, new in ((256, rows.shape[1], SIDE), (258, 8, bits)):
        file = file.replace(entry(order, tag, old), entry(order, tag, new))
    assert file != plain or bits == 8
    shades = array * (255 / ((1 << bits) - 1)) if bits <= 8 else windowed(array)
    assert np.abs(ok(file)[:, :, 0] - shades).max() <= 1


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", DTYPES)
def test_bigtiff_is_read(dtype: str, order: str) -> None:
    array = values(dtype)
    file = written(array, bigtiff=True, byteorder=order, compression="zlib", rowsperstrip=7)
    assert file[2:4] in (b"+\0", b"\0+")
    assert np.abs(ok(file) - expected(array, "grey")).max() <= 1


def test_values_that_differ_beyond_the_precision_of_floats_keep_their_order() -> None:
    steps = np.arange(SIDE * SIDE, dtype="u8").reshape(SIDE, SIDE)
    for array in (steps + (1 << 63), steps.astype("i8") - (1 << 62), steps.astype("f8") * 1e-320):
        assert np.abs(ok(written(array))[:, :, 0] - windowed(array)).max() <= 1
    extremes = np.linspace(-1, 1, SIDE * SIDE).reshape(SIDE, SIDE) * 1.7e308  # their difference is infinite
    assert np.abs(ok(written(extremes))[:, :, 0] - np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE)).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_composed_on_black_and_hides_from_the_window(channels: int, dtype: str) -> None:
    array = values(dtype, 3)[:, :, :channels]
    opaque = 1 if dtype == "f4" else np.iinfo(dtype).max
    alpha = np.full((SIDE, SIDE, 1), opaque, dtype)
    alpha[:4] = 0
    array[:4] = array.max() if dtype in ("u1", "u2") else array.max() + (array.max() - array.min()) // 10
    options: dict[str, Any] = {"photometric": "rgb" if channels == 3 else "minisblack", "planarconfig": "contig"}
    pixels = ok(written(np.dstack([array, alpha]), extrasamples=["unassalpha"], **options))
    assert not pixels[:4].any()
    shown = array[4:] if channels == 3 else array[4:, :, 0]
    assert np.abs(pixels[4:] - expected(shown, "chunky" if channels == 3 else "grey")).max() <= 1


def test_extra_channel_of_no_known_meaning_is_no_alpha() -> None:
    array = values("u1", 3)
    nothing = np.zeros((SIDE, SIDE, 1), "u1")
    file = written(np.dstack([array, nothing]), photometric="rgb", extrasamples=["unspecified"], planarconfig="contig")
    np.testing.assert_array_equal(ok(file), array)


def test_multiplied_alpha_is_on_black_already() -> None:
    array = values("u1", 3)
    half = np.full((SIDE, SIDE, 1), 128, "u1")
    file = written(np.dstack([array, half]), photometric="rgb", extrasamples=["assocalpha"], planarconfig="contig")
    np.testing.assert_array_equal(ok(file), array)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_palette_gives_its_colours(dtype: str, order: str) -> None:
    colours = np.random.default_rng(1).integers(0, 65536, (3, 1 << (8 * np.dtype(dtype).itemsize)), dtype="u2")
    numbers = values(dtype)
    file = written(numbers, photometric="palette", colormap=colours, byteorder=order, compression="lzw")
    np.testing.assert_array_equal(ok(file), np.moveaxis(colours[:, numbers] >> 8, 0, 2))


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_cmyk_becomes_rgb_as_in_pillow(dtype: str, planes: str) -> None:
    array = values(dtype, 4)
    stored = array if planes == "contig" else np.moveaxis(array, 2, 0)
    eight = (array >> (8 * array.dtype.itemsize - 8)).astype("u1")
    pixels = ok(written(stored, photometric="separated", planarconfig=planes))
    np.testing.assert_array_equal(pixels, np.asarray(Image.fromarray(eight, "CMYK").convert("RGB")))


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_jpeg_inside_is_decoded_in_its_colours(photometric: str, tile: tuple[int, int] | None) -> None:
    ramp = np.add.outer(np.arange(SIDE) * 3, np.arange(SIDE) * 2).astype("u1")
    array = np.dstack([ramp, 200 - ramp, ramp // 2]) if photometric == "rgb" else ramp
    options: dict[str, Any] = {"compression": "jpeg", "photometric": photometric}
    file = written(array, **options, **({"tile": tile} if tile else {"rowsperstrip": 16}))
    with Image.open(io.BytesIO(file)) as image:
        np.testing.assert_array_equal(ok(file), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("turn", UPRIGHT)
def test_orientation_is_applied(turn: int, dtype: str) -> None:
    array = values(dtype)[:24]
    file = written(array, extratags=[(274, 3, 1, turn, True)], rowsperstrip=7, compression="zlib")
    upright = written(np.ascontiguousarray(UPRIGHT[turn](array)))
    assert decode(file, SPEC).pixels_sha256 == decode(upright, SPEC).pixels_sha256 is not None


def test_bits_in_the_other_order_are_read() -> None:
    array = values("u1")
    turned = np.array([int(f"{byte:08b}"[::-1], 2) for byte in array.tobytes()], "u1").reshape(array.shape)
    np.testing.assert_array_equal(ok(tiff(turned, tag266=2))[:, :, 0], array)


# One picture or several


def several(*pages: tuple[NDArray[Any], dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for array, options in pages:
            writer.write(array, metadata=None, **options)
    return file.getvalue()


SMALL = values("u2")[::4, ::4]


@pytest.mark.parametrize(
    "pages",
    [
        [(values("u2"), {}), (SMALL, {"subfiletype": 1})],
        [(values("u2"), {}), (SMALL, {})],
        [(values("u2"), {}), (values("u2")[::2, ::2], {"subfiletype": 1}), (SMALL, {"subfiletype": 1})],
        [(SMALL, {"subfiletype": 1}), (values("u2"), {})],
        [(SMALL, {}), (values("u2"), {})],
        [(values("u2"), {"subifds": 2}), (values("u2")[::2, ::2], {"subfiletype": 1}), (SMALL, {"subfiletype": 1})],
        [(SMALL, {"subfiletype": 1, "subifds": 1}), (values("u2"), {})],
        [(values("u2"), {}), (values("u2") > 30000, {"subfiletype": 4})],
        [(values("u2"), {"subfiletype": 1})],
    ],
)
def test_thumbnails_pyramids_and_masks_leave_one_picture(pages: list[tuple[NDArray[Any], dict[str, Any]]]) -> None:
    assert np.abs(ok(several(*pages)) - expected(values("u2"), "grey")).max() <= 1


@pytest.mark.parametrize(
    "file",
    [
        several((values("u2"), {}), (values("u2"), {})),
        several((values("u2"), {}), (values("u2")[:30], {})),
        several((values("u1"), {"subfiletype": 2}), (values("u1"), {"subfiletype": 2})),
        several(*[(values("u2"), {})] * 5),
        written(np.stack([values("u2")] * 16), volumetric=True, tile=(16, 16, 16), photometric="minisblack"),
    ],
)
def test_stacks_become_multiple_frames(file: bytes) -> None:
    assert rejected(file).reason is Reason.MULTIPLE_FRAMES


def test_stack_in_one_directory_becomes_multiple_frames() -> None:
    stack = np.stack([values("u2")] * 5)
    for options in ({"imagej": True}, {"shaped": True}):
        file = io.BytesIO()
        tifffile.imwrite(file, stack, truncate=True, photometric="minisblack", **options)
        assert rejected(file.getvalue()).reason is Reason.MULTIPLE_FRAMES


# Damaged and hostile files

WHOLE = {
    name: written(values("u2"), **options)
    for name, options in {
        "raw": {"rowsperstrip": 7},
        "tiles": {"tile": (16, 16)},
        "lzw": {"compression": "lzw", "rowsperstrip": 7},
        "deflate": {"compression": "zlib", "predictor": True, "byteorder": ">", "rowsperstrip": 7},
        "packbits": {"compression": "packbits", "tile": (16, 16), "bigtiff": True},
        "zstd": {"compression": "zstd", "byteorder": ">", "bigtiff": True},
        "lzma": {"compression": "lzma", "rowsperstrip": 7},
    }.items()
}
WHOLE["jpeg"] = written(values("u1", 3), compression="jpeg", tile=(16, 16), photometric="rgb")
WHOLE["float"] = written(values("f4"), compression="zlib", predictor=True, rowsperstrip=7)
WHOLE["pyramid"] = several((values("u2"), {"subifds": 1}), (SMALL, {"subfiletype": 1}))


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "pyramid"])
def test_cut_file_becomes_truncated_at_every_byte(name: str) -> None:
    data = WHOLE[name]
    pages = tifffile.TiffFile(io.BytesIO(data)).pages.first
    end = max(offset + count for offset, count in zip(pages.dataoffsets, pages.databytecounts, strict=True))
    assert decode(data[:end], SPEC).status is Status.OK
    for cut in {*range(26, 400, 11), *range(400, end, max(1, end // 50)), end - 1}:
        assert rejected(data[:cut]).reason is Reason.TRUNCATED, cut


@pytest.mark.parametrize("name", ["raw", "tiles", "lzw", "deflate", "packbits", "jpeg"])
def test_missing_strip_is_no_black_strip(name: str) -> None:
    page = tifffile.TiffFile(io.BytesIO(WHOLE[name])).pages.first
    counts = page.tags.get(325) or page.tags[279]
    assert len(page.databytecounts) > 1
    data = bytearray(WHOLE[name])
    data[counts.valueoffset : counts.valueoffset + 2] = bytes(2)
    fault = rejected(bytes(data))
    assert fault.reason in (Reason.CORRUPT, Reason.TRUNCATED) and "strips" in str(fault.detail)


@pytest.mark.parametrize("name", ["lzw", "deflate", "packbits", "zstd", "lzma", "jpeg"])
def test_strip_that_holds_too_little_becomes_corrupt(name: str) -> None:
    page = tifffile.TiffFile(io.BytesIO(WHOLE[name])).pages.first
    tag, data = (page.tags.get(325) or page.tags[279]), bytearray(WHOLE[name])
    kind = {3: "H", 4: "L", 16: "Q"}[int(tag.dtype)]
    order = page.parent.byteorder
    struct.pack_into(order + kind, data, tag.valueoffset, page.databytecounts[0] // 2)
    assert rejected(bytes(data)).reason in (Reason.CORRUPT, Reason.TRUNCATED)


def test_directories_in_a_circle_end() -> None:
    data = bytearray(several((values("u2"), {}), (SMALL, {"subfiletype": 1})))
    second = struct.unpack_from("<L", data, 8 + 2 + 12 * struct.unpack_from("<H", data, 8)[0])[0]
    struct.pack_into("<L", data, second + 2 + 12 * struct.unpack_from("<H", data, second)[0], 8)
    assert rejected(bytes(data)).reason is Reason.CORRUPT


def test_endless_directories_are_not_followed() -> None:
    links = b"".join(struct.pack("<HHHLLL", 1, 254, 4, 1, 1, 8 + 18 * (number + 1)) for number in range(70_000))
    assert rejected(b"II*\0" + struct.pack("<L", 8) + links + bytes(6)).reason is Reason.MULTIPLE_FRAMES


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"tag256": 2**31, "tag257": 2**31}, Reason.TOO_LARGE),
        ({"tag256": 20_000, "tag257": 20_000}, Reason.TOO_LARGE),
        ({"tag322": 2**20, "tag323": 2**20}, Reason.TOO_LARGE),
        ({"tag256": 9_000, "tag257": 9_000, "tag258": 64, "tag259": 5, "tag278": 9_000}, Reason.TOO_LARGE),
        ({"tag256": 8}, Reason.TOO_SMALL),
        ({"tag277": 65}, Reason.UNSUPPORTED_FORMAT),
        ({"tag277": 0}, Reason.UNSUPPORTED_FORMAT),
        ({"tag258": 0}, Reason.UNSUPPORTED_FORMAT),
        ({"tag258": 33}, Reason.UNSUPPORTED_FORMAT),
        ({"tag339": 6}, Reason.UNSUPPORTED_FORMAT),  # complex
        ({"tag259": 4}, Reason.UNSUPPORTED_FORMAT),  # fax: no decoder reports missing data
        ({"tag259": 34712}, Reason.UNSUPPORTED_FORMAT),  # JPEG 2000
        ({"tag317": 2}, Reason.UNSUPPORTED_FORMAT),  # a predictor without compression, which readers treat differently
        ({"tag262": 32803}, Reason.UNSUPPORTED_FORMAT),  # a camera's raw mosaic
        ({"tag262": 6}, Reason.UNSUPPORTED_FORMAT),  # subsampled without JPEG
        ({"tag262": 2}, Reason.CORRUPT),  # colour with one channel
        ({"tag262": 3}, Reason.CORRUPT),  # no palette
        ({"tag277": 3, "tag259": 5}, Reason.UNSUPPORTED_FORMAT),  # three channels of grey
        ({"tag278": 0}, Reason.CORRUPT),
        ({"tag278": 5}, Reason.CORRUPT),
        ({"tag279": 10}, Reason.CORRUPT),
        ({"tag273": 2**32 - 1}, Reason.TRUNCATED),
        ({"tag322": 0, "tag323": 16}, Reason.CORRUPT),
    ],
)
def test_claims_are_checked_before_anything_is_decoded(
    tags: dict[str, int], reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("something was decoded")

    monkeypatch.setattr("mribatch.scans.tiff_segments.Segments._decoded", never)
    assert rejected(tiff(values("u1"), **tags)).reason is reason


def test_channels_of_unlike_kinds_are_refused() -> None:
    file = written(values("u1", 3), photometric="rgb", byteorder="<")
    assert (
        rejected(file.replace(struct.pack("<HHH", 8, 8, 8), struct.pack("<HHH", 8, 8, 5))).reason
        is Reason.UNSUPPORTED_FORMAT
    )


def test_strip_that_inflates_without_end_is_bounded() -> None:
    bomb = zlib.compress(bytes(50_000_000))
    array = np.frombuffer(bomb[: len(bomb) // 2 * 2], "u1").reshape(1, -1)
    file = tiff(array, tag256=SIDE, tag257=SIDE, tag259=8, tag278=SIDE, tag279=array.size)
    assert rejected(file).reason is Reason.CORRUPT


@pytest.mark.parametrize("name", WHOLE)
def test_damage_never_raises_and_names_no_header(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    draw = np.random.default_rng(len(name))
    sound = WHOLE[name]
    spec = ImageSpec(side_px=16, max_pixels=1_000_000)
    for _ in range(200):
        data = bytearray(sound)
        for _ in range(draw.integers(1, 6)):
            data[draw.integers(min(len(data), draw.choice((300, len(data)))))] = draw.integers(256)
        decoded = decode(bytes(data), spec)
        assert decoded.status in (Status.OK, Status.REJECTED)
        assert decoded.status is Status.OK or len(str(decoded.detail)) < 100
    assert not caplog.records
