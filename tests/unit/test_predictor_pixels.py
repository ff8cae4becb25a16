"""The pixels of a table reach the model in the order of its rows, wherever rows without pixels stand between them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mribatch.models.predictor import decoded_pixels

SIDE = 4


def table(numbers: Sequence[int | None]) -> pa.Table:
    """Rows whose pixels are all their number; None stands for a skipped row."""
    pixels = [None if number is None else bytes([number] * (SIDE * SIDE * 3)) for number in numbers]
    status = ["skipped" if number is None else "ok" for number in numbers]
    return pa.table({"pixels": pa.array(pixels, pa.large_binary()), "status": status})


def pixels_of(rows: pa.Table) -> NDArray[np.uint8]:
    is_ok = np.asarray(rows["status"].to_pylist()) == "ok"
    return decoded_pixels(rows["pixels"], np.flatnonzero(is_ok), SIDE)


@pytest.mark.parametrize(
    "rows",
    [
        table([1, None, 2, None, None, 3]),
        table([9, 1, None, 2, 3, 9]).slice(1, 4),
        pa.concat_tables([table([None, None]), table([1, 2]), table([3, None])]),
        table([1, 2, 3]),
    ],
    ids=["between", "slice", "chunks", "all"],
)
def test_rows_with_pixels_are_scored_in_their_order(rows: pa.Table) -> None:
    assert pixels_of(rows)[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_a_table_of_skipped_rows_has_no_pixels_and_takes_no_memory_for_them() -> None:
    rows = table([None] * 32)
    assert pixels_of(rows).shape == (0, SIDE, SIDE, 3)
    assert rows["pixels"].nbytes < 1024


def test_pixels_are_not_copied_where_every_row_has_some() -> None:
    rows = table([1, 2])
    values = rows["pixels"].combine_chunks().buffers()[2]
    assert np.shares_memory(pixels_of(rows), np.frombuffer(values, np.uint8))
