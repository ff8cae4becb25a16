"""Decoding turns every picture into upright 8-bit RGB, and every fault into a reason."""

import hashlib
import io
import logging
import random
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from mribatch.errors import ConfigError
from mribatch.scans import decode as door
from mribatch.scans.frames import Frame
from mribatch.scans.limits import MIN_SIDE_PX, ImageSpec
from mribatch.scans.reading import Reading
from mribatch.schema import Reason, Status
from tests.frames import decode, only

pytestmark = pytest.mark.filterwarnings("error")  # a warning from decode fails the test

SIDE = 32
SPEC = ImageSpec(side_px=SIDE)
NOISE = np.random.default_rng(0).integers(0, 20, (24, 40))
GREY = (np.add.outer(np.arange(24) * 5, np.arange(40) * 3) + NOISE).astype(np.uint8)  # (24, 40), no symmetry
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)

UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {  # as a viewer shows it, CIPA DC-008
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}


def encoded(image: Image.Image | NDArray[np.generic], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def in_mode(mode: str) -> Image.Image:
    return Image.fromarray(RGB).convert(mode)


def exif(**tags: object) -> Image.Exif:
    block = Image.Exif()
    for name, value in tags.items():
        block[{"orientation": 0x0112, "description": 0x010E, "x_resolution": 0x011A, "unit": 0x0128}[name]] = value
    return block


def png(width: int, height: int, kind: tuple[int, int], rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """Return a handmade PNG. `kind` is (bit depth, colour type); each row begins with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, *kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def tiff(pixels: NDArray[np.generic], **tags: int) -> bytes:
    """Return a handmade little-endian TIFF whose directory follows the pixels, as libtiff writes it."""
    height, width = pixels.shape
    fields = {256: width, 257: height, 258: pixels.itemsize * 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    fields |= {279: pixels.nbytes} | {int(name.removeprefix("tag")): value for name, value in tags.items()}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    directory = struct.pack("<H", len(fields)) + entries + struct.pack("<L", 0)
    return b"II*\0" + struct.pack("<L", 8 + pixels.nbytes) + pixels.tobytes() + directory


def ok(data: bytes, side_px: int | None = None) -> NDArray[np.uint8]:
    decoded = decode(data, SPEC if side_px is None else ImageSpec(side_px=side_px))
    assert (decoded.status, decoded.reason) == (Status.OK, None), decoded
    assert decoded.pixels is not None
    return decoded.pixels


def rejected(data: bytes, spec: ImageSpec = SPEC) -> Frame:
    decoded = decode(data, spec)
    assert decoded.status is Status.REJECTED
    assert decoded.detail and "\n" not in decoded.detail and len(decoded.detail) < 100
    assert decoded.content_sha256 == hashlib.sha256(data).hexdigest()
    assert (decoded.pixels, decoded.pixels_sha256, decoded.width_px, decoded.height_px) == (None,) * 4
    return decoded


VALID = {
    "jpeg": encoded(GREY, "JPEG"),
    "jpeg_colour": encoded(RGB, "JPEG", exif=exif(orientation=6, description="x")),
    "jpeg_progressive": encoded(RGB, "JPEG", progressive=True),
    "png": encoded(GREY, "PNG"),
    "png_palette": encoded(in_mode("P"), "PNG", transparency=3),
    "png_16": encoded(GREY.astype(np.uint16) * 200, "PNG"),
    "tiff": encoded(GREY, "TIFF"),
    "tiff_lzw": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "tiff_jpeg": encoded(RGB, "TIFF", compression="jpeg"),
    "tiff_float": encoded(GREY.astype(np.float32), "TIFF"),
    "tiff_directory_last": tiff(GREY),
    "bmp": encoded(RGB, "BMP"),
    "bmp_palette": encoded(in_mode("P"), "BMP"),
}


# Results


@pytest.mark.parametrize("name", VALID)
def test_valid_picture_becomes_a_square_of_contiguous_rgb(name: str) -> None:
    decoded = decode(VALID[name], SPEC)
    assert decoded.status is Status.OK
    assert decoded.pixels is not None
    assert (decoded.pixels.shape, decoded.pixels.dtype) == ((SIDE, SIDE, 3), np.uint8)
    assert decoded.pixels.flags.c_contiguous
    assert decoded.format == name.split("_")[0].upper()
    turned = name == "jpeg_colour"
    assert (decoded.width_px, decoded.height_px) == ((24, 40) if turned else (40, 24))
    assert decoded.content_sha256 == hashlib.sha256(VALID[name]).hexdigest()


def test_picture_of_the_right_size_is_not_resampled() -> None:
    square = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    np.testing.assert_array_equal(ok(encoded(square, "PNG")), square)


def test_other_sizes_are_resampled_bicubically() -> None:
    expected = Image.fromarray(RGB).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(ok(encoded(RGB, "PNG")), np.asarray(expected))


def test_grey_stands_in_all_three_channels() -> None:
    pixels = ok(encoded(GREY, "PNG"))
    assert (pixels == pixels[:, :, :1]).all() and pixels.std() > 0


def test_copies_of_one_image_share_their_pixels_digest_across_formats() -> None:
    copies = [
        encoded(RGB, "PNG"),
        encoded(RGB, "BMP"),
        encoded(RGB, "TIFF"),
        encoded(RGB, "TIFF", compression="tiff_lzw"),
    ]
    assert len({decode(copy, SPEC).content_sha256 for copy in copies}) == 4
    assert len({decode(copy, SPEC).pixels_sha256 for copy in copies}) == 1


def test_pixels_digest_does_not_depend_on_the_model_side() -> None:
    small, large = (decode(VALID["png"], ImageSpec(side_px=side)) for side in (16, 64))
    assert small.pixels_sha256 == large.pixels_sha256 is not None


@pytest.mark.parametrize("name", VALID)
def test_the_pixels_do_not_depend_on_whether_their_digest_is_taken(name: str) -> None:
    plain, with_digest = (
        only(door.decode(VALID[name], SPEC, Reading(digests_pixels=wanted))) for wanted in (False, True)
    )
    assert plain.pixels_sha256 is None
    assert with_digest.pixels_sha256 is not None
    np.testing.assert_array_equal(plain.pixels, with_digest.pixels)


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF"])
def test_grey_is_read_alike_from_one_channel_and_from_three(kind: str) -> None:
    one, three = (decode(encoded(pixels, kind), SPEC) for pixels in (GREY, np.stack([GREY] * 3, axis=-1)))
    assert one.pixels_sha256 == three.pixels_sha256 is not None
    np.testing.assert_array_equal(one.pixels, three.pixels)


def test_pixels_digest_tells_shapes_apart() -> None:
    wide, tall = (encoded(np.zeros(shape, np.uint8), "PNG") for shape in ((20, 40), (40, 20)))
    assert decode(wide, SPEC).pixels_sha256 != decode(tall, SPEC).pixels_sha256


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    decoded = decode(encoded(RGB, kind, exif=exif(orientation=orientation)), SPEC)
    expected = np.ascontiguousarray(UPRIGHT[orientation](RGB))
    assert (decoded.height_px, decoded.width_px) == expected.shape[:2]
    assert decoded.pixels_sha256 == decode(encoded(expected, "PNG"), SPEC).pixels_sha256


def test_exif_orientation_of_a_jpeg_is_applied() -> None:
    plain, turned = encoded(GREY, "JPEG"), encoded(GREY, "JPEG", exif=exif(orientation=6))
    upright = np.ascontiguousarray(np.rot90(np.asarray(Image.open(io.BytesIO(plain))), -1))
    assert decode(turned, SPEC).pixels_sha256 == decode(encoded(upright, "PNG"), SPEC).pixels_sha256


def test_damaged_exif_does_not_reject_a_good_picture() -> None:
    sound = encoded(GREY, "JPEG", exif=exif(orientation=1, description="abcdefgh", x_resolution=72.0, unit=2))
    density = sound.index(b"JFIF\0") + 7
    sound = sound[:density] + b"\0" + sound[density + 1 :]  # without a JFIF density Pillow reads EXIF while opening
    start, end = sound.index(b"Exif\0\0") + 6, sound.index(b"\xff\xdb")
    draw = random.Random(0)
    for _ in range(1000):
        damaged = bytearray(sound)
        for _ in range(draw.choice((1, 2, 8))):
            damaged[draw.randrange(start, end)] = draw.choice((0, 1, 2, 5, 7, 12, 255, draw.randrange(256)))
        ok(bytes(damaged))


# Colour


def test_hidden_colour_under_full_transparency_becomes_black() -> None:
    rgba = np.dstack([RGB, np.zeros_like(GREY)])
    assert not ok(encoded(rgba, "PNG")).any()


def test_half_transparency_is_composed_on_black() -> None:
    rgba = np.full((20, 20, 4), (200, 100, 50, 128), np.uint8)
    np.testing.assert_allclose(ok(encoded(rgba, "PNG"))[5, 5], (100, 50, 25), atol=1)
    assert (ok(encoded(Image.fromarray(rgba).convert("LA"), "PNG")) < 70).all()


def test_transparent_palette_entry_becomes_black() -> None:
    picture = Image.new("P", (20, 20), 1)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    assert (ok(encoded(picture, "PNG")) == (0, 255, 0)).all()
    assert not ok(encoded(picture, "PNG", transparency=1)).any()
    assert not ok(encoded(picture, "PNG", transparency=bytes([7, 0]))).any()


def test_transparent_colour_of_an_opaque_mode_becomes_black() -> None:
    grey, colour = Image.new("L", (20, 20), 90), Image.new("RGB", (20, 20), (90, 80, 70))
    assert not ok(encoded(grey, "PNG", transparency=90)).any()
    assert ok(encoded(grey, "PNG", transparency=91)).all()
    assert not ok(encoded(colour, "PNG", transparency=(90, 80, 70))).any()


def test_premultiplied_grey_of_a_tiff_is_composed_on_black() -> None:
    half = encoded(np.full((20, 20, 2), (60, 120), np.uint8), "TIFF")
    premultiplied = half.replace(struct.pack("<HHLHH", 338, 3, 1, 2, 0), struct.pack("<HHLHH", 338, 3, 1, 1, 0))
    assert premultiplied != half
    np.testing.assert_allclose(ok(half), 60 * 120 // 255, atol=1)
    np.testing.assert_allclose(ok(premultiplied), 60, atol=1)


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("LAB", "TIFF")])
def test_other_colour_spaces_become_rgb(mode: str, kind: str) -> None:
    flat = Image.new("RGB", (20, 20), (200, 120, 40)).convert(mode)
    np.testing.assert_allclose(ok(encoded(flat, kind))[9, 9], (200, 120, 40), atol=4)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit_pictures_become_black_and_white(kind: str) -> None:
    checks = np.indices((SIDE, SIDE)).sum(axis=0) % 2 == 1
    np.testing.assert_array_equal(ok(encoded(checks, kind))[:, :, 0], np.where(checks, 255, 0))


# More than 8 bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("lowest", [0, 256])
def test_sixteen_bits_are_windowed_and_never_clipped(lowest: int, kind: str) -> None:
    values = np.linspace(lowest, 65535, 256 * 256).astype(np.uint16).reshape(256, 256)
    grey = ok(encoded(values, kind), side_px=256)[:, :, 0].ravel().astype(int)
    assert (np.diff(grey) >= 0).all()
    assert (grey[0], grey[-1], len(np.unique(grey))) == (0, 255, 256)


@pytest.mark.parametrize("dtype", [">u2", "<i4", "<f4"])
def test_deep_values_are_windowed_by_their_own_range(dtype: str) -> None:
    values = np.linspace(100, 4195, SIDE * SIDE).round().reshape(SIDE, SIDE)
    grey = ok(encoded(values.astype(dtype), "TIFF"))[:, :, 0]
    np.testing.assert_array_equal(grey, np.rint((values - 100) / 4095 * 255))


def test_unsigned_thirty_two_bits_keep_their_order() -> None:
    values = np.linspace(0, 2**32 - 1, SIDE * SIDE).astype("<u4").reshape(SIDE, SIDE)
    assert (np.diff(ok(tiff(values))[:, :, 0].ravel().astype(int)) >= 0).all()


def test_deep_white_is_zero_is_inverted() -> None:
    values = np.arange(SIDE * SIDE, dtype="<u2").reshape(SIDE, SIDE)
    plain, inverted = ok(tiff(values)), ok(tiff(values, tag262=0))
    np.testing.assert_allclose(plain.astype(int) + inverted, 255, atol=1)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_constant_deep_picture_becomes_black(dtype: type) -> None:
    assert not ok(encoded(np.full((20, 20), 7, dtype), "TIFF")).any()


def test_values_that_are_not_finite_count_as_the_least() -> None:
    values = np.linspace(-5, 5, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    values[3, :3] = np.nan, np.inf, -np.inf
    grey = ok(encoded(values, "TIFF"))[:, :, 0]
    assert not grey[3, :3].any()
    assert (grey[0, 0], grey[-1, -1]) == (0, 255)
    assert not ok(encoded(np.full((20, 20), np.nan, np.float32), "TIFF")).any()


def test_transparent_value_of_a_sixteen_bit_png_does_not_widen_the_window() -> None:
    row = b"\0" + struct.pack(">20H", 65535, *range(1000, 1019))
    grey = ok(png(20, 20, (16, 0), row * 20, (b"tRNS", b"\xff\xff")), side_px=20)[5, :, 0]
    assert (grey[0], grey[1], grey[-1]) == (0, 0, 255)


def test_sixteen_bit_colour_keeps_its_high_byte() -> None:
    row = b"\0" + struct.pack(">60H", *range(0, 60000, 1000))
    pixels = ok(png(20, 20, (16, 2), row * 20), side_px=20)
    np.testing.assert_array_equal(pixels[0].ravel(), np.arange(0, 60000, 1000) >> 8)


# Rejections


def test_no_bytes_become_empty() -> None:
    assert rejected(b"").reason is Reason.EMPTY


@pytest.mark.parametrize(
    "data", [b"\0", b"patient,age\n1,60\n", b"<html></html>", b"BMI report", bytes(999), b"\xff\xd8"]
)
def test_other_bytes_become_not_an_image(data: bytes) -> None:
    decoded = rejected(data)
    assert (decoded.reason, decoded.format) == (Reason.NOT_AN_IMAGE, None)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encoded(GREY, "GIF"), "GIF"),
        (encoded(RGB, "WEBP"), "WebP"),
        (encoded(RGB, "JPEG2000"), "JPEG 2000"),
        (encoded(RGB, "AVIF"), "AVIF"),
        (encoded(RGB, "ICO"), "ICO"),
        (encoded(RGB, "PDF"), "PDF"),
        (encoded(RGB, "PPM"), "Netpbm"),
        (b"8BPS\0\1" + bytes(20), "PSD"),
        (b"\0\0\0\x18ftypheic" + bytes(12), "HEIF"),
        (b"\xff\xd8\xff\xf7" + bytes(20), "JPEG-LS"),
        (struct.pack("<L", 348) + bytes(340) + b"ni1\0", "NIfTI"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(20), "7z"),
        (b"Rar!\x1a\x07\x00" + bytes(20), "RAR"),
    ],
)
def test_known_but_unread_format_becomes_unsupported_format_with_its_name(data: bytes, name: str) -> None:
    decoded = rejected(data)
    assert (decoded.reason, decoded.format) == (Reason.UNSUPPORTED_FORMAT, None)
    assert decoded.detail is not None and name in decoded.detail


@pytest.mark.parametrize("share", [0.02, 0.5, 0.85])
@pytest.mark.parametrize("name", VALID)
def test_cut_file_becomes_truncated(name: str, share: float) -> None:
    data = VALID[name]
    decoded = rejected(data[: max(26, int(len(data) * share))])
    assert (decoded.reason, decoded.format) == (Reason.TRUNCATED, name.split("_")[0].upper())


def test_cut_behind_the_last_pixel_is_no_fault() -> None:
    data = VALID["png"]
    assert decode(data[:-12], SPEC).pixels_sha256 == decode(data, SPEC).pixels_sha256 is not None


def test_cut_jpeg_with_a_whole_thumbnail_becomes_truncated() -> None:
    block = b"Exif\0\0" + encoded(GREY, "JPEG")
    data = encoded(RGB, "JPEG", exif=block)
    assert rejected(data[: len(block) + 300]).reason is Reason.TRUNCATED


def test_damaged_pixel_data_becomes_corrupt() -> None:
    data = bytearray(encoded(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), "PNG"))
    data[1500:1510] = bytes(10)
    assert rejected(bytes(data)).reason is Reason.CORRUPT


def test_palette_png_without_its_palette_becomes_corrupt() -> None:
    assert rejected(png(20, 20, (8, 3), bytes(21 * 20))).reason is Reason.CORRUPT


def test_tiff_with_fewer_strips_than_rows_becomes_corrupt() -> None:
    assert rejected(tiff(GREY, tag278=12)).reason is Reason.CORRUPT


def test_pixel_count_over_the_cap_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: ImageFile.ImageFile) -> None:
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", never)
    decoded = rejected(png(20_000, 20_000, (8, 0), bytes(1000)))
    assert (decoded.reason, decoded.format) == (Reason.TOO_LARGE, "PNG")
    assert decoded.detail is not None and "20000 x 20000" in decoded.detail
    assert rejected(png(2**31 - 1, 2**31 - 1, (8, 0), b"")).reason is Reason.TOO_LARGE


def test_caps_are_inclusive() -> None:
    data = VALID["png"]
    assert decode(data, ImageSpec(side_px=8, max_pixels=GREY.size, max_bytes=len(data))).status is Status.OK
    assert rejected(data, ImageSpec(side_px=8, max_pixels=GREY.size - 1)).reason is Reason.TOO_LARGE
    assert rejected(data, ImageSpec(side_px=8, max_bytes=len(data) - 1)).reason is Reason.TOO_LARGE


def test_tile_that_dwarfs_its_tiff_becomes_too_large() -> None:
    assert rejected(tiff(GREY, tag322=2**15, tag323=2**15)).reason is Reason.TOO_LARGE


def test_short_side_becomes_too_small() -> None:
    assert rejected(encoded(np.zeros((MIN_SIDE_PX - 1, 200), np.uint8), "PNG")).reason is Reason.TOO_SMALL
    ok(encoded(np.zeros((MIN_SIDE_PX, 200), np.uint8), "PNG"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_animation_or_stack_becomes_multiple_frames(kind: str) -> None:
    more = [Image.fromarray(255 - GREY)]
    assert rejected(encoded(GREY, kind, save_all=True, append_images=more)).reason is Reason.MULTIPLE_FRAMES


def test_camera_jpeg_with_a_preview_behind_it_gives_the_picture() -> None:
    plain = encoded(GREY, "JPEG")
    with_preview = encoded(GREY, "MPO", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    decoded = decode(with_preview, SPEC)
    assert (decoded.status, decoded.format) == (Status.OK, "JPEG")
    assert decoded.pixels_sha256 == decode(plain, SPEC).pixels_sha256


def test_stereo_pair_becomes_multiple_frames() -> None:
    pair = bytearray(encoded(GREY, "MPO", save_all=True, append_images=[Image.fromarray(255 - GREY)]))
    first = pair.rindex(struct.pack("<L", 0x030000), 0, 126)  # the MPF block ends at 126, with 16 bytes a picture
    pair[first + 16 : first + 20] = struct.pack("<L", 0x020002)  # disparity
    assert rejected(bytes(pair)).reason is Reason.MULTIPLE_FRAMES


@pytest.mark.parametrize("name", VALID)
def test_damaged_bytes_never_raise(name: str) -> None:
    draw = random.Random(name)
    spec = ImageSpec(side_px=SIDE, max_pixels=1_000_000)
    for _ in range(100):
        data = bytearray(VALID[name])
        for _ in range(draw.choice((1, 1, 2, 8))):
            data[draw.randrange(draw.choice((min(200, len(data)), len(data))))] = draw.randrange(256)
        if draw.random() < 0.3:
            del data[draw.randrange(len(data)) :]
        decoded = decode(bytes(data), spec)
        if decoded.status is Status.OK:
            assert decoded.reason is None and decoded.pixels is not None
            assert decoded.pixels.shape == (SIDE, SIDE, 3)
        else:
            assert rejected(bytes(data), spec).reason is not None


def test_out_of_memory_is_the_machines_fault_and_is_not_a_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: ImageFile.ImageFile) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    with pytest.raises(MemoryError):
        decode(VALID["png"], SPEC)


# Side effects


ODD_TAGS = tiff(GREY, tag282=7, tag283=7)
ODD_TAGS = ODD_TAGS.replace(struct.pack("<HHLL", 282, 4, 1, 7), struct.pack("<HHLL", 282, 5, 999, 7))


def test_pillows_warnings_do_not_leak_out() -> None:
    with pytest.warns(UserWarning), Image.open(io.BytesIO(ODD_TAGS)) as image:
        image.load()  # Pillow itself warns about this file
    ok(ODD_TAGS)


def test_text_of_the_header_reaches_neither_detail_nor_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    named = encoded(GREY, "TIFF", description="DOE^JANE")
    assert b"DOE^JANE" in named
    shown = [
        repr(decode(data, SPEC)) for data in (named, named[:300], png(20, 20, (8, 9), b"", (b"tEXt", b"DOE^JANE")))
    ]
    assert "JANE" not in caplog.text + "".join(shown)


def test_truncated_images_stay_refused_by_pillow() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_threads_get_what_one_thread_gets() -> None:
    files = [*VALID.values(), ODD_TAGS, *(data[: len(data) // 2] for data in VALID.values())] * 8
    alone = [decode(data, SPEC) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, SPEC), files))
    assert together == alone
    for alone_frame, frame in zip(alone, together, strict=True):
        np.testing.assert_array_equal(alone_frame.pixels, frame.pixels)


@pytest.mark.parametrize("numbers", [{"side_px": 0}, {"side_px": 8, "max_pixels": 0}, {"side_px": 8, "max_bytes": -1}])
def test_spec_without_room_for_a_picture_is_a_config_error(numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ImageSpec(**numbers)
