"""Sum up an evaluation: for the screen, and as an exit code."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mribatch.commands.scored import TOO_MANY_REJECTS, Scored, failure_lines
from mribatch.commands.screen import Block, Shown, Table
from mribatch.reports.evaluation import EVIDENCE, apart_line, right_of
from mribatch.reports.rendering import confidence, decimal, interval
from mribatch.schema import Status
from mribatch.statistics.shares import percent

__all__ = ["GALLERY_SCANS", "Evaluated", "Measured", "evidence_lines"]

GALLERY_SCANS = 24  # as many as fit on a page


@dataclass(frozen=True, kw_only=True)
class Measured(Shown):
    """What a model was measured on, and where the report is."""

    scored: Scored
    numbers: dict[str, Any]
    report: str
    predictions: str
    rows: pa.Table
    rejected: dict[str, int]
    skipped: dict[str, int]
    max_reject_rate: float

    @property
    def exit_code(self) -> int:
        lost = sum(self.rejected.values()) + self.scored.failed
        wanted = self.rows.num_rows - sum(self.skipped.values()) + self.scored.failed
        return TOO_MANY_REJECTS if lost > self.max_reject_rate * wanted else 0

    def _lost(self) -> Iterator[str]:
        for name, reasons in (("rejected", self.rejected), ("skipped", self.skipped)):
            if reasons:
                yield f"{name}: " + ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        if self.scored.failed:
            yield f"failed, to be retried: {self.scored.failed}"
        yield from failure_lines(self.scored.failures)
        yield f"predictions  {self.predictions}"
        yield f"report       {self.report}"


@dataclass(frozen=True, kw_only=True)
class Evaluated(Measured):
    """How well a model did on labelled scans."""

    copies: str

    def blocks(self) -> list[Block]:
        """Return the result; scan by scan if they fit on a screen."""
        shown = self.rows.to_pylist() if self.rows.num_rows <= GALLERY_SCANS else []
        scans = Table(
            [_scan_row(row) for row in shown], ("scan", "label", "predicted", "confidence", ""), align="lllrl"
        )
        classes = Table(
            [_class_row(label, measured) for label, measured in self.numbers["per_class"].items()],
            ("class", "scans", "precision", "recall", "F1"),
        )
        between = [""] if shown else []
        return [scans, *between, classes, "", *self._accuracy(), *self._details()]

    def _accuracy(self) -> Iterator[str]:
        numbers = self.numbers
        ends, scans = interval(numbers["accuracy_95"]), f"{numbers['scans']:,} scans"
        yield f"accuracy {percent(numbers['accuracy'])} (95% interval {ends}) on {scans}"
        yield from _trust_lines(numbers)
        yield (
            f"balanced accuracy {percent(numbers['balanced_accuracy'])} · "
            f"mean confidence {percent(numbers['mean_confidence'])}"
        )

    def _details(self) -> Iterator[str]:
        yield from evidence_lines(self.numbers["evidence"])
        absent = [label for label, measured in self.numbers["per_class"].items() if not measured["support"]]
        if absent:
            yield f"no scans of {', '.join(absent)}: balanced accuracy is over the other classes"
        yield f"copies of training scans: {self.copies}"
        if self.numbers["apart_from"]:
            yield apart_line(self.numbers["apart_from"])
        yield from self._lost()


def evidence_lines(evidence: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each set of scans that the model was judged on, with the right answers of each class."""
    width = max(map(len, EVIDENCE.values()))
    titles = {key: title for key, title in EVIDENCE.items() if key in evidence}
    return [f"{title:<{width}}  {_evidence_line(evidence[key])}" for key, title in titles.items()]


def _evidence_line(result: Mapping[str, Any]) -> str:
    if "not_measured" in result:
        return f"not measured: {result['not_measured']}"
    left_out = [f"near copies of training scans left out: {result['left_out']:,}"] if result.get("left_out") else []
    if result.get("not_compared"):
        left_out.append(f"training scans that were not compared: {result['not_compared']:,}")
    if not result["scans"]:
        return " · ".join(["no evidence: no scan is left", *left_out])
    classes = [f"{label} {right_of(row)}" for label, row in result["per_class"].items()]
    accuracy = f"{percent(result['accuracy'])} of {result['scans']:,} scans ({interval(result['accuracy_95'])})"
    return " · ".join([accuracy, *classes, *left_out])


def _trust_lines(numbers: Mapping[str, Any]) -> Iterator[str]:
    measured, referral = numbers["calibration"], numbers["referral"]
    floor, before = decimal(measured["noise_floor"]["mean"]), measured["before"]
    earlier = f" ({decimal(before['adaptive_calibration_error'])} before calibration)" if before else ""
    error, brier = decimal(measured["adaptive_calibration_error"]), decimal(measured["brier"])
    yield f"adaptive calibration error {error}{earlier}, {floor} by chance alone · Brier score {brier}"
    if referral:
        review, wrong = referral["review"], referral["wrong"]
        among = f", with {referral['wrong_in_review']:,} of the {wrong:,} wrong answers" if wrong else ""
        yield f"for review: {review:,} scan{'' if review == 1 else 's'} ({percent(referral['share'])}){among}"


def _scan_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    name = row["scan_uri"].rpartition("/")[2]
    if row["status"] != Status.OK:
        return name, row["label"], "", "", f"{row['status']}: {row['reason']}"
    mark = "" if row["predicted_class"] == row["label"] else "WRONG"
    return name, row["label"], row["predicted_class"], confidence(row["confidence"]), mark


def _class_row(label: str, measured: Mapping[str, Any]) -> tuple[str, ...]:
    figures = (percent(measured[name]) for name in ("precision", "recall", "f1"))
    return label, f"{measured['support']:,}", *figures
