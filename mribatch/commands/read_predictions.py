"""Read predictions: an output → one table with the newest row of each scan, and the night that last listed it."""

import re

import pyarrow as pa

from mribatch.errors import ModelError
from mribatch.models import directory
from mribatch.predictions import history, ledger
from mribatch.predictions.files import file_uris
from mribatch.stores import uris

__all__ = ["read_predictions"]

_DIGEST = re.compile(r"[0-9a-f]{12}")


def read_predictions(output: str, model: str | None = None, latest: bool = True) -> pa.Table:
    """Return the predictions in an output, with the columns of a part and `seen_at`, the night that last listed the scan.

    model: a digest, a model directory or a folder of them with CURRENT; None for all models. latest: return only the
    newest rows of each scan: of the version that was listed last if it has a row, and of the model that scored it last.
    seen_at is null before the first night. Raises StorageMissing if there is no output, InputError for another kind of
    folder, ModelError for a model without rows there, and StorageError, RunFailed.
    """
    folder = uris.absolute(output)
    ledger.check_output(folder)
    digest = None if model is None else _digest(folder, model)
    rows, listed = history.predictions(folder, digest), history.last_listing(folder)
    rows = history.newest(rows, listed) if latest else rows
    files = rows.append_column("file", file_uris(rows))
    joined = files.join(listed.select(["scan_uri", "seen_at"]), keys="file", right_keys="scan_uri")
    return joined.drop_columns(["file"]).sort_by(
        [("scan_uri", "ascending"), ("frame", "ascending"), ("scored_at", "ascending")]
    )


def _digest(output: str, model: str) -> str:
    """Return the digest of a model that has rows in an output."""
    digest = model if _DIGEST.fullmatch(model) else directory.load_model(model).digest
    known = [name for name in ledger.digests(output) if ledger.part_names(output, name)]
    if digest not in known:
        raise ModelError(
            f"model {digest} has no rows in {output}, which has rows of {', '.join(known) or 'none'}: use one of these, or "
            "score with that model first"
        )
    return digest
