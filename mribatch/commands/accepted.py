"""Sum up an acceptance: for the screen, and as an exit code."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mribatch.commands.required_acceptance import FIT
from mribatch.commands.scored import TOO_MANY_REJECTS
from mribatch.commands.screen import Block, Shown, Table
from mribatch.reports.acceptance import strength
from mribatch.reports.evaluation import apart_line
from mribatch.reports.rendering import proportion
from mribatch.statistics.shares import percent

__all__ = ["NOT_FIT", "Accepted"]

NOT_FIT = TOO_MANY_REJECTS  # the exit code of what is done, but must not be relied on
_RATES = ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value")


@dataclass(frozen=True, kw_only=True)
class Accepted(Shown):
    """A model's acceptance at a site, as acceptance.json holds it, and where its page is."""

    acceptance: Mapping[str, Any]
    page: str
    output: str

    @property
    def verdict(self) -> str:
        return str(self.acceptance["verdict"])

    @property
    def exit_code(self) -> int:
        return 0 if self.verdict == FIT else NOT_FIT

    def blocks(self) -> list[Block]:
        """Return the rates of each class, the effect of the corruptions, the verdict and its reasons."""
        acceptance = self.acceptance
        classes = [_class_row(label, rates) for label, rates in (acceptance["per_class"] or {}).items()]
        altered = [_altered_row(row) for row in acceptance["corruptions"]]
        mark = "refused" if self.verdict == "not fit" else "warning"
        between = [""] if classes and altered else []
        return [
            Table(classes, ("class", "scans", "sensitivity", "specificity", "PPV", "NPV")),
            *between,
            Table(altered, ("altered", "strength", "same answer", "loss", "missed", "referred"), align="llr"),
            "",
            *self._summary(),
            *(f"{mark}: {reason}" for reason in acceptance["reasons"]),
            f"verdict  {self.verdict}",
            f"report   {self.page}",
        ]

    def _summary(self) -> Iterator[str]:
        acceptance, data = self.acceptance, self.acceptance["data"]
        copies = f", {data['copies']:,} copies left out" if data["copies"] else ""
        yield f"{data['scans']:,} scans{copies} · mean confidence {percent(acceptance['mean_confidence'])}"
        if data["apart_from"]:
            yield apart_line(data["apart_from"])
        if acceptance["calibration"] is None:
            yield "answers: " + ", ".join(f"{count:,} {label}" for label, count in acceptance["predicted"].items())
        else:
            error = acceptance["calibration"]["expected_calibration_error"]
            balanced = percent(acceptance["balanced_accuracy"])
            yield f"balanced accuracy {balanced} · expected calibration error {percent(error)}"
        referral = acceptance["referral"]
        yield "this model refers nothing" if referral is None else f"referred to a person: {percent(referral['share'])}"


def _class_row(label: str, rates: Mapping[str, Any]) -> tuple[str, ...]:
    return label, f"{rates['sensitivity']['of']:,}", *(proportion(rates[name]) for name in _RATES)


def _altered_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (percent(row[name]) for name in ("same_answer", "loss", "missed", "referred"))
    return row["corruption"], strength(row), *shares
