"""Sum up an evaluation: for the screen, and as an exit code."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mribatch.commands.scored import TOO_MANY_REJECTS, Scored, failure_lines
from mribatch.commands.screen import Block, Shown, Table
from mribatch.reports.evaluation import EVIDENCE, right_of
from mribatch.reports.rendering import interval
from mribatch.schema import Status
from mribatch.statistics.shares import percent

__all__ = ["GALLERY_SCANS", "Evaluated", "Measured", "apart_line", "evidence_lines"]

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
        numbers, (low, high) = self.numbers, self.numbers["accuracy_95"]
        yield f"accuracy {numbers['accuracy']:.4f} (95% interval {low:.4f}…{high:.4f}) on {numbers['scans']:,} scans"
        balanced, confidence = numbers["balanced_accuracy"], numbers["mean_confidence"]
        yield from _trust_lines(numbers)
        yield f"balanced accuracy {balanced:.4f} · mean confidence {confidence:.4f}"

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
    floor, before = measured["noise_floor"]["mean"], measured["before"]
    earlier = f" ({before['adaptive_calibration_error']:.4f} before calibration)" if before else ""
    error = measured["adaptive_calibration_error"]
    yield f"adaptive calibration error {error:.4f}{earlier}, {floor:.4f} by chance alone · Brier score {measured['brier']:.4f}"
    if referral:
        yield (
            f"for review: {referral['review']:,} scans ({referral['share']:.1%}), with {referral['wrong_in_review']:,} of the "
            f"{referral['wrong']:,} wrong answers"
        )


def _scan_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    name = row["scan_uri"].rpartition("/")[2]
    if row["status"] != Status.OK:
        return name, row["label"], "", "", f"{row['status']}: {row['reason']}"
    mark = "" if row["predicted_class"] == row["label"] else "WRONG"
    return name, row["label"], row["predicted_class"], f"{row['confidence']:.4f}", mark


def _class_row(label: str, measured: Mapping[str, Any]) -> tuple[str, ...]:
    figures = (f"{measured[name]:.4f}" for name in ("precision", "recall", "f1"))
    return label, f"{measured['support']:,}", *figures


def apart_line(apart: Mapping[str, int]) -> str:
    """Say what --apart-from did, from its numbers in metrics.json."""
    ignored = f" (not its {apart['test_scans_ignored']:,} test scans)" if apart["test_scans_ignored"] else ""
    return (
        f"--apart-from: {apart['scans']:,} scans read{ignored}, {apart['left_out']:,} of the {apart['evaluated']:,} "
        "evaluated scans are copies of them and were left out"
    )
