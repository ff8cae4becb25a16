"""Render report pages from the jinja2 templates in `templates/`. Each page is one HTML file that needs nothing else.

Autoescape is on for every template, and no template marks a value as safe. Characters that cannot be seen (controls,
direction marks, surrogates) are spelled out as escapes before that.
"""

import base64
import struct
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from mribatch.errors import InputError
from mribatch.statistics.metrics import percent

__all__ = ["DISCLAIMER", "Picture", "confidence", "decimal", "interval", "picture", "render", "visible"]

DISCLAIMER = "Research and triage tool, not a medical device."
_PNG = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """An image inside a page: `source` is a data URI, width and height are in pixels."""

    caption: str
    source: str
    width: int
    height: int


def render(template: str, **values: object) -> str:
    """Return a page as HTML text, to be written as UTF-8."""
    return _ENVIRONMENT.get_template(template).render(values)


def picture(caption: str, png: bytes) -> Picture:
    """Return a PNG as a Picture; the caption is also its alternative text. Raises InputError for other formats."""
    if png[:8] != _PNG or len(png) < 24:
        raise InputError(f"expected the figure {caption!r} as PNG, got other bytes: pass what reports.figures returns")
    width, height = struct.unpack(">II", png[16:24])
    return Picture(caption, f"data:image/png;base64,{base64.b64encode(png).decode()}", width, height)


def confidence(probability: float) -> str:
    """Format the probability of one answer. Never 100%: a softmax output near 1 is no certainty."""
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


def visible(value: object) -> object:
    """Spell out the characters of a text that cannot be seen. Other values and the HTML of macros are left alone."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)


def _thousands(count: int) -> str:
    return f"{count:,}"


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
_ENVIRONMENT.globals["DISCLAIMER"] = DISCLAIMER
_ENVIRONMENT.filters |= {
    "confidence": confidence,
    "decimal": decimal,
    "fact": _fact,
    "interval": interval,
    "percent": percent,
    "scans": _scans,
    "thousands": _thousands,
}
