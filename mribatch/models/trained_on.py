"""Keep in a model directory which scans the model was trained on: the SHA-256 of their bytes, never the scans."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mribatch.errors import ModelError, StorageMissing
from mribatch.models.format import Model
from mribatch.stores import uris

__all__ = ["FILE", "read", "write"]

FILE = "training_scans.parquet"


def write(uri: str, sides: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Write the SHA-256 of the scans of each side (training, validation), and return what model.json says of the file."""
    pairs = sorted({(content, side) for side, contents in sides.items() for content in contents})
    columns = {"content_sha256": [content for content, _ in pairs], "side": [side for _, side in pairs]}
    data = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), data, compression="zstd")
    content = data.getvalue().to_pybytes()
    uris.put(uris.join(uri, FILE), content)
    return {"file": FILE, "sha256": hashlib.sha256(content).hexdigest()}


def read(model: Model) -> frozenset[str] | None:
    """Return the SHA-256 of all scans that the model was fitted or chosen on; None for a model without that record.

    Raises ModelError if the file is missing or altered.
    """
    entry = model.facts.get("training", {}).get("scans")
    if entry is None:
        return None
    place = uris.join(model.uri, entry["file"])
    try:
        data = uris.read(place)
    except StorageMissing as err:
        raise ModelError(f"{place} is missing: copy the complete model directory again") from err
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ModelError(f"{place} is not the file that model.json names: copy the complete model directory again")
    return frozenset(pq.ParquetFile(pa.BufferReader(data)).read()["content_sha256"].to_pylist())
