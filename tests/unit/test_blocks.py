"""The blocks of a scoring run: how large they are, and that each task carries its own rows only. No Ray is started."""

import pickle
import subprocess
import sys
from itertools import pairwise

import pyarrow as pa
import pytest

from mribatch import schema
from mribatch.cluster.blocks import at_once, even, growing, tasks_of


def listing(scans: int, file_bytes: int = 20_000) -> pa.Table:
    names = [f"/archive/{number:07}.jpg" for number in range(scans)]
    return pa.table([names, [f"{file_bytes}-1"] * scans], schema=schema.PLAN)


@pytest.mark.parametrize("scans", [1, 17, 32, 655, 6_363, 100_001])
@pytest.mark.parametrize("cores", [1, 2, 64])
def test_blocks_hold_all_scans_in_whole_batches_and_the_first_is_one_batch(scans: int, cores: int) -> None:
    blocks = growing(listing(scans), 32, 224, cores)
    assert sum(blocks) == scans
    assert all(rows % 32 == 0 for rows in blocks[:-1])
    assert blocks[0] == min(scans, 32)
    assert all(later <= 2 * earlier for earlier, later in pairwise(blocks))


@pytest.mark.parametrize(("side_px", "most"), [(32, 256), (224, 256), (299, 128), (512, 32), (2_000, 32)])
def test_blocks_of_a_large_listing_hold_256_scans_or_40_mb_of_pixels(side_px: int, most: int) -> None:
    assert max(growing(listing(10_000), 32, side_px, 2)) == most


def test_a_batch_larger_than_a_block_is_a_block() -> None:
    assert growing(listing(1_500), 500, 224, 1) == [500, 500, 500]


def test_every_core_has_two_blocks_at_least_of_a_small_listing() -> None:
    assert max(growing(listing(655), 32, 224, 2)) == 160
    assert max(growing(listing(655), 32, 224, 64)) == 32


def test_files_that_decode_for_long_are_in_blocks_of_one_batch() -> None:
    assert set(growing(listing(960, file_bytes=50 << 20), 32, 224, 2)) == {32}


def test_even_blocks_hold_all_rows_and_no_rows_make_an_empty_block() -> None:
    assert (even(65, 32), even(64, 32), even(0, 32)) == ([32, 32, 1], [32, 32], [0])


def test_a_task_carries_the_rows_of_its_block_and_no_others() -> None:
    table = listing(10_000)
    tasks = tasks_of(table, even(10_000, 100))
    sent = [pickle.dumps(task.read_fn) for task in tasks]
    assert max(map(len, sent)) < 10_000, "100 names and versions"
    assert pa.concat_tables(rows for data in sent for rows in pickle.loads(data)()).equals(table)


@pytest.mark.parametrize(
    ("rows", "threads", "side_px", "cores", "expected"),
    [
        (6_363, 2, 192, 2, 64),
        (6_363, 8, 192, 8, 256),
        (100_000, 8, 299, 8, 128),
        (1_000, 8, 192, 80, 32),
        (17, 2, 192, 2, 32),
        (100_000, None, 192, 64, 32),
    ],
    ids=["two threads", "eight threads", "large pictures", "few scans for many cores", "a small run", "a GPU"],
)
def test_a_predictor_gets_32_scans_for_each_of_its_threads_as_long_as_all_predictors_get_some(
    rows: int, threads: int | None, side_px: int, cores: int, expected: int
) -> None:
    assert at_once(rows, 32, threads, side_px, cores) == expected


def test_the_object_store_need_not_be_half_full_before_decoders_wait_for_predictors() -> None:
    """Blocks of 40 MB filled 0.6 GB before predictors that had three of them."""
    program = """
import mribatch.cluster.streaming
from ray.data._internal.execution.backpressure_policy import DownstreamCapacityBackpressurePolicy as Policy
print(Policy.OBJECT_STORE_BUDGET_UTIL_THRESHOLD)
"""
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert float(printed) == 0
