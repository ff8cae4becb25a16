"""Decode JPEG streams with libjpeg-turbo, treating every warning as an error."""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["SPACES", "StreamError", "is_decodable", "misses_data", "stream_pixels"]

SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}  # the space to decode to, by number of components

_MISSING = ("remature end", "bad Huffman code", "instead of RST")  # warnings of libjpeg: pixels after them are made up


class StreamError(Exception):
    """libjpeg-turbo warned of damage or gave up. Never leaves this room."""


def stream_pixels(stream: bytes, components: int) -> NDArray[np.uint8]:
    """Return the pixels, (height, width, components). Raises StreamError, RejectionError, MemoryError."""
    return _decoded(stream, SPACES[components], 1)


def is_decodable(stream: bytes, components: int) -> bool:
    """Return whether a plain stream is complete, by decoding it at an eighth of the size. Raises MemoryError."""
    try:
        _decoded(stream, "CMYK" if components == 4 else "GRAY", 8)
    except StreamError:
        return False
    return True


def misses_data(stream: bytes, components: int, *, is_lossless: bool) -> bool:
    """Return whether libjpeg-turbo would make up pixels of a stream of 8 bits. Raises MemoryError.

    False for streams that it cannot decode for other reasons.
    """
    try:
        _decoded(stream, SPACES[components], 1 if is_lossless else 8)
    except StreamError as err:
        return any(words in str(err) for words in _MISSING)
    except RejectionError:
        return False
    return False


def _decoded(stream: bytes, space: str, factor: int) -> NDArray[np.uint8]:
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(stream, space, min_factor=factor, strict=True)
    except ValueError as err:
        message = str(err)
        if "emory" in message:
            raise MemoryError from None
        if "subsampling" in message:
            detail = "the JPEG file has unsupported chroma subsampling"
            raise RejectionError(Reason.UNSUPPORTED_FORMAT, detail) from None
        raise StreamError(message) from None
    return pixels
