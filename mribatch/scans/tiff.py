"""Read TIFF files of any depth, sign, byte order and layout (grey, palette or colour) as 8 bits."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mribatch.scans.formats import RejectionError
from mribatch.scans.limits import ImageSpec, check_memory, check_size
from mribatch.scans.pictures import ArrayPicture, on_black
from mribatch.scans.tiff_directory import Directory, Tag, main_directory
from mribatch.scans.tiff_segments import FLOAT, UNSIGNED, Segments
from mribatch.scans.window import Window
from mribatch.schema import Reason

__all__ = ["tiff_picture"]

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR, _CIELAB = 0, 1, 2, 3, 5, 6, 8
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _SEPARATED: 4, _YCBCR: 3, _CIELAB: 3}
_CMYK_INKS = 1
_MULTIPLIED_ALPHA, _STRAIGHT_ALPHA = 1, 2  # ExtraSamples; colours with multiplied alpha are on black already
_MOST_PALETTE_BITS = 16
_MOST_SCALED_BITS = {1: 8, 3: 16}  # of unsigned values scaled by the range of their bits: grey, colour

_Shader = Callable[[NDArray[Any]], NDArray[np.uint8]]  # (rows, columns, channels) to (rows, columns[, 3])


def tiff_picture(data: bytes, spec: ImageSpec) -> ArrayPicture:
    """Return the picture of a TIFF file. Raises RejectionError, also for anything ambiguous."""
    page = main_directory(data)
    check_size(*page.size, spec)
    if page.number(Tag.TILE_WIDTH, 0) * page.number(Tag.TILE_LENGTH, 0) > spec.max_pixels:
        raise RejectionError(Reason.TOO_LARGE, f"the pixels of a TIFF tile exceed the cap of {spec.max_pixels}")
    segments = Segments(data, page)
    photometric = _photometric(page, segments)
    alpha = _alpha_channel(page, _CHANNELS[photometric], segments.samples)
    is_grey = photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    shape = (segments.height, segments.width) if is_grey else (segments.height, segments.width, 3)
    check_memory(len(data), math.prod(shape) + segments.memory_bytes, spec)
    channels = list(range(_CHANNELS[photometric]))
    shade = _shader(page, segments, photometric, alpha)
    pixels = np.empty(shape, np.uint8)
    for rows, columns, values in segments.blocks(channels if alpha is None else [*channels, alpha]):
        shades = shade(values[:, :, channels])
        pixels[rows, columns] = shades if alpha is None else on_black(shades, _alpha(values[:, :, -1], segments))
    turn = page.number(Tag.ORIENTATION, 1)
    return ArrayPicture(pixels, turn if turn in range(1, 9) else 1)


def _photometric(page: Directory, segments: Segments) -> int:
    """Return the photometric interpretation. Raises RejectionError unless it is supported."""
    photometric = page.number(Tag.PHOTOMETRIC, -1)
    if photometric == -1:
        raise RejectionError(Reason.CORRUPT, "the TIFF file lacks its photometric interpretation")
    if photometric == _YCBCR and segments.is_jpeg:
        return _RGB  # decoding converts it
    is_integer = segments.sample_format == UNSIGNED
    is_readable = {
        _PALETTE: is_integer and segments.bits <= _MOST_PALETTE_BITS and not segments.is_jpeg,
        _SEPARATED: is_integer and segments.bits in (8, 16) and page.number(Tag.INK_SET, _CMYK_INKS) == _CMYK_INKS,
        _YCBCR: is_integer and segments.bits == 8 and page.numbers(Tag.YCBCR_SUBSAMPLING) == [1, 1],
        _CIELAB: is_integer and segments.bits == 8,
    }.get(photometric, photometric in _CHANNELS)
    if not is_readable:
        raise RejectionError(Reason.UNSUPPORTED_FORMAT, "the TIFF file has an unsupported colour space")
    if segments.samples < _CHANNELS[photometric]:
        raise RejectionError(Reason.CORRUPT, "the TIFF file has fewer channels than its colours need")
    return photometric


def _alpha_channel(page: Directory, colours: int, samples: int) -> int | None:
    """Return the index of the straight alpha channel, or None."""
    extra = page.numbers(Tag.EXTRA_SAMPLES)[: samples - colours]
    if colours == 1 and samples > 2 and not set(extra) & {_STRAIGHT_ALPHA, _MULTIPLIED_ALPHA}:
        raise RejectionError(Reason.UNSUPPORTED_FORMAT, "the TIFF file has channels of no known meaning")
    return colours + extra.index(_STRAIGHT_ALPHA) if _STRAIGHT_ALPHA in extra else None


def _shader(page: Directory, segments: Segments, photometric: int, alpha: int | None) -> _Shader:
    """Return a function that turns the values of the colour channels into 8 bits."""
    if photometric == _PALETTE:
        return _palette_shader(page, segments.bits)
    if photometric in (_SEPARATED, _YCBCR, _CIELAB):
        return partial(_through_pillow, bits=segments.bits, photometric=photometric)
    colours, is_inverted = _CHANNELS[photometric], photometric == _WHITE_IS_ZERO
    if segments.sample_format == UNSIGNED and segments.bits <= _MOST_SCALED_BITS[colours]:
        return partial(_scaled, bits=segments.bits, is_inverted=is_inverted)
    window = Window(inverted=is_inverted)
    channels = list(range(colours))
    for _, _, values in segments.blocks(channels if alpha is None else [*channels, alpha], again=True):
        shown = None if alpha is None else _alpha(values[:, :, -1], segments) > 0
        window.include(values[:, :, channels], shown)
    return lambda values: _grey_or_rgb(window.shade(values))


def _grey_or_rgb(shades: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return shades[:, :, 0] if shades.shape[2] == 1 else shades


def _scaled(values: NDArray[Any], *, bits: int, is_inverted: bool) -> NDArray[np.uint8]:
    """Scale unsigned values by the range of their bits. Of more than 8 bits, take the high ones."""
    if bits > 8:
        shades = (values >> (bits - 8)).astype(np.uint8)
    elif bits < 8:
        table = np.rint(np.arange(256) % (1 << bits) * (255 / ((1 << bits) - 1))).astype(np.uint8)
        shades = table[values.astype(np.uint8)]
    else:
        shades = values
    return _grey_or_rgb(255 - shades if is_inverted else shades)


def _palette_shader(page: Directory, bits: int) -> _Shader:
    colours = page.values.get(Tag.COLOR_MAP, np.empty(0, np.uint16))
    if colours.size < 3 << bits:
        raise RejectionError(Reason.CORRUPT, "the TIFF file lacks its palette")
    table = (colours[: 3 << bits].astype(np.uint16) >> 8).astype(np.uint8).reshape(3, -1).T
    return lambda values: table[values[:, :, 0].astype(np.uint16)]


def _through_pillow(values: NDArray[Any], *, bits: int, photometric: int) -> NDArray[np.uint8]:
    """Convert CMYK, YCbCr or CIELAB to RGB."""
    eight = np.ascontiguousarray((values >> (bits - 8)).astype(np.uint8))
    mode = {_SEPARATED: "CMYK", _YCBCR: "YCbCr", _CIELAB: "LAB"}[photometric]
    image = Image.frombytes(mode, (eight.shape[1], eight.shape[0]), eight.tobytes(), "raw", mode)
    return np.asarray(image.convert("RGB"))


def _alpha(values: NDArray[Any], segments: Segments) -> NDArray[np.uint8]:
    """Scale alpha of any depth to 0…255. Only fully transparent values become 0."""
    if segments.sample_format == FLOAT:
        share = np.clip(np.nan_to_num(values.astype(np.float64)), 0, 1)
    else:
        most = 2.0 ** (segments.bits - (segments.sample_format != UNSIGNED)) - 1
        share = np.clip(values.astype(np.float64) / most, 0, 1)
    return np.where(share > 0, np.maximum(np.rint(share * 255), 1), 0).astype(np.uint8)
