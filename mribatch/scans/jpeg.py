"""Read JPEG files: 8 bits, Huffman coded, sequential or progressive; grey, colour or CMYK."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.MpoImagePlugin import MpoImageFile

from mribatch.scans.formats import RejectionError
from mribatch.scans.jpeg_segments import HUFFMAN_FRAMES, JpegSegments, plain_stream, read_segments
from mribatch.scans.limits import ImageSpec, check_memory, check_size
from mribatch.scans.orientation import orientation
from mribatch.scans.pictures import ArrayPicture
from mribatch.scans.pillow import HOSTILE, hush
from mribatch.scans.strict_jpeg import SPACES, StreamError, stream_pixels
from mribatch.scans.zero_holes import has_zero_hole
from mribatch.schema import Reason

__all__ = ["check_frame", "jpeg_picture", "sound_pixels"]


def jpeg_picture(data: bytes, spec: ImageSpec) -> ArrayPicture:
    """Return the picture of a JPEG file. Raises RejectionError, also for any damage that libjpeg warns of."""
    jpeg = read_segments(data)
    check_frame(jpeg)
    check_size(jpeg.width, jpeg.height, spec)
    if jpeg.has_picture_index and not _is_first_the_primary(data):
        raise RejectionError(Reason.MULTIPLE_FRAMES, "the file holds more than one picture")
    check_memory(len(data), _decoded_bytes(jpeg, len(data)), spec)
    pixels = sound_pixels(jpeg, data)
    if len(jpeg.sampling) == 4:
        np.subtract(255, pixels, out=pixels)  # CMYK of Adobe and most other writers is inverted
    return ArrayPicture(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, orientation(jpeg.exif, jpeg.xmp))


def check_frame(jpeg: JpegSegments) -> None:
    """Check that the kind of frame is supported. Raises RejectionError."""
    if not jpeg.frame:
        raise _damaged(jpeg)
    if jpeg.frame not in HUFFMAN_FRAMES:
        detail = "lossless, arithmetic or hierarchical JPEG files are not supported"
    elif jpeg.precision != 8:
        detail = f"JPEG files of {jpeg.precision} bits are not supported"
    elif len(jpeg.sampling) not in SPACES:
        detail = f"JPEG files of {len(jpeg.sampling)} components are not supported"
    elif jpeg.height == 0:
        detail = "JPEG files that give their height at the end are not supported"
    else:
        return
    raise RejectionError(Reason.UNSUPPORTED_FORMAT, detail)


def sound_pixels(jpeg: JpegSegments, data: bytes) -> NDArray[np.uint8]:
    """Return the pixels, (height, width, components), CMYK as stored. Raises RejectionError for damage."""
    if not jpeg.scans or not jpeg.is_complete() or jpeg.is_too_short():
        raise _damaged(jpeg)
    try:
        pixels = stream_pixels(plain_stream(jpeg, data, jpeg.scans), len(jpeg.sampling))
    except StreamError as err:
        unpadded = jpeg.without_padding(data)
        if unpadded == jpeg:
            raise _damaged(jpeg) from err
        return sound_pixels(unpadded, data)
    if has_zero_hole(data, jpeg):
        raise RejectionError(Reason.CORRUPT, "the JPEG file has zeros in place of data")
    return pixels


def _damaged(jpeg: JpegSegments) -> RejectionError:
    if not jpeg.is_ended:
        return RejectionError(Reason.TRUNCATED, "the JPEG file ends before its data is complete")
    return RejectionError(Reason.CORRUPT, "the JPEG file is damaged or incomplete")


def _decoded_bytes(jpeg: JpegSegments, file_bytes: int) -> int:
    """Return what decoding allocates: plain stream, pixels and, for several scans, all coefficients (16 bits)."""
    pixels = (jpeg.width + 32) * (jpeg.height + 32)
    if len(jpeg.scans) == 1 and not jpeg.is_progressive:
        return file_bytes + pixels * len(jpeg.sampling)
    widest = max(horizontal for horizontal, _ in jpeg.sampling.values())
    tallest = max(vertical for _, vertical in jpeg.sampling.values())
    if not widest * tallest:
        raise _damaged(jpeg)
    share = sum(h * v for h, v in jpeg.sampling.values()) / (widest * tallest)
    return file_bytes + pixels * len(jpeg.sampling) + int(2 * pixels * share)


def _is_first_the_primary(data: bytes) -> bool:
    """Return whether the first of several pictures is the main one (MPO, CIPA DC-007).

    It is in a camera's JPEG that is followed by previews or maps, but not in a panorama, a stereo pair or a series of
    angles.
    """
    hush()
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if not isinstance(image, MpoImageFile) or image.mpinfo is None or not image.is_animated:
                return True
            first, *others = (entry["Attribute"]["MPType"] for entry in image.mpinfo[0xB002])
    except (*HOSTILE, KeyError):  # a damaged index does not make the pixels unusable
        return True
    return first == "Baseline MP Primary Image" and not any(kind.startswith("Multi-Frame") for kind in others)
