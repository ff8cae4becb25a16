"""What the driver learns of the work of its predictors. No Ray is started."""

import math
import time

import pyarrow as pa

from mribatch.cluster.batch_rows import progress_of
from mribatch.cluster.work_log import WorkLog
from mribatch.schema import Status


def test_work_that_was_begun_twice_without_an_end_was_begun_once_before() -> None:
    log = WorkLog(math.inf)
    assert [log.begin("batch"), log.begin("batch")] == [(0, False), (1, False)]
    log.hang("batch")
    assert log.begin("batch") == (2, True)
    log.end("batch", scored=3, rejected=1)
    assert log.begin("batch") == (0, False)


def test_progress_adds_up_and_the_first_end_is_that_of_a_loaded_model() -> None:
    log = WorkLog(math.inf)
    assert (log.progress(), log.ready_at()) == ((0, 0), None)
    log.end("start of an actor")
    ready = log.ready_at()
    assert ready is not None
    assert ready <= time.monotonic()
    log.end("batch", scored=3, rejected=1)
    log.end("another", scored=2)
    assert (log.progress(), log.ready_at()) == ((5, 1), ready)


def test_a_run_is_over_at_its_moment() -> None:
    assert WorkLog(time.monotonic()).is_over()
    assert not WorkLog(math.inf).is_over()


def test_a_scan_of_many_frames_counts_once_and_one_that_was_left_not_at_all() -> None:
    frames = [("ok", 0), ("ok", 1), ("ok", 2), (Status.REJECTED, 0), (Status.FAILED, 0), (Status.LEFT, 0)]
    table = pa.table({"status": [str(status) for status, _ in frames], "frame": [frame for _, frame in frames]})
    assert progress_of(table) == (2, 1)
