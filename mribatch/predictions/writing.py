"""Write predictions as Parquet parts, each of which appears complete or not at all, and sum up each write in a receipt."""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from mribatch import child, schema
from mribatch.errors import OutputHeld
from mribatch.predictions.files import file_uris, first_rows, of_files, outcomes
from mribatch.predictions.ledger import Receipt
from mribatch.predictions.lock import Fence
from mribatch.predictions.parts import model_folder
from mribatch.schema import Status
from mribatch.stores import uris

__all__ = ["write_part"]


def write_part(fence: Fence, labels: Sequence[str], rows: pa.Table, arrived: pa.Table) -> Receipt:
    """Write the rows of whole files, with the columns of `schema.WORK`, as one part named by the scans in it.

    Failed files and those left for another run get no rows. arrived: the rows that count as this write's work. Raises
    OutputHeld, leaving no file, if another run has taken over the output.
    """
    lost = of_files(_ended(rows, Status.FAILED))
    left = of_files(_without(_ended(rows, Status.LEFT), lost))
    kept = _without(_without(rows, lost), left)
    ended = outcomes(kept)
    return Receipt(
        part=_put(fence, labels, kept) if kept.num_rows else None,
        rows=kept.num_rows,
        scored=ended.filter(pc.equal(ended["status"], Status.OK)).num_rows,
        rejected=_counts(ended, "reason", Status.REJECTED),
        skipped=_counts(ended, "reason", Status.SKIPPED),
        failed=list(zip(lost["scan_uri"].to_pylist(), lost["detail"].to_pylist(), strict=True)),
        left=left["scan_uri"].to_pylist(),
        by_class=_counts(kept, "predicted_class", Status.OK),
        referred=_counts(kept, "referral_reason", Status.OK),
        by_node=_counts(first_rows(arrived), "node"),
        peak_bytes={
            "decoder": pc.max(arrived["decoder_peak_bytes"]).as_py(),
            "predictor": pc.max(arrived["predictor_peak_bytes"]).as_py(),
            "writer": child.peak_bytes(),
        },
    )


def _put(fence: Fence, labels: Sequence[str], rows: pa.Table) -> str:
    columns = schema.prediction_schema(labels)
    run_ids = pa.array([fence.run_id] * rows.num_rows)
    ordered = (
        rows.append_column("run_id", run_ids)
        .select(columns.names)
        .sort_by([(name, "ascending") for name in schema.KEY])
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(ordered.cast(columns), buffer, compression="zstd")
    keys = repr(list(zip(*(ordered[name].to_pylist() for name in schema.KEY), strict=True)))
    digest = hashlib.sha256(keys.encode()).hexdigest()[:12]
    name = f"part-{fence.run_id}-{digest}-{ordered.num_rows}.parquet"
    fence.check()
    place = uris.join(model_folder(fence.output, fence.digest), name)
    uris.put(place, buffer.getvalue())
    try:
        fence.check()  # the storage may have taken longer than the lease
    except OutputHeld:
        uris.delete(place)
        raise
    return name


def _ended(rows: pa.Table, status: Status) -> pa.Table:
    """Return one row with a status for each file that has some."""
    return outcomes(rows.filter(pc.equal(rows["status"], status)))


def _without(rows: pa.Table, files: pa.Table) -> pa.Table:
    """Return the rows of other files. A run plans one version of each, so the URI names a file."""
    return rows.filter(pc.invert(pc.is_in(file_uris(rows), files["scan_uri"].combine_chunks())))


def _counts(rows: pa.Table, column: str, status: Status | None = None) -> dict[str, int]:
    chosen = rows if status is None else rows.filter(pc.equal(rows["status"], status))
    return dict(Counter(value for value in chosen[column].to_pylist() if value is not None))
