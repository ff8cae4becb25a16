"""Break an evaluation down by threshold, patient and the columns of its manifest, and say what was evaluated and when."""

import re
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mribatch.predictions.files import file_uris
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.sources import manifest
from mribatch.sources.labels import data_fingerprint
from mribatch.statistics import breakdown
from mribatch.statistics.metrics import Scores
from mribatch.version import __version__

__all__ = ["breakdown_numbers"]

_NAMES_PEOPLE = re.compile(
    "patient|subject|person|birth|dob|mrn|accession|address|phone|mail|insurance|(first|last|sur|given|family|full).?name|^name$|"
    "uid|ssn|nhs|record|(^|[ _-])id$",
    re.IGNORECASE,
)


def breakdown_numbers(config: EvaluateConfig, scores: Scores, rows: pa.Table) -> dict[str, Any]:
    """Return what metrics.json says by class, threshold, patient and subgroup. rows: the scans of `scores`."""
    return {
        "rates": breakdown.class_rates(scores),
        "precision_recall": breakdown.operating_points(scores),
        "patients": breakdown.patients(scores, rows["patient_id"].to_pylist()),
        "subgroups": breakdown.subgroups(scores, _columns(config, rows)),
        "content_sha256": data_fingerprint(rows["content_sha256"].to_pylist(), rows["label"].to_pylist()),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "mribatch": __version__,
    }


def _columns(config: EvaluateConfig, rows: pa.Table) -> dict[str, list[str | None]]:
    """Return the manifest's further columns, row by row, without those that may name people."""
    if not manifest.is_manifest(config.data):
        return {}
    others = manifest.other_columns(config.data)
    row_of = {uri: row for row, uri in enumerate(others["scan_uri"].to_pylist())}
    order = pa.array([row_of.get(uri) for uri in file_uris(rows).to_pylist()], pa.int64())
    names = [name for name in others.column_names[1:] if not _NAMES_PEOPLE.search(name)]
    return {name: others[name].take(order).to_pylist() for name in names}
