"""The feed of a training worker: which scans, in which order, for any number of workers. Ray is not started."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mribatch.errors import RunFailed
from mribatch.training.feed import Feed, ahead
from mribatch.training.step import Batch


def names(count: int) -> pa.Table:
    return pa.table({"scan_uri": [f"/scans/{number}" for number in range(count)]})


def no_decoding(*_: object) -> Any:
    raise AssertionError("these tests decode nothing")


def feeds(workers: int, batch_scans: int, *, training: int = 50, validation: int = 7, seed: int = 0) -> list[Feed]:
    first = Feed(
        training=names(training),
        validation=names(validation),
        side_px=32,
        batch_scans=batch_scans,
        restart_flag="--run-name",
        workers=workers,
        rank=0,
        seed=seed,
        decode=no_decoding,
    )
    return [replace(first, rank=rank) for rank in range(workers)]


def global_batches(of: list[Feed], epoch: int) -> list[set[int]]:
    shares = [feed.training_rows(epoch).reshape(feed.steps, feed.batch_scans) for feed in of]
    return [{int(row) for share in shares for row in share[step]} for step in range(of[0].steps)]


@pytest.mark.parametrize("workers", [2, 4])
def test_the_global_batches_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    assert global_batches(feeds(workers, 8 // workers), epoch=3) == global_batches(feeds(1, 8), epoch=3)


def test_an_epoch_has_no_scan_twice_and_leaves_out_less_than_a_global_batch() -> None:
    rows = [row for batch in global_batches(feeds(2, 4), epoch=0) for row in batch]
    assert len(rows) == len(set(rows)) == 48


def test_each_epoch_has_its_own_order_and_keeps_it_when_it_is_restarted() -> None:
    (feed,), (again,), (other,) = feeds(1, 8), feeds(1, 8), feeds(1, 8, seed=1)
    first = feed.training_rows(0)
    assert np.array_equal(first, again.training_rows(0))
    assert not np.array_equal(first, feed.training_rows(1))
    assert not np.array_equal(first, other.training_rows(0))
    assert not np.array_equal(first, np.arange(48)), "scans are not in the order of the listing"


def test_a_scan_left_out_of_one_epoch_is_in_another() -> None:
    (feed,) = feeds(1, 8)
    assert {int(row) for epoch in range(30) for row in feed.training_rows(epoch)} == set(range(50))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_all_workers_validate_the_same_number_of_scans_and_together_all_of_them_once(workers: int) -> None:
    shares = [feed.validation_rows() for feed in feeds(workers, 2, validation=7)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(row for share in shares for row in share if row < 7) == list(range(7))


def test_too_few_scans_for_a_global_batch_make_no_step() -> None:
    assert feeds(2, 8, training=15)[0].steps == 0
    assert len(feeds(2, 8, training=15)[0].training_rows(0)) == 0


def batches(count: int, begun: threading.Event) -> Iterator[Batch]:
    begun.set()
    for number in range(count):
        yield np.zeros((1, 32, 32, 3), np.uint8), np.array([number]), np.ones(1, np.float32)


def test_fetching_ahead_starts_at_once_and_loses_no_batch() -> None:
    begun = threading.Event()
    fetched = ahead(batches(3, begun))
    assert begun.wait(30)
    assert [int(classes[0]) for _, classes, _ in fetched] == [0, 1, 2]
    assert list(ahead(batches(0, begun))) == []


def test_an_error_while_fetching_ahead_reaches_the_reader() -> None:
    def lost() -> Iterator[Batch]:
        raise RunFailed("1 training scans changed")
        yield

    fetched = ahead(lost())
    with pytest.raises(RunFailed, match="1 training scans changed"):
        next(fetched)
