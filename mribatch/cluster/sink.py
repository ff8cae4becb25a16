"""Write rows of predictions as Parquet parts, each of which appears complete or not at all."""

import hashlib
import io
import resource
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import ray
from ray.data import Datasink
from ray.data.block import Block
from ray.data.datasource import WriteResult

from mribatch import schema
from mribatch.cluster.assembly import whole_files
from mribatch.errors import OutputHeld
from mribatch.predictions import ledger
from mribatch.predictions.files import file_uris, first_rows, of_files, outcomes
from mribatch.predictions.ledger import Receipt
from mribatch.predictions.lock import Fence
from mribatch.schema import Status
from mribatch.stores import uris

__all__ = ["PartSink"]


class PartSink(Datasink[Receipt]):
    """Ray Data sink for parts of at least part_rows predictions; afterwards `receipts` says what was written.

    A part is named by the scans in it, so a retried write replaces its own file. All rows of a file enter one part: the
    write that gets the last of them gets the others from the `notes` of the run, an Assembler.
    """

    def __init__(self, fence: Fence, labels: Sequence[str], part_rows: int, notes: Any) -> None:
        self._fence, self._part_rows, self._notes = fence, part_rows, notes
        self._schema = schema.prediction_schema(labels)
        self.receipts: list[Receipt] = []

    @property
    def min_rows_per_write(self) -> int:
        return self._part_rows

    def write(self, blocks: Iterable[Block], ctx: Any) -> Receipt:
        """Write one part. Raises OutputHeld, leaving no file, if another run has taken over the output."""
        uris.trust([self._fence.output])
        arrived = pa.concat_tables([pa.table(block) for block in blocks])
        rows = self._whole(arrived, ctx.task_idx)
        lost = of_files(_ended(rows, Status.FAILED))
        left = of_files(_without(_ended(rows, Status.LEFT), lost))
        kept = _without(_without(rows, lost), left)
        ended = outcomes(kept)
        return Receipt(
            part=self._write_part(kept) if kept.num_rows else None,
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
                "writer": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
            },
        )

    def _whole(self, rows: pa.Table, write: int) -> pa.Table:
        """Return the rows of whole files, also of those whose other rows have arrived elsewhere."""
        is_whole = whole_files(rows)
        if pc.all(is_whole).as_py() is not False:
            return rows
        others: pa.Table = ray.get(self._notes.add.remote(write, rows.filter(pc.invert(is_whole))))
        return pa.concat_tables([rows.filter(is_whole), others])

    def on_write_complete(self, write_result: WriteResult[Receipt]) -> None:
        self.receipts = write_result.write_returns

    def _write_part(self, rows: pa.Table) -> str:
        run_ids = pa.array([self._fence.run_id] * rows.num_rows)
        ordered = (
            rows.append_column("run_id", run_ids)
            .select(self._schema.names)
            .sort_by([(name, "ascending") for name in schema.KEY])
        )
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(ordered.cast(self._schema), buffer, compression="zstd")
        keys = repr(list(zip(*(ordered[name].to_pylist() for name in schema.KEY), strict=True)))
        digest = hashlib.sha256(keys.encode()).hexdigest()[:12]
        name = f"part-{self._fence.run_id}-{digest}-{ordered.num_rows}.parquet"
        self._fence.check()
        place = uris.join(ledger.model_folder(self._fence.output, self._fence.digest), name)
        uris.put(place, buffer.getvalue())
        try:
            self._fence.check()  # the storage may have taken longer than the lease
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
