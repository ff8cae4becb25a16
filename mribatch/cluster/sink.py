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
from ray.data import Datasink
from ray.data.block import Block
from ray.data.datasource import WriteResult

from mribatch import schema
from mribatch.errors import OutputHeld
from mribatch.predictions import ledger
from mribatch.predictions.ledger import Receipt
from mribatch.predictions.lock import Fence
from mribatch.schema import Status
from mribatch.stores import uris

__all__ = ["PartSink"]


class PartSink(Datasink[Receipt]):
    """Ray Data sink for parts of at least part_rows predictions; afterwards `receipts` says what was written.

    A part is named by the scans in it, so a retried write replaces its own file.
    """

    def __init__(self, fence: Fence, labels: Sequence[str], part_rows: int) -> None:
        self._fence, self._part_rows = fence, part_rows
        self._schema = schema.prediction_schema(labels)
        self.receipts: list[Receipt] = []

    @property
    def min_rows_per_write(self) -> int:
        return self._part_rows

    def write(self, blocks: Iterable[Block], ctx: Any) -> Receipt:  # noqa: ARG002 - Ray's signature
        """Write one part. Raises OutputHeld, leaving no file, if another run has taken over the output."""
        uris.trust([self._fence.output])
        rows = pa.concat_tables([pa.table(block) for block in blocks])
        lost, left = (rows.filter(pc.equal(rows["status"], status)) for status in (Status.FAILED, Status.LEFT))
        kept = rows.filter(pc.invert(pc.is_in(rows["status"], pa.array([Status.FAILED, Status.LEFT], pa.string()))))
        return Receipt(
            part=self._write_part(kept) if kept.num_rows else None,
            rows=kept.num_rows,
            rejected=_counts(kept["reason"]),
            failed=list(zip(lost["scan_uri"].to_pylist(), lost["detail"].to_pylist(), strict=True)),
            left=left["scan_uri"].to_pylist(),
            by_class=_counts(kept["predicted_class"]),
            by_node=_counts(rows["node"]),
            peak_bytes={
                "decoder": pc.max(rows["decoder_peak_bytes"]).as_py(),
                "predictor": pc.max(rows["predictor_peak_bytes"]).as_py(),
                "writer": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
            },
        )

    def on_write_complete(self, write_result: WriteResult[Receipt]) -> None:
        self.receipts = write_result.write_returns

    def _write_part(self, rows: pa.Table) -> str:
        run_ids = pa.array([self._fence.run_id] * rows.num_rows)
        ordered = rows.append_column("run_id", run_ids).select(self._schema.names).sort_by("scan_uri")
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


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(Counter(value for value in column.to_pylist() if value is not None))
