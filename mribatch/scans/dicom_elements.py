"""The elements of a DICOM data set: pydicom finds them, this module reads their bytes.

pydicom never converts a value here. Its conversions put values into warnings, logs and errors, and a value may be a
patient's name.
"""

import io
import logging
import math
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_sequence
from pydicom.tag import BaseTag

from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["ByteOrder", "Elements", "Source", "hush_pydicom", "read_elements"]

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
logging.getLogger("pydicom").propagate = False
config.settings.reading_validation_mode = config.IGNORE

_MOST_READS = 600_000  # about 5 s: an enhanced object of 1,024 frames takes half of them, a million empty elements more
_ELEMENT_START = 8  # bytes of a tag and its length
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "OV": "Q"}  # VR to struct code
_TEXT = ("DS", "IS")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)

_PYDICOM = r"pydicom\."
_hush_lock = threading.Lock()


def hush_pydicom() -> None:
    """Keep pydicom's warnings, which hold values, from leaking out, and from raising under `-W error`."""
    with _hush_lock:
        if not any(getattr(known[3], "pattern", None) == _PYDICOM for known in warnings.filters):
            warnings.filterwarnings("ignore", module=_PYDICOM)


@dataclass(frozen=True)
class ByteOrder:
    """How elements are encoded."""

    is_implicit: bool
    is_little_endian: bool


class Source(io.BytesIO):
    """The bytes of a file. Notes when more is asked for than there is, and when elements are too many to read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.is_short = False
        self.is_crowded = False
        self._reads = 0
        self.end = len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            self.is_crowded = True
            raise ValueError
        chunk = super().read(size)
        if size is not None and len(chunk) < size and (size != _ELEMENT_START or chunk.strip(b"\0")):
            self.is_short = True  # nothing, or padding, where an element would begin is a clean end
        return chunk

    def part(self, data: bytes) -> "Source":
        """Return the bytes of one element as a source that continues the count."""
        part = Source(data)
        part._reads = self._reads
        return part

    def settle(self, part: "Source") -> None:
        """Take over the count of a part."""
        self._reads = part._reads
        self.is_crowded |= part.is_crowded


def read_elements(source: Source, order: ByteOrder, stop: Any = None) -> "Elements":
    """Read elements from where the source stands until `stop(tag, vr, length)`. Raises RejectionError."""
    hush_pydicom()
    try:
        dataset = read_dataset(source, order.is_implicit, order.is_little_endian, stop_when=stop)
    except MemoryError:
        raise
    except Exception:  # pydicom raises all kinds on damaged bytes; their texts hold values
        raise _damage(source) from None
    if source.is_crowded:
        raise _damage(source)
    return Elements(dataset, order.is_little_endian, source)


def _damage(source: Source) -> RejectionError:
    if source.is_crowded:
        return RejectionError(Reason.TOO_LARGE, "the DICOM header has too many elements")
    if source.is_short:
        return RejectionError(Reason.TRUNCATED, "the DICOM file ends before its header does")
    return RejectionError(Reason.CORRUPT, "the DICOM header is damaged")


@dataclass(frozen=True)
class Elements:
    """A data set, or one item of a sequence. What is missing, empty or damaged reads as empty."""

    dataset: Dataset
    is_little_endian: bool
    source: Source
    _items: dict[int, list["Elements"]] = field(default_factory=dict, repr=False, compare=False)

    def __contains__(self, tag: int) -> bool:
        return BaseTag(tag) in self.dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def content(self, tag: int) -> bytes:
        """Return the bytes of a value."""
        if tag not in self:
            return b""
        value = self.dataset.get_item(BaseTag(tag)).value
        return value if isinstance(value, bytes) else b""

    def text(self, tag: int) -> str:
        """Return a value as text without its padding; each byte is one character."""
        return self.content(tag).decode("latin-1").strip(" \0\t\r\n")

    def texts(self, tag: int) -> list[str]:
        text = self.text(tag)
        return [part.strip(" \0") for part in text.split("\\")] if text else []

    def numbers(self, tag: int, vr: str) -> list[float]:
        """Return the numbers of a value. `vr` is what the standard prescribes; text that is no number reads as NaN."""
        content, vr = self.content(tag), self._representation(tag, vr)
        if vr in _TEXT:
            return [_decimal(part) for part in self.texts(tag)]
        code = _BINARY[vr]
        count = len(content) // struct.calcsize(code)
        order = "<" if self.is_little_endian else ">"
        return [*struct.unpack_from(f"{order}{count}{code}", content)]

    def number(self, tag: int, vr: str) -> float | None:
        """Return the first finite number of a value; None where there is none."""
        values = self.numbers(tag, vr)[:1]
        return values[0] if values and math.isfinite(values[0]) else None

    def items(self, tag: int) -> list["Elements"]:
        """Return the items of a sequence. Raises RejectionError where it is damaged."""
        if tag not in self._items:
            self._items[tag] = list(self._read_items(tag))
        return self._items[tag]

    def item(self, tag: int) -> "Elements | None":
        """Return the first item of a sequence."""
        items = self.items(tag)
        return items[0] if items else None

    def private(self, group: int, creator: str, element: int) -> int | None:
        """Return the tag of a private element, by its creator's block."""
        for block in range(0x10, 0x20):
            if self.text(group << 16 | block) == creator:
                return group << 16 | block << 8 | element
        return None

    def _representation(self, tag: int, vr: str) -> str:
        element = self.dataset.get_item(BaseTag(tag)) if tag in self else None
        stored = getattr(element, "VR", None)
        return stored if stored in _BINARY or stored in _TEXT else vr

    def _read_items(self, tag: int) -> Iterator["Elements"]:
        if tag not in self:
            return
        element = self.dataset.get_item(BaseTag(tag))
        value = element.value
        if isinstance(element, RawDataElement) and isinstance(value, bytes) and value:
            value = self._parsed(value, element)
        if isinstance(value, bytes | str) or value is None:
            return
        for dataset in value:
            if isinstance(dataset, Dataset):
                yield Elements(dataset, self.is_little_endian, self.source)

    def _parsed(self, value: bytes, element: RawDataElement) -> Any:
        part = self.source.part(value)
        is_implicit = element.is_implicit_VR or element.VR == "UN"
        try:
            return read_sequence(part, is_implicit, element.is_little_endian, len(value), "iso8859")
        except MemoryError:
            raise
        except Exception:  # as in read_elements
            raise _damage(part) from None
        finally:
            self.source.settle(part)


def _decimal(text: str) -> float:
    return float(text) if _NUMBER.fullmatch(text) else math.nan
