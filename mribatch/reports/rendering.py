"""Render report pages from the jinja2 templates in `templates/`; each page is one self-contained HTML file.

Autoescape is on in every template, and no template marks a value as safe. Before that, invisible characters (controls,
direction marks, surrogates) are replaced by escapes such as `\\u202e`. The one script that a page's policy allows, by its
digest, is `templates/tables.js`.
"""

import base64
import hashlib
import io
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from mribatch.errors import InputError
from mribatch.statistics.shares import percent

__all__ = [
    "DISCLAIMER",
    "Picture",
    "confidence",
    "decimal",
    "interval",
    "picture",
    "png",
    "proportion",
    "render",
    "visible",
]

DISCLAIMER = "Research and triage tool, not a medical device."
_PNG = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """An image inside a page: `source` is a data URI, width and height are in pixels."""

    caption: str
    source: str
    width: int
    height: int


def render(template: str, *, files: Mapping[str, str] | None = None, **values: object) -> str:
    """Return a page as HTML text, to be written as UTF-8.

    files: what the page links to, by path relative to the page, with a word on the content of each.
    """
    return _ENVIRONMENT.get_template(template).render(values, files=files or {})


def picture(caption: str, png: bytes) -> Picture:
    """Return a PNG as a Picture; the caption is also its alternative text. Raises InputError for other formats."""
    if png[:8] != _PNG or len(png) < 24:
        raise InputError(
            f"expected the figure {caption!r} as PNG, got other bytes: pass the bytes that reports.figures returns"
        )
    width, height = struct.unpack(">II", png[16:24])
    return Picture(caption, f"data:image/png;base64,{base64.b64encode(png).decode()}", width, height)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return (h, w) grey or (h, w, 3) RGB pixels as PNG."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, "PNG")
    return data.getvalue()


def confidence(probability: float) -> str:
    """Format the probability of an answer. Never 100%, because a softmax output near 1 is not certainty."""
    return "> 99.9%" if probability >= 0.9995 else f"{probability:.1%}"


def decimal(value: float | None) -> str:
    """Format a number with four decimals. Small positive values read < 0.0001, never 0.0000; None reads –."""
    if value is None:
        return "–"
    return "< 0.0001" if 0 < value < 0.0001 else f"{value:.4f}"


def interval(ends: tuple[float, float]) -> str:
    """Format an interval of shares."""
    low, high = ends
    return f"{percent(low)} to {percent(high)}"


def proportion(share: Mapping[str, Any]) -> str:
    """Format a share of scans with its 95% interval, both as `statistics.acceptance.Proportion.as_dict` gives them."""
    if share["share"] is None:
        return "–"
    low, high = share["interval_95"]
    return f"{_tenths(share['share'])} ({_tenths(low)} to {_tenths(high)})"


def _tenths(share: float) -> str:
    """Format a share with one decimal. Only 0 and 1 themselves read 0% and 100%."""
    if share in (0, 1):
        return f"{share:.0%}"
    return "> 99.9%" if share >= 0.9995 else "< 0.1%" if share < 0.0005 else f"{share:.1%}"


def visible(value: object) -> object:
    """Replace the invisible characters of a text by escapes. Other values and the HTML of macros are left alone."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)


def _scans(count: int) -> str:
    return "1 scan" if count == 1 else f"{count:,} scans"


def _fact(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value))
    return "unknown" if value is None else str(value)


_ENVIRONMENT = Environment(
    loader=PackageLoader("mribatch.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=visible,
    trim_blocks=True,
    lstrip_blocks=True,
)
_SCRIPT = _ENVIRONMENT.get_template("tables.js").render()
_ENVIRONMENT.globals |= {
    "DISCLAIMER": DISCLAIMER,
    "SCRIPT": Markup(_SCRIPT),
    "SCRIPT_DIGEST": f"sha256-{base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()}",
}
_ENVIRONMENT.filters |= {
    "confidence": confidence,
    "decimal": decimal,
    "fact": _fact,
    "interval": interval,
    "percent": percent,
    "proportion": proportion,
    "scans": _scans,
    "thousands": "{:,}".format,
}
