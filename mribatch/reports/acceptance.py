"""Turn an acceptance into one self-contained HTML page, and its checks into sentences."""

from collections.abc import Mapping
from typing import Any

from mribatch.reports.evaluation import apart_line
from mribatch.reports.rendering import interval, render
from mribatch.statistics.acceptance import Check
from mribatch.statistics.shares import percent

__all__ = ["acceptance_page", "sentence", "strength"]

_STRENGTHS = {1: "mild", 2: "medium", 3: "strong"}


def acceptance_page(acceptance: Mapping[str, Any], command: str) -> str:
    """Return the page as HTML text, to be written as UTF-8. Every text is escaped.

    acceptance: what acceptance.json holds. command: the command line that made it.
    """
    data, settings = acceptance["data"], acceptance["settings"]
    facts = {
        "model": acceptance["model"],
        "digest": acceptance["model_digest"],
        "scans": settings["data"] or settings["input"],
        "fingerprint of the scans": data["content_sha256"][:12],
        "healthy class": acceptance["healthy_class"] or "none",
        "date": acceptance["created_at"],
        "command": command,
        "mribatch": acceptance["mribatch"],
    }
    facts |= {"left out": apart_line(data["apart_from"])} if data["apart_from"] else {}
    files = {"acceptance.json": "all figures of this page"}
    if acceptance["calibration"] is not None:
        files |= {"report.html": "the evaluation of the same scans"}
    title = f"Acceptance of model {acceptance['model_digest']}"
    return render("acceptance.html", title=title, facts=facts, files=files, **_parts(acceptance))


def _parts(acceptance: Mapping[str, Any]) -> dict[str, Any]:
    checks = [
        (row["name"], percent(row["value"]), _interval(row), _wanted(row), _held(row)) for row in acceptance["checks"]
    ]
    return {"acceptance": acceptance, "checks": checks, "strength": strength}


def _interval(row: Mapping[str, Any]) -> str:
    return "" if row["interval"] is None else interval(row["interval"])


def _held(row: Mapping[str, Any]) -> str:
    return "yes" if row["holds"] else "more scans may decide" if row["undecided"] else "no"


def _wanted(row: Mapping[str, Any]) -> str:
    """Return the threshold of a check, given by its fields, in words."""
    return f"{'at most' if row['is_maximum'] else 'at least'} {row['limit']:.0%}"


def _measured(check: Check) -> str:
    """Return what a check measured, with its interval if that decides."""
    value = percent(check.value)
    return f"{value} (95% interval {interval(check.interval)})" if check.interval else value


def sentence(check: Check) -> str:
    """Say what was measured and what was wanted."""
    flag = "--" + check.flag.replace("_", "-")
    text = f"{check.name} is {_measured(check)}, {flag} is {check.limit:g}"
    return f"{text}; more scans may decide" if check.is_undecided else text


def strength(row: Mapping[str, Any]) -> str:
    """Return the strength of a corruption in words, with its value."""
    value = f"{row['value']:.0%}" if row["unit"].startswith(("of ", "cut ")) else f"{row['value']:g}"
    unit = f"{row['unit']} {value}" if row["unit"] == "JPEG quality" else f"{value} {row['unit']}"
    return f"{_STRENGTHS[row['strength']]} ({unit})"
