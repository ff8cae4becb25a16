"""Define the limits on size and memory of a scan, and check the claims of its header against them."""

from dataclasses import dataclass, replace

from mribatch.errors import ConfigError
from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = [
    "MAX_BYTES",
    "MAX_MEMORY_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE_PX",
    "ImageSpec",
    "beside",
    "check_memory",
    "check_ratio",
    "check_size",
]

MIN_SIDE_PX = 16  # a quarter of the coarsest clinical matrix (64); smaller images are icons and tracking pixels
MAX_PIXELS = 100_000_000  # several times the largest radiograph
MAX_BYTES = 850_000_000  # MAX_PIXELS at 8 bytes (float64, or four channels of 16 bits), and metadata
MAX_MEMORY_BYTES = 1_850_000_000
"""The file twice (in the process that read it and in the one that decodes it) and all that decoding allocates."""
MAX_MEMBERS = 20_000  # entries of an archive; a study of functional MR has about as many slices
MAX_UNPACKED_BYTES = 4_000_000_000  # an archive of MAX_BYTES, compressed as well as scans are
MAX_RATIO = 100  # scans reach 10, zeros 1,000
_FREE_RATIO_BYTES = 64_000_000  # what unpacks to less may be compressed at any ratio
_STRIP_BYTES = 80_000_000  # for conversion to RGB, digest and resizing, at any size


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The image side that a model needs, and the limits above which a scan is rejected before it is decoded."""

    side_px: int
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    max_memory_bytes: int = MAX_MEMORY_BYTES
    max_members: int = MAX_MEMBERS
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES
    max_ratio: int = MAX_RATIO

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1:
            raise ConfigError(f"side_px and the limits must be 1 or more, got {self}: correct them")


def check_size(width: int, height: int, spec: ImageSpec) -> None:
    """Check the width and height of a picture in pixels. Raises RejectionError."""
    if width * height > spec.max_pixels:
        raise RejectionError(Reason.TOO_LARGE, f"{width} x {height} pixels exceed the cap of {spec.max_pixels}")
    if min(width, height) < MIN_SIDE_PX:
        raise RejectionError(Reason.TOO_SMALL, f"{width} x {height} pixels: a side is shorter than {MIN_SIDE_PX}")


def check_memory(file_bytes: int, decoded_bytes: int, spec: ImageSpec) -> None:
    """Check the memory that decoding will take according to the header. Raises RejectionError."""
    needed = 2 * file_bytes + decoded_bytes + _STRIP_BYTES
    if needed > spec.max_memory_bytes:
        detail = f"decoding takes {needed >> 20} MiB, more than the cap of {spec.max_memory_bytes >> 20}"
        raise RejectionError(Reason.TOO_LARGE, detail)


def check_ratio(unpacked_bytes: int, packed_bytes: int, spec: ImageSpec, free_bytes: int = _FREE_RATIO_BYTES) -> None:
    """Check how much smaller compression made some bytes. Up to `free_bytes` any ratio passes. Raises RejectionError."""
    if unpacked_bytes > max(free_bytes, packed_bytes * spec.max_ratio):
        detail = (
            f"{packed_bytes} bytes unpack to over {unpacked_bytes >> 20} MiB, more than {spec.max_ratio} times as many"
        )
        raise RejectionError(Reason.TOO_LARGE, detail)


def beside(packed_bytes: int, spec: ImageSpec) -> ImageSpec:
    """Return the limits for what is unpacked while the packed bytes stay in memory, in two processes."""
    return replace(spec, max_memory_bytes=max(1, spec.max_memory_bytes - 2 * packed_bytes))
