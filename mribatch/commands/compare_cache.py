"""Store what each model answered on the test side of a split, so that an interrupted comparison resumes from these files."""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mribatch import schema
from mribatch.commands.rows import scores_of
from mribatch.errors import ModelError
from mribatch.models import directory
from mribatch.settings.compare import BaselinesConfig
from mribatch.sources import clusters
from mribatch.statistics.metrics import Scores
from mribatch.stores import uris

__all__ = ["Answers", "Split", "answered", "clusters_place", "model_place", "stored"]

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

    rows: scan_uri, label, has_copy (the training side has a near copy of it, or another scan of its patient), and p_<label>
    for each label. seconds: for tuning and fitting. chosen: what tuning chose. train_scans: how many it was trained on.
    model_digest: of the model that is kept, the first split's; None for the other splits.
    """

    model: str
    split: int
    rows: pa.Table
    seconds: float
    chosen: dict[str, Any]
    train_scans: int
    model_digest: str | None = None

    def write(self, config: BaselinesConfig, fingerprint: str) -> None:
        """Store these answers for a comparison of these settings and scans."""
        facts = {
            "fingerprint": fingerprint,
            "seconds": self.seconds,
            "chosen": self.chosen,
            "train_scans": self.train_scans,
            "model_digest": self.model_digest,
        }
        data = io.BytesIO()
        pq.write_table(self.rows.replace_schema_metadata({_FACTS: json.dumps(facts)}), data)
        uris.put(uris.join(_folder(config), _file(self.model, self.split)), data.getvalue())

    def scores(self, labels: tuple[str, ...]) -> Scores:
        """Return the answers as scores; float32 probabilities are scaled to sum to 1."""
        return scores_of(self.rows, labels)


def answered(scans: pa.Table, has_copy: NDArray[np.bool_], labels: tuple[str, ...], scores: NDArray[Any]) -> pa.Table:
    """Return the rows of `Answers` for scans (scan_uri, label) and their scores (N, labels)."""
    table = scans.append_column("has_copy", pa.array(has_copy))
    for k, label in enumerate(labels):
        table = table.append_column(schema.probability_column(label), pa.array(np.asarray(scores[:, k], np.float32)))
    return table


def stored(config: BaselinesConfig, fingerprint: str, model: str, split: Split) -> Answers | None:
    """Return the stored answers, None if there are none for these settings and scans.

    Those of the first split count only together with the model directory that gave them.
    """
    folder, file = _folder(config), _file(model, split.number)
    if file not in uris.names(folder):
        return None
    table = pq.ParquetFile(io.BytesIO(uris.read(uris.join(folder, file)))).read()
    facts = json.loads((table.schema.metadata or {}).get(_FACTS, b"{}"))
    if facts.pop("fingerprint", None) != fingerprint:
        return None
    if split.number == 0 and facts["model_digest"] != _kept_digest(config, model):
        return None
    return Answers(model=model, split=split.number, rows=table.replace_schema_metadata(None), **facts)


def model_place(config: BaselinesConfig, name: str) -> str:
    """Return the directory of the model that was fitted on the first split."""
    return uris.join(uris.absolute(config.output), "models", name)


def clusters_place(config: BaselinesConfig) -> str:
    """Return the file of the near-copy clusters: --groups, or the one that the comparison keeps in its output."""
    return config.groups or uris.join(uris.absolute(config.output), clusters.FILE)


def _kept_digest(config: BaselinesConfig, name: str) -> str | None:
    try:
        return directory.open_model(model_place(config, name)).digest
    except ModelError:
        return None


def _folder(config: BaselinesConfig) -> str:
    return uris.join(config.output, "answers")


def _file(model: str, split: int) -> str:
    return f"{model}-{split + 1}.parquet"
