"""Read predictions: an output → one table, of each scan the newest row, and the night that saw it last."""

import re

import pyarrow as pa

from mribatch.learning import artifact
from mribatch.storage import history, uris

__all__ = ["read_predictions"]

_DIGEST = re.compile(r"[0-9a-f]{12}")


def read_predictions(output: str, model: str | None = None, latest: bool = True) -> pa.Table:
    """The predictions in an output, with the columns of a part and `seen_at`, the night that listed the scan last.

    model: a digest, a model directory or a folder of them with CURRENT; None for all models. latest: of each scan the
    rows of one version and one model only, those scored last, of the version that was listed last where it has a row;
    else all. seen_at is null before the first night. Raises StorageError, ModelError, RunFailed.
    """
    digest = model if model is None or _DIGEST.fullmatch(model) else artifact.read(model).digest
    where = uris.absolute(output)
    rows, seen = history.predictions(where, digest), history.seen(where)
    rows = history.newest(rows, seen) if latest else rows
    return rows.join(seen.select(["scan_uri", "seen_at"]), keys="scan_uri").sort_by(
        [("scan_uri", "ascending"), ("frame", "ascending"), ("scored_at", "ascending")]
    )
