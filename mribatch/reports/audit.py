"""Turn an audit of labelled scans into one self-contained HTML page, with pictures beside each claim."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mribatch.reports.rendering import Picture, picture, render

__all__ = ["AuditPage", "Shown", "audit_page", "shown"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One or two scans side by side, and what is said of them."""

    caption: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """What the page shows, in its order.

    facts: what was audited and how, by name. numbers: what `audit.json` holds. pairs: by kind of near copy. leaking,
    conflicts, suspects: the clearest ones. means: the mean scan of each class.
    """

    title: str
    facts: Mapping[str, object]
    numbers: Mapping[str, Any]
    pairs: Mapping[str, Sequence[Shown]]
    leaking: Sequence[Shown]
    conflicts: Sequence[Shown]
    suspects: Sequence[Shown]
    means: Sequence[Shown]


def audit_page(page: AuditPage) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text is escaped."""
    values = {name: getattr(page, name) for name in page.__dataclass_fields__}
    return render("audit.html", **values)


def shown(caption: str, *scans: tuple[str, NDArray[np.uint8]]) -> Shown:
    """Return scans, each a name and (side, side) grey pixels, as pictures with a common caption."""
    return Shown(caption=caption, pictures=[picture(name, _png(pixels)) for name, pixels in scans])


def _png(pixels: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, "PNG")
    return data.getvalue()
