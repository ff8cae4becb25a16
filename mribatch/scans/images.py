"""Decode the bytes of one picture file into model input. Pure functions: no Ray, no TensorFlow, no I/O, no DICOM.

The bytes alone decide what a file is; names and extensions are never seen. A picture is decoded in full, set
upright by its EXIF orientation, brought to 8-bit RGB and stretched to a square (ImageNet's preprocessing, as the
reference models had it: the aspect ratio is not kept). Embedded colour profiles are not applied.
"""

import hashlib
import io
import logging
import struct
import threading
import warnings
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL import TiffImagePlugin as Tag
from PIL.ExifTags import Base
from PIL.MpoImagePlugin import MpoImageFile
from PIL.TiffImagePlugin import TiffImageFile

from mribatch.errors import ConfigError
from mribatch.scans.formats import RejectionError, ends_early, sniffed
from mribatch.schema import Reason, Status

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MIN_SIDE_PX", "Decoded", "ImageSpec", "decode"]

MIN_SIDE_PX = 16  # a quarter of the coarsest clinical matrix (64): below it are icons and tracking pixels
MAX_PIXELS = 100_000_000  # several times the largest radiograph; takes 1-2 GB of memory while it is decoded
MAX_BYTES = 1 << 30  # MAX_PIXELS at 8 bytes (four channels of 16 bits, not compressed), and metadata

# Register the decoders now (TIFF and MPO came with their import): at the first open, threads would race to.
Image.preinit()
# Pillow's own limit is one number for the process, and warns; ImageSpec's cap stands before each decode instead.
Image.MAX_IMAGE_PIXELS = None
# At DEBUG Pillow logs the value of every TIFF tag, and a tag may hold a patient's name.
logging.getLogger("PIL").setLevel(logging.CRITICAL)

_TURNS = {  # what sets a picture upright, by EXIF orientation (CIPA DC-008, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HOSTILE = (  # what Pillow raises on hostile bytes: by its source, and by some 200,000 damaged files
    OSError,  # its usual one, and UnidentifiedImageError
    SyntaxError,  # broken structure, met after opening
    ValueError,  # impossible sizes and offsets; UnicodeDecodeError
    TypeError,  # a tag of an unexpected type
    IndexError,  # an empty chunk after the pixels
    OverflowError,  # a number that C cannot hold
    struct.error,  # a short read
)
# Not MemoryError: the caps bound what a file may ask for, so it tells of the machine and not of the scan.


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """What a model takes (`side_px`), and what is refused before it is decoded."""

    side_px: int
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        if min(self.side_px, self.max_pixels, self.max_bytes) < 1:
            raise ConfigError(f"side_px and the caps are counts from 1 on, got {self}: correct them")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One picture, or why there is none. `detail` is fit for a report: no path, no header text."""

    status: Status
    reason: Reason | None = None
    detail: str | None = None
    content_sha256: str | None = None  # of the file's bytes
    format: str | None = None  # Pillow's name: JPEG, PNG, TIFF, BMP; None where the bytes are of none of them
    width_px: int | None = None  # as displayed, after EXIF orientation; None unless ok, as all that follows
    height_px: int | None = None
    pixels_sha256: str | None = None  # of shape and RGB pixels before resizing: equal for copies of one image
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """(side, side, 3) uint8 RGB, C-contiguous, read-only."""


def decode(data: bytes, spec: ImageSpec) -> Decoded:
    """The picture in `data` as (side, side, 3) uint8 RGB, or the reason why there is none.

    A file cut behind its last pixel is whole enough.
    No bytes make it raise; only the machine does (MemoryError). Any number of threads may call it.

    Greyscale deeper than 8 bits (16 and 32 bits, float) is windowed to 0…255 by its own least and greatest finite
    value and never clipped; a constant picture becomes 0, and NaN and infinities count as the least value. Of
    16-bit *colour* Pillow shows the high bytes only: neither clipped nor windowed. Alpha is composed on black.
    """
    digest = hashlib.sha256(data).hexdigest()
    name: str | None = None
    try:
        name = sniffed(data, spec.max_bytes)
        image = _opened(data, name, spec)
    except RejectionError as fault:
        refused = Decoded(status=Status.REJECTED, content_sha256=digest, format=name)
        return replace(refused, reason=fault.reason, detail=fault.detail)
    whole = hashlib.sha256(b"%dx%dx3:" % image.size)
    whole.update(image.tobytes())
    square = (spec.side_px, spec.side_px)
    # Pillow's bicubic kernel widens as it shrinks, so large scans do not alias.
    resized = image if image.size == square else image.resize(square, Image.Resampling.BICUBIC)
    return Decoded(
        status=Status.OK,
        content_sha256=digest,
        format=name,
        width_px=image.width,
        height_px=image.height,
        pixels_sha256=whole.hexdigest(),
        pixels=np.asarray(resized),
    )


def _opened(data: bytes, name: str, spec: ImageSpec) -> Image.Image:
    """The whole picture: checked by its header first, then decoded, upright, RGB."""
    _hush_pillow()
    try:
        with _identified(data, name) as image:
            _check_header(image, spec)
            if isinstance(image, TiffImageFile):
                _check_strips(image, len(data), spec)
                image.info.pop("xmp", None)  # Pillow stumbles over XMP kept as text; a TIFF turns by its own tag
            image.load()
            return _rgb(_upright(image))
    except _HOSTILE as err:
        if "truncated" in str(err).lower() or ends_early(data, name):
            raise RejectionError(Reason.TRUNCATED, f"the {name} file ends before its data does") from err
        raise RejectionError(Reason.CORRUPT, f"the {name} file is damaged or of a kind not read here") from err


def _identified(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=[name])
    except UnidentifiedImageError:
        # Pillow looks up a JPEG's resolution in its EXIF block and gives up on some damaged ones: hide the block.
        return Image.open(io.BytesIO(data.replace(b"Exif\0\0", bytes(6))), formats=[name])


_hush_lock = threading.Lock()
_hush: list[object] = []  # the filter, once it is set


def _hush_pillow() -> None:
    """Keep Pillow's warnings (odd EXIF, odd TIFF tags) from leaking out, and from raising under `-W error`.

    `warnings.catch_warnings` is no help: it swaps the filters of the whole process and so races between threads.
    """
    if _hush and warnings.filters[:1] == _hush:
        return
    with _hush_lock:
        if not _hush or warnings.filters[:1] != _hush:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _hush[:] = warnings.filters[:1]


def _check_header(image: Image.Image, spec: ImageSpec) -> None:
    width, height = image.size
    if width * height > spec.max_pixels:
        raise RejectionError(Reason.TOO_LARGE, f"{width} x {height} pixels exceed the cap of {spec.max_pixels}")
    if min(width, height) < MIN_SIDE_PX:
        raise RejectionError(Reason.TOO_SMALL, f"{width} x {height} pixels: a side is shorter than {MIN_SIDE_PX}")
    if getattr(image, "is_animated", False) and not _leads(image):
        raise RejectionError(Reason.MULTIPLE_FRAMES, "the file holds more than one picture")


def _leads(image: Image.Image) -> bool:
    """Whether the first of several pictures is the one meant: in a camera's JPEG with previews or maps behind it
    (MPO, CIPA DC-007), but not in a panorama, a stereo pair or a series of angles, nor in any other format."""
    if not isinstance(image, MpoImageFile) or image.mpinfo is None:
        return False
    first, *others = (entry["Attribute"]["MPType"] for entry in image.mpinfo[0xB002])
    return first == "Baseline MP Primary Image" and not any(kind.startswith("Multi-Frame") for kind in others)


def _check_strips(image: TiffImageFile, size: int, spec: ImageSpec) -> None:
    """What Pillow leaves black or grey without a word, and a tile that dwarfs its picture."""
    tags = image.tag_v2
    if tags.get(Tag.TILEWIDTH, 0) * tags.get(Tag.TILELENGTH, 0) > spec.max_pixels:
        raise RejectionError(Reason.TOO_LARGE, f"the pixels of a TIFF tile exceed the cap of {spec.max_pixels}")
    boxes = [tile.extents or (0, 0, 0, 0) for tile in image.tile]
    if sum((right - left) * (low - top) for left, top, right, low in boxes) < image.width * image.height:
        raise RejectionError(Reason.CORRUPT, "the TIFF file has fewer strips than its size needs")
    if image.info["compression"] == "raw":
        return  # Pillow reads these itself and misses no byte
    starts = tags.get(Tag.STRIPOFFSETS) or tags.get(Tag.TILEOFFSETS, ())
    counts = tags.get(Tag.STRIPBYTECOUNTS) or tags.get(Tag.TILEBYTECOUNTS, ())
    if any(start + count > size for start, count in zip(starts, counts, strict=False)):
        raise RejectionError(Reason.TRUNCATED, "the TIFF file ends before its data does")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says. Pillow itself turns a TIFF, while loading, and takes the tag away."""
    try:
        turn = _TURNS.get(image.getexif().get(Base.Orientation, 1))
    except _HOSTILE:  # a damaged EXIF block, beside pixels that are sound
        return image
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode: deep greyscale windowed, alpha composed on black, the rest as Pillow converts it."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_windowed(_deep(image))).convert("RGB")
    if image.mode == "P" and image.palette is None:
        raise RejectionError(Reason.CORRUPT, "the PNG file has colours by number and lacks their table")
    if image.mode == "La":
        image = image.convert("LA")  # Pillow goes no other way from premultiplied grey
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    black = Image.new("RGB", image.size)
    black.paste(clear, mask=clear.getchannel("A"))
    return black


def _deep(image: Image.Image) -> NDArray[np.float64]:
    """The values of a greyscale picture deeper than 8 bits, brighter upwards; NaN where it is transparent."""
    stored: NDArray[np.generic] = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    unsigned = tags.get(Tag.BITSPERSAMPLE) == (32,) and tags.get(Tag.SAMPLEFORMAT, (1,)) == (1,)
    if image.mode == "I" and unsigned:
        stored = stored.view(np.uint32)  # Pillow shows unsigned 32 bits as signed: from 2**31 on, below zero
    with np.errstate(invalid="ignore"):  # of a signalling NaN
        values = stored.astype(np.float64)  # exact
    if tags.get(Tag.PHOTOMETRIC_INTERPRETATION) == 0:
        values = -values  # zero is white, which Pillow heeds up to 8 bits only
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        values[values == clear] = np.nan
    return values


def _windowed(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """`values` (height, width) from their least to their greatest finite one as 0…255, what is not finite as 0."""
    finite = np.isfinite(values)
    low = np.min(values, where=finite, initial=np.inf)
    high = np.max(values, where=finite, initial=-np.inf)
    if not low < high:
        return np.zeros(values.shape, np.uint8)
    scaled = (values - low) * (255 / (high - low))
    scaled[~finite] = 0
    return np.rint(scaled).astype(np.uint8)
