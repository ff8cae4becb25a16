"""Turn an audit of labelled scans into one self-contained HTML page, with pictures beside each claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mribatch.reports.gallery import Shown
from mribatch.reports.rendering import render

__all__ = ["AuditPage", "audit_page"]


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """What the page shows, in its order.

    facts: what was audited and how, by name. numbers: what `audit.json` holds. pairs: by kind of near copy. leaking,
    conflicts, suspects: the clearest ones. means: the mean scan of each class. files: what the page links to, with a word
    on the content of each.
    """

    title: str
    facts: Mapping[str, object]
    numbers: Mapping[str, Any]
    pairs: Mapping[str, Sequence[Shown]]
    leaking: Sequence[Shown]
    conflicts: Sequence[Shown]
    suspects: Sequence[Shown]
    means: Sequence[Shown]
    files: Mapping[str, str] = field(default_factory=dict)


def audit_page(page: AuditPage) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text is escaped."""
    values = {name: getattr(page, name) for name in page.__dataclass_fields__}
    return render("audit.html", **values)
