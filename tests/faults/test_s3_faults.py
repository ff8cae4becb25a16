"""S3 that refuses, resets, drops answers, cuts bodies and goes down: nothing is lost, or the error is clear."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from mribatch.errors import StorageMissing, StorageUnavailable
from mribatch.models.format import Model
from mribatch.stores import uris
from tests.conftest import write_scans
from tests.faults import standard
from tests.faults.conftest import Start, Tell
from tests.faults.processes import Job, score_flags, until
from tests.faults.s3_proxy import S3Proxy

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

REFUSALS = {"500", "502", "503", "504", "SlowDown", "RequestTimeout", "reset"}


class Before(Protocol):
    """Put a proxy before the server, for this process and those it starts, until the test ends."""

    def __call__(self, *, share: float = 0, lost_share: float = 0, cut_share: float = 0, seed: int = 0) -> S3Proxy: ...


@pytest.fixture
def before(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Before]:
    proxies: list[S3Proxy] = []

    def put(*, share: float = 0, lost_share: float = 0, cut_share: float = 0, seed: int = 0) -> S3Proxy:
        proxy = S3Proxy(s3_server, share=share, lost_share=lost_share, cut_share=cut_share, seed=seed)
        proxies.append(proxy.__enter__())
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        return proxy

    yield put
    for proxy in proxies:
        proxy.__exit__(None, None, None)


# uris


def live(folder: str, number: int) -> None:
    """Create, read, replace, list and delete one object, in nine operations."""
    uri, data = f"{folder}/{number}/x", os.urandom(number * 997)
    assert uris.create(uri, b"first")
    assert not uris.create(uri, b"second")
    assert uris.read(uri) == b"first"
    uris.put(uri, data)
    assert uris.names(uris.parent(uri)) == ["x"]
    (entry,) = uris.walk(uri)
    assert uris.read_version(entry.uri, entry.version) == data
    uris.delete(uri)
    with pytest.raises(StorageMissing):
        uris.read(uri)


@pytest.mark.parametrize("share", [0.05, 0.20])
def test_two_hundred_operations_succeed_while_requests_fail(bucket: str, before: Before, share: float) -> None:
    proxy = before(share=share, seed=1)
    with ThreadPoolExecutor(16) as threads:  # they mostly wait between retries
        list(threads.map(lambda number: live(bucket, number), range(25)))
    given = proxy.injected.total() / proxy.asked
    assert share / 2 < given < share * 2
    assert share < 0.2 or set(proxy.injected) == REFUSALS


def test_a_put_whose_answer_is_lost_returns_and_leaves_the_object_complete(bucket: str, before: Before) -> None:
    proxy, data = before(), os.urandom(300_000)
    proxy.lose_next_put_answers(2)
    uris.put(f"{bucket}/part.parquet", data)
    assert uris.read(f"{bucket}/part.parquet") == data
    assert uris.names(bucket) == ["part.parquet"]
    assert proxy.injected == {"lost": 2}


def test_a_create_whose_answer_is_lost_recognises_its_own_object(bucket: str, before: Before) -> None:
    proxy = before()
    proxy.lose_next_put_answers(1)
    assert uris.create(f"{bucket}/lock", b"mine")
    assert proxy.injected == {"lost": 1}
    assert not uris.create(f"{bucket}/lock", b"another's")
    assert uris.read(f"{bucket}/lock") == b"mine"


def test_of_four_creators_the_one_whose_object_is_stored_wins_even_when_answers_are_lost(
    bucket: str, before: Before
) -> None:
    proxy = before(lost_share=0.7, share=0.05, seed=2)
    with ThreadPoolExecutor(4) as threads:
        for turn in range(8):
            uri, start = f"{bucket}/{turn}", threading.Barrier(4, timeout=60)

            def create(number: int, uri: str = uri, start: threading.Barrier = start) -> bool:
                start.wait()
                return uris.create(uri, str(number).encode())

            won = list(threads.map(create, range(4)))
            assert won == [str(number).encode() == uris.read(uri) for number in range(4)]
    assert proxy.injected["lost"] >= 3


def test_a_body_that_is_cut_is_read_again_and_never_returned_short(bucket: str, before: Before) -> None:
    sizes = [1, 2, 1000, 70_000, 500_000]
    for size in sizes:
        uris.put(f"{bucket}/{size}", os.urandom(size))
    intact = {size: uris.read(f"{bucket}/{size}") for size in sizes}
    entries = {entry.size: entry for entry in uris.walk(bucket)}
    proxy = before(cut_share=0.1, seed=3)
    for _ in range(10):
        for size in sizes:
            assert len(intact[size]) == size
            assert uris.read(f"{bucket}/{size}") == intact[size]
            assert uris.read_version(entries[size].uri, entries[size].version) == intact[size]
    assert proxy.injected["cut"] >= 5


def test_a_listing_that_is_cut_is_never_mistaken_for_a_short_one(bucket: str, before: Before) -> None:
    names = [f"{number:03d}" for number in range(60)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: uris.put(f"{bucket}/{name}", b""), names))
    proxy = before(cut_share=0.2, seed=4)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(uris.names, [bucket] * 60)) == [names] * 60
    assert proxy.injected["cut"] >= 2


def test_a_refusal_whose_body_breaks_off_is_still_a_refusal(
    bucket: str, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto does not translate errors while it reads an error's body: urllib3's own exceptions come out."""
    uris.put(f"{bucket}/x", b"data")
    proxy = before(share=0.3, seed=18)
    proxy.breaks_refusals = True
    assert [uris.read(f"{bucket}/x") for _ in range(10)] == [b"data"] * 10
    assert proxy.injected.total() >= 3
    proxy.share = 1
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with pytest.raises(StorageUnavailable, match="run the command again"):
        uris.read(f"{bucket}/x")


ACTIONS: list[Callable[[str], object]] = [
    lambda uri: list(uris.walk(uri)),
    lambda uri: list(uris.find([uri])),
    lambda uri: uris.names(uri),
    lambda uri: uris.read(uri),
    lambda uri: uris.read_version(uri, "0-0"),
    lambda uri: uris.put(uri, b""),
    lambda uri: uris.create(uri, b""),
    lambda uri: uris.delete(uri),
]


def test_each_operation_ends_with_advice_when_the_storage_is_down(
    bucket: str, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = before(seed=5)
    proxy.down()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    for act in ACTIONS:
        with pytest.raises(StorageUnavailable, match=r"after all retries.*run the command again") as caught:
            act(f"{bucket}/x")
        assert bucket in str(caught.value)
        assert "\n" not in str(caught.value)
    assert proxy.injected == {"down": 2 * len(ACTIONS)}
    proxy.up()
    assert uris.names(bucket) == []


@pytest.mark.slow
def test_each_operation_survives_an_outage_of_thirty_seconds(bucket: str, before: Before) -> None:
    for name in ("read", "delete"):
        uris.put(f"{bucket}/{name}", b"data")
    proxy = before(seed=6)
    assert uris.names(bucket) == ["delete", "read"]  # a store that has never answered is given less time
    proxy.down()
    again = threading.Timer(30, proxy.up)
    again.start()
    with ThreadPoolExecutor(5) as threads:
        reading = threads.submit(uris.read, f"{bucket}/read")
        listing = threads.submit(uris.names, f"{bucket}/x")
        creating = threads.submit(uris.create, f"{bucket}/x/created", b"data")
        writing = [threads.submit(uris.put, f"{bucket}/put", b"data"), threads.submit(uris.delete, f"{bucket}/delete")]
    again.join()
    assert (reading.result(), creating.result()) == (b"data", True)
    assert listing.result() in ([], ["created"])
    assert [ended.result() for ended in writing] == [None, None]
    assert uris.names(bucket) == ["put", "read", "x"]
    assert proxy.injected["down"] > 0


@pytest.mark.slow
def test_reads_fail_during_a_permanent_outage_and_later_ones_do_not_wait_as_long(bucket: str, before: Before) -> None:
    before().down()
    begun = time.monotonic()
    for _ in range(30):
        with pytest.raises(StorageUnavailable, match="run the command again"):
            uris.read(f"{bucket}/x")
    assert time.monotonic() - begun < 120


# Runs


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Scans on S3, and the output of an undisturbed run on them."""

    folder: str
    uris: list[str]
    undisturbed: str


def archive(client: "S3Client", model: Model, place: Path, count: int) -> Archive:
    client.create_bucket(Bucket=f"archive-{count}")
    folder, undisturbed, log = f"s3://archive-{count}/scans", str(place / "out"), place / "log"
    scans = write_scans(folder, {"glioma": count // 2, "notumor": count // 2}, side_px=48)
    assert Job("score", *score_flags(model.uri, folder, undisturbed), log=log).end() == 0, log.read_text()
    return Archive(folder=folder, uris=scans, undisturbed=undisturbed)


@pytest.fixture(scope="module")
def quick(s3_client: "S3Client", tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return archive(s3_client, tiny_model, tmp_path_factory.mktemp("quick"), 200)


@pytest.fixture(scope="module")
def full(s3_client: "S3Client", tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return archive(s3_client, tiny_model, tmp_path_factory.mktemp("full"), 1000)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Start the runs of one test: the first behind a proxy, the next one directly on the server."""

    output: str
    model: Model
    start: Start
    tell: Tell
    calm: Callable[[], None]  # make later runs bypass the proxy

    def disturbed(self, source: Archive) -> Job:
        return self.start("score", *score_flags(self.model.uri, source.folder, self.output))

    def finish(self, job: Job, source: Archive, proxy: S3Proxy, fault: str) -> None:
        """Let the run end and a second one do what it left. Then check everything."""
        code, log = job.end(900), job.log.read_text()
        self.calm()
        records, count = standard.records(self.output), len(source.uris)
        assert code in (0, 1, 3), log
        assert "Traceback" not in log, log
        if code == 1:
            assert [line for line in log.splitlines() if line.startswith("error: ")] == log.splitlines()[-1:], log
        else:
            assert len(records) == 1
        left = standard.failed(self.output)
        if records:
            assert standard.rows(self.output).num_rows == count - left, "only a complete run has a record"
        last = self.start("score", *score_flags(self.model.uri, source.folder, self.output))
        assert last.end() == 0, last.log.read_text()
        standard.check(self.output, source.uris, source.undisturbed)
        first = f"{left:,} of them by the next run" if left else "in one run"
        outcome = f"{count:,} rows, {first if records else 'after a rerun'}"
        self.tell(fault, f"{proxy.injected.total():,} of {proxy.asked:,} requests", outcome)


@pytest.fixture
def runs(
    bucket: str, tiny_model: Model, start: Start, tell: Tell, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> Runs:
    def calm() -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)

    return Runs(output=f"{bucket}/out", model=tiny_model, start=start, tell=tell, calm=calm)


def test_a_run_loses_nothing_while_every_fifth_request_fails(before: Before, runs: Runs, quick: Archive) -> None:
    proxy = before(share=0.2, seed=10)
    runs.finish(runs.disturbed(quick), quick, proxy, "S3 refuses or resets 20% of the requests")
    assert proxy.injected.total() >= 30
    assert set(proxy.injected) == REFUSALS


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("share", [0.05, 0.20])
def test_a_thousand_scans_are_all_scored_while_requests_fail(
    before: Before, runs: Runs, full: Archive, share: float
) -> None:
    proxy = before(share=share, seed=11)
    runs.finish(runs.disturbed(full), full, proxy, f"S3 refuses or resets {share:.0%} of the requests")
    assert proxy.injected.total() >= 1000 * share / 2
    assert set(proxy.injected) == REFUSALS


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_loses_nothing_while_the_storage_is_down_for_thirty_seconds(
    before: Before, runs: Runs, full: Archive
) -> None:
    proxy = before(seed=12)
    job = runs.disturbed(full)
    until(lambda: proxy.asked > 400 or job.process.poll() is not None)  # it has read a third or less
    proxy.down()
    assert job.process.poll() is None, job.log.read_text()
    time.sleep(30)
    proxy.up()
    runs.finish(job, full, proxy, "S3 is down for 30 s during the run")
    assert proxy.injected["down"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_whose_puts_get_no_answer_loses_nothing_and_writes_nothing_twice(
    before: Before, runs: Runs, full: Archive
) -> None:
    proxy = before(lost_share=0.3, seed=13)
    proxy.lose_next_put_answers(1)  # the lock's
    runs.finish(runs.disturbed(full), full, proxy, "S3 executes 30% of the PUTs without an answer")
    assert proxy.injected["lost"] >= 5


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_whose_downloads_are_cut_scores_complete_scans(before: Before, runs: Runs, full: Archive) -> None:
    proxy = before(cut_share=0.2, seed=14)
    runs.finish(runs.disturbed(full), full, proxy, "S3 cuts 20% of the bodies in half")
    assert proxy.injected["cut"] >= 100
