"""The elements of a DICOM data set: pydicom finds them, this module reads their bytes.

pydicom never converts a value here. Its conversions put values into warnings, logs and errors, and a value may be a
patient's name.
"""

import logging
import math
import re
import struct
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import data_element_generator, read_dataset, read_sequence, read_sequence_item
from pydicom.sequence import Sequence

from mribatch.scans.dicom.plain import is_as_claimed, read_plain
from mribatch.scans.dicom.source import Source, Stop
from mribatch.scans.dicom.start import ByteOrder
from mribatch.scans.formats import RejectionError
from mribatch.schema import Reason

__all__ = ["Elements", "read_elements", "read_item", "read_more"]

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
logging.getLogger("pydicom").propagate = False
config.settings.reading_validation_mode = config.IGNORE

_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "OV": "Q"}  # VR to struct code
_ORDER_READS = 2  # by which the encoding of a data set is found out
_ENCODING = "iso8859"  # no text is decoded by pydicom
_TEXT = ("DS", "IS")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)

_PYDICOM = r"pydicom\."
_hush_lock = threading.Lock()


def hush_pydicom() -> None:
    """Keep pydicom's warnings, which hold values, from leaking out, and from raising under `-W error`."""
    with _hush_lock:
        if not any(getattr(known[3], "pattern", None) == _PYDICOM for known in warnings.filters):
            warnings.filterwarnings("ignore", module=_PYDICOM)


def read_elements(source: Source, order: ByteOrder, stop: Stop) -> "Elements":
    """Read elements from where the source stands until `stop(tag, vr, length)`. Raises RejectionError."""
    with _translated(source):
        if not is_as_claimed(source, order):
            return _read_otherwise(source, order, stop)
        source.spend(_ORDER_READS)
        elements = [(element.tag, element) for element in _up_to_an_odd_end(source, order, stop)]
    return Elements.of(elements, order, source)


def _read_otherwise(source: Source, order: ByteOrder, stop: Stop) -> "Elements":
    """Read elements whose encoding may not be what the file claims."""
    dataset = read_dataset(source, order.is_implicit, order.is_little_endian, stop_when=stop)
    is_implicit, is_little_endian = dataset.original_encoding
    return Elements.of(dataset.items(), ByteOrder(bool(is_implicit), bool(is_little_endian)), source)


def read_more(source: Source, known: "Elements", stop: Stop) -> "Elements":
    """Read on where the source stands, in the encoding known, and return all elements. Raises RejectionError."""
    order = known.order
    with _translated(source):
        more = list(_elements(source, order, stop))
    return Elements.of([*known.raw.items(), *((element.tag, element) for element in more)], order, source)


def _up_to_an_odd_end(source: Source, order: ByteOrder, stop: Stop) -> Iterator[RawDataElement | DataElement]:
    """Yield elements as `_elements` does, and no error for a value of undefined length that does not end."""
    with suppress(EOFError, NotImplementedError):
        yield from _elements(source, order, stop)


def _elements(source: Source, order: ByteOrder, stop: Stop) -> Iterator[RawDataElement | DataElement]:
    """Yield elements from where the source stands, the plain ones without pydicom."""
    while True:
        yield from read_plain(source, order, stop)
        other = next(data_element_generator(source, order.is_implicit, order.is_little_endian, stop), None)
        if other is None:
            return
        yield other


def read_item(source: Source, order: ByteOrder) -> "Elements | None":
    """Read the item of a sequence where the source stands; None at the sequence's end. Raises RejectionError."""
    with _translated(source):
        item = read_sequence_item(source, order.is_implicit, order.is_little_endian, _ENCODING)
    return None if item is None else Elements.of(item.items(), order, source)


@contextmanager
def _translated(source: Source) -> Iterator[None]:
    """Turn whatever pydicom raises into a RejectionError without its text, which holds values."""
    hush_pydicom()
    try:
        yield
    except MemoryError:
        raise
    except Exception:  # pydicom raises all kinds on damaged bytes
        raise _damage(source) from None
    if source.is_crowded:  # pydicom may have caught what told of it
        raise _damage(source)


def _damage(source: Source) -> RejectionError:
    if source.is_crowded:
        return RejectionError(Reason.TOO_LARGE, "the DICOM header has too many elements")
    if source.is_short:
        return RejectionError(Reason.TRUNCATED, "the DICOM file ends before its header does")
    return RejectionError(Reason.CORRUPT, "the DICOM header is damaged")


@dataclass(frozen=True)
class Elements:
    """A data set, or one item of a sequence. What is missing, empty or damaged reads as empty."""

    raw: dict[int, RawDataElement | DataElement]  # pydicom's own look-up converts empty values, and raises
    order: ByteOrder
    source: Source
    _items: dict[int, list["Elements"]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, items: Iterable[tuple[int, RawDataElement | DataElement]], order: ByteOrder, source: Source) -> Self:
        return cls({int(tag): element for tag, element in items}, order, source)

    @property
    def is_little_endian(self) -> bool:
        return self.order.is_little_endian

    def __contains__(self, tag: int) -> bool:
        return tag in self.raw

    def __len__(self) -> int:
        return len(self.raw)

    def content(self, tag: int) -> bytes:
        """Return the bytes of a value."""
        value = self.raw[tag].value if tag in self.raw else b""
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
            place = group << 16 | block
            if place in self.raw and self.text(place) == creator:
                return group << 16 | block << 8 | element
        return None

    def _representation(self, tag: int, vr: str) -> str:
        stored = self.raw[tag].VR if tag in self.raw else None
        return stored if stored in _BINARY or stored in _TEXT else vr

    def _read_items(self, tag: int) -> Iterator["Elements"]:
        element = self.raw.get(tag)
        value = None if element is None else element.value
        if isinstance(element, RawDataElement) and isinstance(value, bytes) and value:
            value = self._parsed(value, element)
        if not isinstance(value, Sequence):
            return
        for dataset in value:
            yield Elements.of(dataset.items(), self.order, self.source)

    def _parsed(self, value: bytes, element: RawDataElement) -> Any:
        part = Source(value, self.source.budget)
        is_implicit = element.is_implicit_VR or element.VR == "UN"
        try:
            with _translated(part):
                return read_sequence(part, is_implicit, element.is_little_endian, len(value), _ENCODING)
        finally:
            self.source.budget = part.budget


def _decimal(text: str) -> float:
    return float(text) if _NUMBER.fullmatch(text) else math.nan
