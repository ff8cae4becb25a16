"""Read predictions: an output → one table, of each scan the newest row, and the night that saw it last."""

import re

import pyarrow as pa

from mribatch.errors import ModelError
from mribatch.models import directory
from mribatch.predictions import history, ledger
from mribatch.stores import uris

__all__ = ["read_predictions"]

_DIGEST = re.compile(r"[0-9a-f]{12}")


def read_predictions(output: str, model: str | None = None, latest: bool = True) -> pa.Table:
    """The predictions in an output, with the columns of a part and `seen_at`, the night that listed the scan last.

    model: a digest, a model directory or a folder of them with CURRENT; None for all models. latest: of each scan the
    rows of one version and one model only, those scored last, of the version that was listed last where it has a row;
    else all. seen_at is null before the first night. Raises StorageMissing where there is no output, InputError for a
    folder that is none, ModelError for a model without rows there, and StorageError, RunFailed.
    """
    where = uris.absolute(output)
    ledger.check_output(where)
    digest = None if model is None else _digest(where, model)
    rows, seen = history.predictions(where, digest), history.seen(where)
    rows = history.newest(rows, seen) if latest else rows
    return rows.join(seen.select(["scan_uri", "seen_at"]), keys="scan_uri").sort_by(
        [("scan_uri", "ascending"), ("frame", "ascending"), ("scored_at", "ascending")]
    )


def _digest(output: str, model: str) -> str:
    """Return the digest of a model that has rows in an output."""
    digest = model if _DIGEST.fullmatch(model) else directory.load_model(model).digest
    known = [name for name in ledger.digests(output) if ledger.part_names(output, name)]
    if digest not in known:
        raise ModelError(f"model {digest} has no rows in {output}, which has rows of {', '.join(known) or 'none'}: "
                         "give one of these, or score with that model first")  # fmt: skip
    return digest
