"""Write what Ray Data has scored as Parquet parts: the rows of a file that several writes have enter one of them."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Datasink
from ray.data.block import Block
from ray.data.datasource import WriteResult

from mribatch.cluster.assembly import whole_files
from mribatch.predictions.ledger import Receipt
from mribatch.predictions.lock import Fence
from mribatch.predictions.writing import write_part
from mribatch.stores import uris

__all__ = ["PartSink"]


class PartSink(Datasink[Receipt]):
    """Ray Data sink for parts of at least part_rows predictions; afterwards `receipts` says what was written.

    A part is named by the scans in it, so a retried write replaces its own file. All rows of a file enter one part: the
    write that gets the last of them gets the others from the `notes` of the run, an Assembler.
    """

    def __init__(self, fence: Fence, labels: Sequence[str], part_rows: int, notes: Any) -> None:
        self._fence, self._labels, self._part_rows, self._notes = fence, labels, part_rows, notes
        self.receipts: list[Receipt] = []

    @property
    def min_rows_per_write(self) -> int:
        return self._part_rows

    def write(self, blocks: Iterable[Block], ctx: Any) -> Receipt:
        """Write one part. Raises OutputHeld, leaving no file, if another run has taken over the output."""
        uris.trust([self._fence.output])
        arrived = pa.concat_tables([pa.table(block) for block in blocks])
        return write_part(self._fence, self._labels, self._whole(arrived, ctx.task_idx), arrived)

    def _whole(self, rows: pa.Table, write: int) -> pa.Table:
        """Return the rows of whole files, also of those whose other rows have arrived elsewhere."""
        is_whole = whole_files(rows)
        if pc.all(is_whole).as_py() is not False:
            return rows
        others: pa.Table = ray.get(self._notes.add.remote(write, rows.filter(pc.invert(is_whole))))
        return pa.concat_tables([rows.filter(is_whole), others])

    def on_write_complete(self, write_result: WriteResult[Receipt]) -> None:
        self.receipts = write_result.write_returns
