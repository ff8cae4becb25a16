"""Check what must hold of an output after any fault, once a run on it has succeeded."""

import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mribatch import schema
from mribatch.predictions import ledger
from mribatch.predictions.lock import RUNS
from mribatch.stores import uris

__all__ = ["check", "failed", "records", "rows"]


def check(output: str, input_uris: Iterable[str], undisturbed: str) -> None:
    """Check that each scan has one row, the same as in an undisturbed run; that records are true; that nothing is left over.

    Outputs and scans may lie on disk or on S3. An output holds the rows of one model.
    """
    order = [(name, "ascending") for name in schema.KEY]
    actual, expected = rows(output).sort_by(order), rows(undisturbed).sort_by(order)
    listed = sorted((entry.uri, entry.version) for entry in uris.find(input_uris))
    for table in (actual, expected):
        keys = list(zip(*(table[name].to_pylist() for name in schema.KEY), strict=True))
        assert len(keys) == len(set(keys)), "a scan has two rows"
        assert sorted(set(listed) - {key[:2] for key in keys}) == [], "a scan is missing"
        assert sorted({key[:2] for key in keys} - set(listed)) == [], "a row belongs to no scan"
    _check_equal(actual, expected)
    for record in records(output):
        _check_record(output, record)
    for folder in (_model_folder(output), uris.join(output, RUNS)):
        assert uris.names(folder, ".") == [], f"a temporary file is left in {folder}"


def rows(output: str) -> pa.Table:
    """Return all rows of an output, read from every visible file of the model's folder: each must open."""
    folder = _model_folder(output)
    files = [uris.read(uris.join(folder, name)) for name in uris.names(folder) if not name.startswith(".")]
    return pa.concat_tables([pq.ParquetFile(io.BytesIO(data)).read() for data in files])


def records(output: str) -> list[dict[str, Any]]:
    """Return the records of all complete runs, in order."""
    folder = uris.join(output, RUNS)
    return [json.loads(uris.read(uris.join(folder, name))) for name in uris.names(folder) if name.endswith(".json")]


def failed(output: str) -> int:
    """Return how many scans the last complete run could not read, and left to the next one."""
    complete = records(output)
    return int(complete[-1]["counts"]["failed"]) if complete else 0


def _check_equal(actual: pa.Table, expected: pa.Table) -> None:
    for name in ("scan_uri", "content_sha256", "status", "reason", "model_digest"):
        assert actual[name].to_pylist() == expected[name].to_pylist(), f"{name} differs"
    for name in (name for name in expected.column_names if name.startswith("p_")):
        ours, theirs = (table[name].to_numpy().astype(float) for table in (actual, expected))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=name)


def _check_record(output: str, record: dict[str, Any]) -> None:
    counts, parts = record["counts"], record["parts"]
    assert sum(counts.values()) == record["plan"]["planned"], "only a complete run has a record"
    assert sum(part["rows"] for part in parts) == counts["ok"] + counts["rejected"], "its parts hold all its rows"
    assert len(record["failed"]) == counts["failed"]
    missing = {part["name"] for part in parts} - set(ledger.part_names(output, record["model_digest"]))
    assert not missing, "a part of a complete run is missing"


def _model_folder(output: str) -> str:
    (name,) = (name for name in uris.folders(output) if name.startswith("model="))
    return uris.join(output, name)
