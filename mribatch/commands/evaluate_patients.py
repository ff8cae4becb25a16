"""Judge what the slices of a patient say together: which statistic tells the ill patients from the others."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch import schema
from mribatch.commands.evaluated import Measured
from mribatch.commands.rows import reasons
from mribatch.commands.scored import Scored
from mribatch.commands.screen import Block, Table
from mribatch.errors import InputError
from mribatch.models.format import Model
from mribatch.predictions import ledger
from mribatch.predictions.series import with_series
from mribatch.predictions.studies import Rule, series_and_studies
from mribatch.reports.patients import finding_lines, patients_page, statistic_rows
from mribatch.schema import Status
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.statistics.patients import judge
from mribatch.stores import uris

__all__ = ["EvaluatedPatients", "check_patients", "judged"]

log = logging.getLogger("mribatch.evaluate")

SUSPICIOUS = "suspicious"
_STATISTICS = (  # of equally good ones the first is chosen
    *("mean_suspicion", "suspicious_fraction", "suspicious_fraction_middle", "suspicious"),
    *("longest_run", "longest_run_mm", "kth_suspicion", "max_suspicion"),
)
_ZERO_IF_NULL = "kth_"  # a patient with fewer slices has no K slices of any probability
_LEAST_PATIENTS = 2  # on either side


@dataclass(frozen=True, kw_only=True)
class EvaluatedPatients(Measured):
    """What each statistic of a patient's slices is worth."""

    def blocks(self) -> list[Block]:
        """Return the statistics of each finding, and which one would be chosen."""
        numbers = self.numbers
        blocks: list[Block] = [f"{numbers['patients']:,} patients with {numbers['slices']:,} slices"]
        for name, finding in numbers["findings"].items():
            blocks += ["", *finding_lines(name, finding), Table(statistic_rows(finding), _HEAD)]
        return [*blocks, "", *self._lost()]


_HEAD = ("statistic", "AUROC", "threshold", "sensitivity", "specificity")


def check_patients(config: EvaluateConfig, labels: Sequence[str], labelled: pa.Table) -> None:
    """Check that the model knows the healthy class, each scan has a patient, and each patient one label.

    labels: those of the model. Raises InputError.
    """
    if config.healthy_class not in labels:
        raise InputError(
            f"the model has no class {config.healthy_class}, but {', '.join(labels)}: name the class of a healthy "
            "brain with --healthy-class"
        )
    without = labelled["patient_id"].null_count
    if without:
        raise InputError(
            f"{without:,} of {labelled.num_rows:,} scans in {config.data} have no patient_id: --level study needs a manifest "
            "with the columns uri, label and patient_id"
        )
    counts = labelled.group_by("patient_id").aggregate([("label", "count_distinct")])["label_count_distinct"]
    several = pc.sum(pc.greater(counts, 1)).as_py()
    if several:
        raise InputError(
            f"{several:,} of {len(counts):,} patients in {config.data} have slices with different labels: label each slice "
            "with what its patient has"
        )


def judged(config: EvaluateConfig, model: Model, scored: Scored, rows: pa.Table) -> EvaluatedPatients:
    """Judge the statistics of the patients of some rows with label and patient_id, and write patients.json and the page."""
    rule = Rule(healthy_class=config.healthy_class, threshold=config.threshold, kth=config.kth)
    patients = _patients(rows, rule)
    numbers = {
        "level": config.level,
        "model_digest": model.digest,
        "healthy_class": config.healthy_class,
        "threshold": config.threshold,
        "kth": config.kth,
        "patients": patients.num_rows,
        "slices": pc.sum(pc.subtract(patients["ok"], patients["outdated"])).as_py(),
        "by_label": dict(sorted(Counter(patients["label"].to_pylist()).items())),
        "findings": _findings(patients, model, config.healthy_class),
    }
    return EvaluatedPatients(
        scored=scored,
        numbers=numbers,
        report=_write(config, numbers),
        predictions=ledger.model_folder(scored.output, model.digest),
        rows=rows,
        rejected=reasons(rows, Status.REJECTED),
        skipped=reasons(rows, Status.SKIPPED),
        max_reject_rate=config.max_reject_rate,
    )


def _patients(rows: pa.Table, rule: Rule) -> pa.Table:
    """Return the columns of `_studies`, and the label, of each patient with a prediction, in their order."""
    rows = with_series(rows)
    by_patient = rows.set_column(rows.schema.get_field_index("study_key"), "study_key", rows["patient_id"])
    _, patients = series_and_studies(by_patient, rule)
    labels = rows.group_by(["patient_id", "label"]).aggregate([]).rename_columns(["study_key", "label"])
    patients = patients.drop_columns(["kinds"]).join(labels, "study_key").sort_by("study_key")
    return patients.filter(pc.is_valid(patients["max_suspicion"]))


def _findings(patients: pa.Table, model: Model, healthy: str) -> dict[str, Any]:
    """Return what each statistic is worth: for any class but the healthy one, and for each of these classes."""
    labels = np.asarray(patients["label"].to_pylist())
    findings = {SUSPICIOUS: _judged(patients, _STATISTICS, labels != healthy)}
    for label in model.labels:
        if label != healthy:
            column = schema.probability_column(label)
            names = tuple(f"{kind}_{column}" for kind in ("mean", "kth", "max"))
            findings[label] = _judged(patients, names, labels == label)
    return findings


def _judged(patients: pa.Table, names: tuple[str, ...], is_ill: NDArray[np.bool_]) -> dict[str, Any]:
    ill, others = int(is_ill.sum()), int((~is_ill).sum())
    if min(ill, others) < _LEAST_PATIENTS:
        return {"not_measured": f"{ill} patients have it and {others} have not: both need {_LEAST_PATIENTS} or more"}
    values = {name: _values(patients[name], name) for name in names}
    lacking = {name: int(np.isnan(column).sum()) for name, column in values.items() if np.isnan(column).any()}
    result = judge({name: column for name, column in values.items() if name not in lacking}, is_ill)
    return result | {"not_measured_statistics": {name: _why(count, len(is_ill)) for name, count in lacking.items()}}


def _values(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    filled = column.fill_null(0) if name.startswith(_ZERO_IF_NULL) else column
    return np.asarray(filled.cast(pa.float64()).to_numpy(), np.float64)


def _why(count: int, patients: int) -> str:
    return f"{count:,} of {patients:,} patients have no slices with a position (slice_mm) in a series"


def _write(config: EvaluateConfig, numbers: Mapping[str, Any]) -> str:
    """Write patients.json and patients.html, and return the page's URI."""
    folder = uris.absolute(config.output)
    uris.put(uris.join(folder, "patients.json"), json.dumps(numbers, indent=1).encode())
    place = uris.join(folder, "patients.html")
    facts = {"model": config.model, "data": config.data}
    uris.put(place, patients_page(numbers, facts).encode())
    return place
