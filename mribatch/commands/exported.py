"""Sum up an export: how the model compares with the one before, and where it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mribatch.commands.screen import Block, Shown, Table
from mribatch.errors import InputError
from mribatch.models.exported_card import verdict
from mribatch.models.format import Model
from mribatch.schema import Referral
from mribatch.statistics.shares import percent

__all__ = ["Compared", "Exported", "check_loss", "compared"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A model and its exported copy on the same scans; without labels or without referral, some counts are None.

    calibrated_on: how many of the scans the copy was calibrated on.
    """

    scans: int
    calibrated_on: int
    same: int
    before_right: int | None
    after_right: int | None
    before_referred: int | None
    after_referred: int | None

    @property
    def loss(self) -> float:
        """How much lower the accuracy is afterwards, as a share of the scans; 0 without labels."""
        return ((self.before_right or 0) - (self.after_right or 0)) / self.scans

    def as_dict(self) -> dict[str, int | None]:
        """Return the counts, ready for JSON."""
        return asdict(self)


def compared(rows: pa.Table, calibration: pa.ChunkedArray) -> Compared:
    """Return the comparison of rows with the columns of `exporting.ANSWERS`, and `label` if they have labels.

    calibration: the URIs of the scans that the copy was calibrated on.
    """
    is_labelled = "label" in rows.column_names
    refers = rows["before_referral"].null_count == 0
    return Compared(
        scans=rows.num_rows,
        calibrated_on=int(pc.sum(pc.is_in(rows["scan_uri"], calibration)).as_py() or 0),
        same=_equal(rows["before"], rows["after"]),
        before_right=_equal(rows["before"], rows["label"]) if is_labelled else None,
        after_right=_equal(rows["after"], rows["label"]) if is_labelled else None,
        before_referred=_equal(rows["before_referral"], pa.scalar(Referral.REVIEW)) if refers else None,
        after_referred=_equal(rows["after_referral"], pa.scalar(Referral.REVIEW)) if refers else None,
    )


def check_loss(result: Compared, most: float) -> None:
    """Raise InputError if the accuracy is lower by more than this share of the scans."""
    if result.loss > most:
        raise InputError(
            f"nothing was written: {result.before_right:,} of {result.scans:,} labelled scans are right before, "
            f"{result.after_right:,} after, a loss of {result.loss:.4f} where --max-loss allows {most:g}: calibrate on more "
            "scans, or keep the model as it is"
        )


def _equal(column: pa.ChunkedArray, other: Any) -> int:
    return int(pc.sum(pc.equal(column, other)).as_py() or 0)


@dataclass(frozen=True, kw_only=True)
class Exported(Shown):
    """An exported model, and how it compares with the one that it comes from."""

    model: Model
    exit_code: int = 0

    @property
    def numbers(self) -> Mapping[str, Any]:
        """What model.json says of the export."""
        numbers: Mapping[str, Any] = self.model.facts["exported"]
        return numbers

    def blocks(self) -> list[Block]:
        """Return the comparison, the speed, and where the model is."""
        counts, rates = self.numbers["compared"], self.numbers["rates"]
        measured = [
            (f"{name} of {counts['scans']:,}", *(f"{counts[f'{side}_{key}']:,}" for side in ("before", "after")))
            for key, name in (("right", "right"), ("referred", "for review"))
            if counts[f"before_{key}"] is not None
        ]
        speed = ("scans/s of a core", f"{rates['before']:.2f}", f"{rates['after']:.2f}")
        warning = "warning: without labels, nothing tells whether the model became better or worse"
        return [
            *([] if counts["before_right"] is not None else [warning]),
            Table([*measured, speed], ("", "before", "after")),
            f"the same class for {percent(counts['same'] / counts['scans'])} of {counts['scans']:,} scans",
            verdict(rates),
            f"{self.model.uri} · model {self.model.digest}, {self.model.precision}, from {self.numbers['from']}",
        ]
