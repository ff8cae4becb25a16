"""Names from closed lists for what a header says in free text: the vendor of a scanner, a transfer syntax, a modality."""

from mribatch.scans.dicom.elements import Elements

__all__ = ["known_modality", "syntax_name", "vendor_of"]

_MANUFACTURER = 0x00080070
_VENDORS = (  # beginnings of Manufacturer, in capitals
    ("SIEMENS", "Siemens"),
    ("GE ", "GE"),
    ("G.E.", "GE"),
    ("PHILIPS", "Philips"),
    ("MARCONI", "Philips"),
    ("CANON", "Canon"),
    ("TOSHIBA", "Canon"),
    ("UIH", "United Imaging"),
    ("UNITED IMAGING", "United Imaging"),
    ("HITACHI", "Hitachi"),
    ("FUJIFILM", "Fujifilm"),
    ("BRUKER", "Bruker"),
    ("HYPERFINE", "Hyperfine"),
    ("ESAOTE", "Esaote"),
)
_SYNTAXES = {
    "1.2.840.10008.1.2": "implicit little endian",
    "1.2.840.10008.1.2.1": "explicit little endian",
    "1.2.840.10008.1.2.1.98": "encapsulated, not compressed",
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.2": "explicit big endian",
    "1.2.840.10008.1.2.5": "RLE",
    "1.2.840.10008.1.2.8.1": "deflated frames",
    "1.2.840.10008.1.2.4.50": "JPEG, 8 bits",
    "1.2.840.10008.1.2.4.51": "JPEG, 12 bits",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.110": "JPEG XL lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.4.201": "HTJ2K lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K lossless",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    **{f"1.2.840.10008.1.2.4.{number}": "video" for number in range(100, 109)},
}
_MODALITIES = frozenset(  # those that this program names (PS3.3, C.7.3.1.1.1): any other text may be a name
    {
        *("CR", "CT", "DX", "ECG", "ES", "KO", "MG", "MR", "NM", "OP", "OT", "PR", "PT", "REG", "RF", "RTDOSE"),
        *("RTIMAGE", "RTPLAN", "RTSTRUCT", "RWV", "SC", "SEG", "SM", "SR", "US", "XA", "XC"),
    }
)


def vendor_of(elements: Elements) -> str | None:
    """Return the vendor of the scanner; None where it is none of those known."""
    manufacturer = elements.text(_MANUFACTURER).upper()
    return next((vendor for begin, vendor in _VENDORS if manufacturer.startswith(begin)), None)


def syntax_name(uid: str) -> str | None:
    """Return what a transfer syntax is called; None for those that the standard does not name."""
    return _SYNTAXES.get(uid)


def known_modality(modality: str) -> str | None:
    """Return a modality that the standard defines; None for any other text."""
    return modality if modality in _MODALITIES else None
