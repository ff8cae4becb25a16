"""Recognize the format of a file by its first bytes.

The supported formats are those that archives export. Each additional codec would be one more to attack.
"""

from mribatch.errors import MribatchError
from mribatch.scans.dicom.start import is_dicom
from mribatch.schema import Reason

__all__ = ["ARCHIVES", "DICOM", "GZIP", "NIFTI", "TAR", "UNKNOWN", "ZIP", "RejectionError", "sniffed"]

DICOM, NIFTI = "DICOM", "NIfTI"
GZIP, TAR, ZIP = "gzip", "TAR", "ZIP"
ARCHIVES = frozenset({TAR, ZIP})

UNKNOWN = frozenset({Reason.UNSUPPORTED_FORMAT, Reason.NOT_AN_IMAGE})
"""The reasons of files whose format this version does not know."""

_MAGIC = (  # offset, name, magic; BMP is checked in `sniffed`, as its magic is too short
    (344, NIFTI, (b"n+1\0",)),
    (4, NIFTI, (b"n+2\0",)),
    (257, TAR, (b"ustar",)),
    (0, ZIP, (b"PK\x03\x04", b"PK\x05\x06")),
    (0, GZIP, (b"\x1f\x8b",)),
    (0, "JPEG", (b"\xff\xd8\xff",)),
    (0, "PNG", (b"\x89PNG\r\n\x1a\n",)),
    (0, "TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),  # classic and BigTIFF
)
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of a BMP's second header; "BM" alone is how many a text begins
_UNSUPPORTED = (  # offset, name, magic; checked before those above: a JPEG-LS begins like a JPEG
    (344, "NIfTI .hdr and .img", (b"ni1\0",)),
    (4, "NIfTI .hdr and .img", (b"ni2\0",)),
    (0, "FreeSurfer .mgh and .mgz", (b"\0\0\0\x01\0\0",)),
    (4, "bzip2", (b"1AY&SY",)),
    (0, "xz", (b"\xfd7zXZ\0",)),
    (0, "Zstandard", (b"\x28\xb5\x2f\xfd",)),
    (0, "7z", (b"7z\xbc\xaf\x27\x1c",)),
    (0, "RAR", (b"Rar!\x1a\x07",)),
    (0, "NRRD", (b"NRRD0",)),
    (0, "MetaImage", (b"ObjectType",)),
    (0, "HDF5 or NetCDF (MINC)", (b"\x89HDF\r\n\x1a\n", b"CDF\x01")),
    (0, "FITS", (b"SIMPLE  =",)),
    (0, "GIF", (b"GIF8",)),
    (8, "WebP", (b"WEBP",)),
    (4, "HEIF", (b"ftyphe", b"ftypmif1", b"ftypmsf1")),  # heic, heix, heim, heis, hevc
    (4, "AVIF", (b"ftypavi",)),  # avif, avis
    (4, "MP4", (b"ftyp",)),
    (0, "JPEG 2000", (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    (0, "JPEG-LS", (b"\xff\xd8\xff\xf7",)),
    (0, "JPEG XL", (b"\0\0\0\x0cJXL ", b"\xff\x0a")),
    (0, "PSD", (b"8BPS",)),
    (0, "PDF", (b"%PDF",)),
    (0, "ICO", (b"\0\0\x01\0",)),
    (0, "OpenEXR", (b"v/1\x01",)),
    (0, "Netpbm", tuple(b"P%d\n" % kind for kind in range(1, 7))),
)


class RejectionError(MribatchError):
    """An unusable scan. `decode` turns it into a rejected scan, so it never leaves this room."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def sniffed(data: bytes, max_bytes: int) -> str:
    """Return the format of some bytes by its name above, or Pillow's. Raises RejectionError unless it is supported."""
    if not data:
        raise RejectionError(Reason.EMPTY, "the file is empty")
    if len(data) > max_bytes:
        raise RejectionError(Reason.TOO_LARGE, f"{len(data)} bytes exceed the cap of {max_bytes}")
    if is_dicom(data):  # before all others: its first 128 bytes may be those of a TIFF
        return DICOM
    for offset, unsupported, magic in _UNSUPPORTED:
        if data.startswith(magic, offset):
            raise RejectionError(Reason.UNSUPPORTED_FORMAT, f"{unsupported} files are not supported")
    for offset, name, magic in _MAGIC:
        if data.startswith(magic, offset):
            return name
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    raise RejectionError(Reason.NOT_AN_IMAGE, "the bytes are not of a known image format")
