"""Files with a made-up name, number and date in every text that a header has, one or more for each reject and skip."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image, PngImagePlugin, TiffImagePlugin

from mribatch.schema import Reason
from tests.dicom_cases import CASES
from tests.pictures import head
from tests.unit.dicom_files import CANARY, CANARY_DATE, CANARY_NUMBER, clean, written
from tests.unit.volume_files import as_zip, nifti

__all__ = ["FORCED", "SECRETS", "SERIES_SKIP", "canaries"]

SECRETS = (CANARY, CANARY_DATE, CANARY_NUMBER)
SERIES_SKIP = "leave this out"
"""The pattern under which one of the files is skipped as `series`."""

FORCED = frozenset(Reason) - {
    *(Reason.VANISHED, Reason.CHANGED, Reason.UNREADABLE),  # by the storage
    *(Reason.CRASHED_DECODER, Reason.TIMED_OUT, Reason.UNFORESEEN),  # by faults of the decoder
}
"""The reasons that the bytes of a file can have."""

_TEXT = "^".join(SECRETS)
_SIDE, _ICON = 64, 8
_DESCRIPTION, _DATE, _ARTIST, _COMMENT = 270, 306, 315, 0x9286  # tags of TIFF and EXIF


def canaries() -> Iterator[tuple[str, bytes]]:
    """Yield names and files. No name holds a secret."""
    for name, make in CASES.items():
        yield name.replace("/", "-"), make().data
    yield "perfusion.dcm", written(clean(ImageType=["DERIVED", "PRIMARY", "PERFUSION", "NONE", _TEXT]))
    yield "series.dcm", written(clean(SeriesDescription=f"{SERIES_SKIP} {CANARY}"))
    for kind in ("JPEG", "PNG", "TIFF"):
        yield from ((f"{name}.{kind.lower()}", data) for name, data in _rasters(kind))
    yield "report.pdf", b"%PDF-1.4 /Author (" + _TEXT.encode() + b")"
    yield "note.txt", b"Dear " + _TEXT.encode()
    volume = nifti(descrip=_TEXT.encode()[:79], aux_file=CANARY.encode(), intent_name=CANARY_DATE.encode())
    yield from (("intact.nii", volume), ("cut.nii", volume[:-999]), ("members.zip", _zip(volume)))


def _rasters(kind: str) -> Iterator[tuple[str, bytes]]:
    """Yield a picture as it is, and in each way in which it is rejected."""
    intact = _saved(_SIDE, kind)
    middle = len(intact) // 2
    yield from (("intact", intact), ("cut", intact[:middle]), ("icon", _saved(_ICON, kind)))
    yield "damaged", intact[:middle] + bytes(range(255, 155, -1)) + intact[middle + 100 :]
    if kind != "JPEG":
        yield "frames", _saved(_SIDE, kind, save_all=True, append_images=[head(2).resize((_SIDE, _SIDE))])


def _saved(side_px: int, kind: str, **options: Any) -> bytes:
    """Return a picture with the text in every place where the format has one."""
    image, data = head(1).resize((side_px, side_px)), io.BytesIO()
    image.save(data, kind, **_texts(kind), **options)
    return data.getvalue()


def _texts(kind: str) -> Mapping[str, Any]:
    exif = Image.Exif()
    exif[_DESCRIPTION], exif[_ARTIST], exif[_DATE], exif[_COMMENT] = _TEXT, CANARY, CANARY_DATE, _TEXT
    if kind == "JPEG":
        return {"exif": exif, "comment": _TEXT}
    if kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("Author", _TEXT)
        chunks.add_text("Comment", _TEXT, zip=True)
        chunks.add_itxt("Description", _TEXT)
        return {"exif": exif, "pnginfo": chunks}
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[_DESCRIPTION], tags[_ARTIST], tags[_DATE] = _TEXT, CANARY, CANARY_DATE
    return {"tiffinfo": tags}


def _zip(volume: bytes) -> bytes:
    """Return a zip whose first member needs a password."""
    data = bytearray(as_zip({"secret.png": _saved(_SIDE, "PNG"), "open.nii": volume}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    return bytes(data)
