"""What a model answered on the test side of a split, in a file of its own: a comparison that was cut off goes on from these."""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mribatch import schema
from mribatch.stores import uris

__all__ = ["Answers", "Split", "answered"]

_FACTS = b"mribatch.answers"


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split of the labelled scans, by row numbers."""

    number: int  # from 0
    train: list[int]
    test: list[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """The answers of one model on one split.

    rows: scan_uri, label, has_copy (the training side holds a copy of it, or another scan of its patient), and p_<label>
    for each label. seconds: for tuning and fitting. chosen: what tuning chose. train_scans: what it learnt from.
    model_digest: of the model that is kept, the first split's; None for the other splits.
    """

    model: str
    split: int
    rows: pa.Table
    seconds: float
    chosen: dict[str, Any]
    train_scans: int
    model_digest: str | None = None

    @property
    def place(self) -> str:
        return _place(self.model, self.split)

    def write(self, folder: str, fingerprint: str) -> None:
        facts = {"fingerprint": fingerprint, "seconds": self.seconds, "chosen": self.chosen,
                 "train_scans": self.train_scans, "model_digest": self.model_digest}  # fmt: skip
        data = io.BytesIO()
        pq.write_table(self.rows.replace_schema_metadata({_FACTS: json.dumps(facts)}), data)
        uris.put(uris.join(folder, self.place), data.getvalue())

    @classmethod
    def read(cls, folder: str, fingerprint: str, model: str, split: int) -> "Answers | None":
        """None where there are none of these scans and settings."""
        if _place(model, split) not in uris.names(folder):
            return None
        table = pq.ParquetFile(io.BytesIO(uris.read(uris.join(folder, _place(model, split))))).read()
        facts = json.loads((table.schema.metadata or {}).get(_FACTS, b"{}"))
        if facts.pop("fingerprint", None) != fingerprint:
            return None
        return cls(model=model, split=split, rows=table.replace_schema_metadata(None), **facts)


def answered(scans: pa.Table, has_copy: NDArray[np.bool_], labels: tuple[str, ...], scores: NDArray[Any]) -> pa.Table:
    """The rows of `Answers` for scans (scan_uri, label) and their scores (N, labels)."""
    table = scans.append_column("has_copy", pa.array(has_copy))
    for k, label in enumerate(labels):
        table = table.append_column(schema.probability_column(label), pa.array(np.asarray(scores[:, k], np.float32)))
    return table


def _place(model: str, split: int) -> str:
    return f"{model}-{split + 1}.parquet"
