"""What `uris`, the lock, the ledger and labels promise on S3, against a real server."""

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import moto.core
import moto.s3
import moto.settings
import pytest
from botocore.exceptions import ClientError

from mribatch.cluster import decoding
from mribatch.errors import (
    ConfigError,
    CredentialsRefused,
    InputError,
    MribatchError,
    OutputHeld,
    ScanChanged,
    ScanVanished,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageMissing,
    StorageUnavailable,
)
from mribatch.predictions import ledger, lock
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Reason
from mribatch.sources.labels import labelled
from mribatch.sources.listing import archive, list_scans
from mribatch.stores import client, retry, uris
from tests.conftest import write_scans
from tests.unit.test_ledger import DIGEST, listing, part
from tests.unit.test_lock import Clock, race
from tests.unit.test_uris import STRANGE, TREE

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One try and no patience: AWS_MAX_ATTEMPTS is the setting of all AWS clients."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def fill(bucket: str, *names: str) -> None:
    for name in names:
        uris.put(f"{bucket}/{name}", name.encode())


def below(bucket: str, uri: str) -> list[str]:
    return sorted(uris.relative(entry.uri, bucket) for entry in uris.walk(uri))


# Listing


def test_a_prefix_is_a_folder_and_its_neighbours_are_not_in_it(bucket: str) -> None:
    fill(bucket, "scans/a.jpg", "scans/x/b.jpg", "scans-old/c.jpg", "scans.txt", "scans!", "d.jpg")
    for uri in (f"{bucket}/scans", f"{bucket}/scans/"):
        assert below(bucket, uri) == ["scans/a.jpg", "scans/x/b.jpg"]
    assert below(bucket, f"{bucket}/scans/a.jpg") == ["scans/a.jpg"]
    assert below(bucket, bucket) == below(bucket, f"{bucket}/")
    assert len(below(bucket, bucket)) == 6
    with pytest.raises(StorageMissing, match=r"no object at or below .*/scan:"):
        below(bucket, f"{bucket}/scan")


def test_a_key_may_be_an_object_and_a_folder_at_once(bucket: str) -> None:
    fill(bucket, "a", "a/b", "a0")
    assert below(bucket, f"{bucket}/a") == ["a", "a/b"]


def test_hidden_names_and_the_marks_of_folders_are_passed_over(bucket: str, s3_client: "S3Client") -> None:
    fill(bucket, "a/x.jpg", "a/.hidden", "a/.git/y.jpg", ".top/z.jpg")
    for mark in ("a/", "b/", "a/c/"):
        s3_client.put_object(Bucket=bucket.removeprefix("s3://"), Key=mark)
    assert below(bucket, bucket) == ["a/x.jpg"]
    assert below(bucket, f"{bucket}/b") == []  # an empty folder
    assert below(bucket, f"{bucket}/.top") == [".top/z.jpg"]  # asked for by name
    assert below(bucket, f"{bucket}/a/.git/y.jpg") == ["a/.git/y.jpg"]
    assert uris.folders(bucket) == ["a", "b"]
    assert uris.names(bucket) == [".top", "a", "b"]
    assert uris.names(f"{bucket}/a") == [".git", ".hidden", "c", "x.jpg"]
    assert uris.names(f"{bucket}/a", ".h") == [".hidden"]
    assert uris.names(f"{bucket}/absent") == []


def test_junk_is_in_no_listing_of_a_bucket(bucket: str) -> None:
    junk = ["@eaDir/x.jpg", "__MACOSX/._x.jpg", "Thumbs.db", "glioma_$folder$", "_SUCCESS", "lost+found/x.jpg"]
    fill(bucket, *junk, *(f"glioma/{name}" for name in junk), "glioma/a.jpg", "train.zip", "notumor/a.jpg")
    assert below(bucket, bucket) == ["glioma/a.jpg", "notumor/a.jpg", "train.zip"]
    assert below(bucket, f"{bucket}/*/*") == ["glioma/a.jpg", "notumor/a.jpg"]
    assert uris.folders(bucket) == ["glioma", "notumor"]
    assert labelled(bucket)["label"].to_pylist() == ["glioma", "notumor"]


def test_an_empty_bucket_is_an_empty_folder(bucket: str) -> None:
    assert list(uris.walk(bucket)) == []
    assert uris.names(bucket) == []


@pytest.mark.parametrize("name", [name for name in STRANGE if "\n" not in name])  # moto's server has no way to these
def test_a_strange_key_is_listed_read_and_written_as_it_is(bucket: str, s3_client: "S3Client", name: str) -> None:
    uri = uris.join(bucket, name, name)
    uris.put(uri, b"data")
    (found,) = s3_client.list_objects_v2(Bucket=bucket.removeprefix("s3://"))["Contents"]
    assert found["Key"] == f"{name}/{name}"
    (entry,) = uris.walk(uris.join(bucket, name))
    assert entry.uri == uri
    assert uris.read_version(entry.uri, entry.version) == b"data"
    assert uris.names(uris.join(bucket, name)) == uris.folders(bucket) == [name]
    assert list(uris.find([uri])) == list(uris.walk(uri)) == [entry]
    assert not uris.create(uri, b"")
    uris.delete(uri)
    assert list(uris.walk(bucket)) == []


def test_a_listing_goes_on_over_a_thousand_objects(bucket: str) -> None:
    names = [f"{number % 2}/{number:04d}.jpg" for number in range(2100)]
    store = moto.s3.s3_backends[moto.core.DEFAULT_ACCOUNT_ID]["aws"]  # the server's own: in by its door takes 10 s
    for name in names:
        store.put_object(bucket.removeprefix("s3://"), name, b"")
    assert below(bucket, bucket) == sorted(names)
    assert below(bucket, f"{bucket}/*/1*.jpg") == sorted(name for name in names if name.split("/")[1].startswith("1"))
    assert len(uris.names(f"{bucket}/1")) == 1050
    assert len(list(uris.find(f"{bucket}/{name}" for name in names[::7]))) == 300


@pytest.mark.parametrize(
    "glob",
    ["*.jpg", "*.[jJ][pP][gG]", "**/*.jpg", "x/**", "x/**/a.jpg", "?.jpg", "p[0-9]/*", "p[!0-9]", "p?", "x*", "*/y/",
     "[xp]*/a.jpg", "x", "*.dcm", "[z-a].jpg", ".*", "*/.h.jpg", "a.jpg/*"],
)  # fmt: skip
def test_a_glob_means_on_s3_what_it_means_on_disk(bucket: str, tmp_path: Path, glob: str) -> None:
    for root in (bucket, str(tmp_path)):
        for name in TREE:
            uris.put(uris.join(root, name), b"")

    def found(root: str) -> list[str] | str:
        try:
            return below(root, f"{root}/{glob}")
        except InputError as err:
            return str(err).removeprefix(f"no file fits {root}")

    assert found(bucket) == found(str(tmp_path))


@pytest.mark.parametrize(
    ("uri", "exclude"),
    [("", ["x", "nothing"]), ("", ["**/*.jpg", "p?/"]), ("", ["**"]), ("/x", ["y"]), ("/p?/*", ["p1"]), ("/a.jpg", ["a.*"]),
     ("/a.jpg", ["b.*"])],
)  # fmt: skip
def test_an_exclusion_means_on_s3_what_it_means_on_disk(
    bucket: str, tmp_path: Path, uri: str, exclude: list[str]
) -> None:
    left = []
    for root in (bucket, str(tmp_path)):
        for name in TREE:
            uris.put(uris.join(root, name), b"")
        exclusion = uris.Exclusion(exclude)
        names = sorted(uris.relative(entry.uri, root) for entry in uris.walk(f"{root}{uri}", exclusion))
        left.append((names, exclusion.unused))
    assert left[0] == left[1]


def test_own_outputs_on_s3_are_passed_over_and_an_archive_says_what_it_would_list(bucket: str) -> None:
    run = "20250101T000000Z-abc123"
    fill(bucket, "a.jpg", "b/c.jpg", "skip/d.jpg", "out/_runs/0123456789ab.lock-1", f"out/_nights/{run}/nightly.json",
         "b/model=0123456789ab/part-1.parquet", "eval/metrics.json", "eval/report.html", "eval/scans.png")  # fmt: skip
    table, covers = archive([bucket], ["skip"])
    assert table["scan_uri"].to_pylist() == [f"{bucket}/a.jpg", f"{bucket}/b/c.jpg"]
    assert [covers(f"{bucket}/{name}") for name in ("b/gone.jpg", "skip/gone.jpg", "eval/scans.png")] == [
        True,
        False,
        False,
    ]
    assert not covers("s3://another-bucket/a.jpg")


def test_a_name_that_exists_as_it_stands_is_no_glob(bucket: str) -> None:
    fill(bucket, "scan[1].jpg", "scan1.jpg", "[anon]/a.jpg", "[anon]/b.png", "[anon]!", "a/x.jpg")
    assert below(bucket, f"{bucket}/scan[1].jpg") == ["scan[1].jpg"]
    assert below(bucket, f"{bucket}/[anon]") == ["[anon]/a.jpg", "[anon]/b.png"]
    assert below(bucket, f"{bucket}/[anon]/*.jpg") == ["[anon]/a.jpg"]
    assert below(bucket, f"{bucket}/scan[12].jpg") == ["scan1.jpg"]


def test_find_gives_the_objects_that_are_there(bucket: str) -> None:
    fill(bucket, "a/1.jpg", "a/.2.jpg", "a/b/3.jpg", "4.jpg")
    there = {f"{bucket}/{name}" for name in ("a/1.jpg", "a/.2.jpg", "4.jpg")}
    assert {entry.uri for entry in uris.find([*there, f"{bucket}/a", f"{bucket}/a/b", f"{bucket}/c/5.jpg"])} == there


# Versions


def test_what_was_replaced_after_it_was_listed_is_not_read(bucket: str) -> None:
    fill(bucket, "a.jpg")
    (entry,) = uris.walk(bucket)
    assert entry.size == uris.size(entry.uri, entry.version) == 5
    assert uris.read_version(entry.uri, entry.version) == b"a.jpg"
    uris.put(entry.uri, b"b.jpg")
    with pytest.raises(ScanChanged):
        uris.read_version(entry.uri, entry.version)


def test_what_was_written_again_with_the_same_bytes_is_the_same_version(bucket: str) -> None:
    fill(bucket, "a.jpg")
    before = list(uris.walk(bucket))
    fill(bucket, "a.jpg")
    assert list(uris.walk(bucket)) == before


def test_what_was_deleted_after_it_was_listed_has_vanished(bucket: str) -> None:
    fill(bucket, "a.jpg")
    (entry,) = uris.walk(bucket)
    uris.delete(entry.uri)
    uris.delete(entry.uri)
    with pytest.raises(ScanVanished):
        uris.read_version(entry.uri, entry.version)


def test_a_bucket_that_is_gone_is_no_fault_of_the_scan(bucket: str, s3_client: "S3Client") -> None:
    """A vanished scan is final for its version; a scan in a vanished bucket must be tried again."""
    fill(bucket, "a.jpg")
    (entry,) = uris.walk(bucket)
    uris.delete(entry.uri)
    s3_client.delete_bucket(Bucket=bucket.removeprefix("s3://"))
    with pytest.raises(StorageMissing, match="no bucket"):
        uris.read_version(entry.uri, entry.version)


def test_an_object_uploaded_in_parts_keeps_its_version(bucket: str, s3_client: "S3Client") -> None:
    name = {"Bucket": bucket.removeprefix("s3://"), "Key": "a.jpg"}
    upload = s3_client.create_multipart_upload(**name)["UploadId"]
    parts = []
    for number, data in enumerate((b"a" * (5 << 20), b"b"), start=1):
        etag = s3_client.upload_part(**name, UploadId=upload, PartNumber=number, Body=data)["ETag"]
        parts.append({"ETag": etag, "PartNumber": number})
    s3_client.complete_multipart_upload(**name, UploadId=upload, MultipartUpload={"Parts": parts})
    (entry,) = uris.walk(bucket)
    assert "-2-" in entry.version
    assert len(uris.read_version(entry.uri, entry.version)) == uris.size(entry.uri, entry.version) == (5 << 20) + 1


# Exclusive create


def test_of_four_creators_at_once_exactly_one_wins_twenty_times(bucket: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        for turn in range(20):
            start = threading.Barrier(4, timeout=60)

            def create(_: int, uri: str = f"{bucket}/{turn}", start: threading.Barrier = start) -> bool:
                start.wait()
                return uris.create(uri, b"same bytes")  # and yet there is one winner

            assert sorted(threads.map(create, range(4))) == [False, False, False, True]


def answers(monkeypatch: pytest.MonkeyPatch, *told: Callable[[Callable[[], Any]], Any]) -> None:
    """Let what put_object answers be told by others, one call after the other; then by the server again."""
    s3, waiting = client.client(), list(told)
    put = s3.put_object

    def put_object(**request: Any) -> Any:
        def really() -> Any:
            return put(**request)

        return waiting.pop(0)(really) if waiting else really()

    monkeypatch.setattr(s3, "put_object", put_object)


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]


def test_a_create_whose_answer_was_lost_knows_its_own_object(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost_and_asked_again(really: Callable[[], Any]) -> Any:
        really()
        return really()  # 412: boto's retry meets the object of the first try

    answers(monkeypatch, lost_and_asked_again)
    assert uris.create(f"{bucket}/lock", b"data")
    assert not uris.create(f"{bucket}/lock", b"data")


def test_a_create_that_conflicts_asks_again(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(_: Callable[[], Any]) -> Any:
        raise refusal("ConditionalRequestConflict", 409)

    monkeypatch.setattr(retry, "_pause", lambda _: None)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    answers(monkeypatch, conflict, conflict)
    assert uris.create(f"{bucket}/lock", b"data")
    answers(monkeypatch, conflict)
    assert not uris.create(f"{bucket}/lock", b"data")
    answers(monkeypatch, *[conflict] * 9)
    with pytest.raises(StorageUnavailable, match="Conflict"):
        uris.create(f"{bucket}/other", b"data")


# What goes wrong, in one sentence


ACTIONS: list[Callable[[str], object]] = [
    lambda folder: list(uris.walk(folder)),
    lambda folder: list(uris.walk(f"{folder}/*.jpg")),
    lambda folder: list(uris.find([f"{folder}/x"])),
    lambda folder: uris.names(folder),
    lambda folder: uris.read(f"{folder}/x"),
    lambda folder: uris.read_version(f"{folder}/x", "0-0"),
    lambda folder: uris.put(f"{folder}/x", b""),
    lambda folder: uris.create(f"{folder}/x", b""),
    lambda folder: uris.delete(f"{folder}/x"),
]


def fails(error: type[MribatchError], words: str, folder: str) -> None:
    """Every action on a folder ends with this error, in one line and with the URI."""
    for act in ACTIONS:
        with pytest.raises(error, match=words) as caught:
            act(folder)
        assert folder in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("s3_server")
def test_a_bucket_that_is_not_there_is_missing_with_exit_code_2() -> None:
    fails(StorageMissing, "no bucket", "s3://no-such-bucket/scans")
    assert StorageMissing.exit_code == 2


def test_a_probe_of_a_prefix_leaves_nothing_and_a_missing_bucket_is_told(bucket: str) -> None:
    with uris.probe(f"{bucket}/models") as place:
        assert [entry.uri for entry in uris.find([place])] == [place]
    assert uris.names(bucket) == []
    with pytest.raises(StorageMissing, match="no-such-bucket-here"), uris.probe("s3://no-such-bucket-here/models"):
        pytest.fail("there is no such bucket")


def test_credentials_that_the_server_does_not_know_are_denied(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bucket, "a.jpg")
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on the server asks who is there
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fails(
        CredentialsRefused,
        r"refused the credentials .*\(InvalidAccessKeyId\), access key …ting \(env\) on .*: renew them",
        f"{bucket}/scans",
    )
    assert StorageDenied.exit_code == 2


@pytest.mark.usefixtures("s3_server")
def test_no_credentials_at_all_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fails(StorageDenied, "no usable credentials", "s3://bucket/scans")
    monkeypatch.setenv("AWS_PROFILE", "absent")
    fails(StorageDenied, "no usable credentials .*absent", "s3://bucket/scans")


@pytest.mark.usefixtures("s3_server", "impatient")
def test_a_closed_port_is_told_with_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    fails(StorageUnavailable, f"no answer .* from http://127.0.0.1:{port} after all retries", "s3://bucket/scans")
    assert StorageUnavailable.exit_code == 1


@pytest.mark.usefixtures("s3_server")
def test_settings_that_boto_cannot_use_are_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost:9000")
    with pytest.raises(ConfigError, match=r"localhost:9000.*check .*AWS_ENDPOINT_URL_S3"):
        list(uris.walk("s3://bucket/scans"))
    with pytest.raises(ConfigError, match="localhost:9000"):
        uris.filesystem("s3://bucket/scans")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "many")
    with pytest.raises(ConfigError, match=r"many.*AWS_MAX_ATTEMPTS"):
        list(uris.walk("s3://bucket/scans"))


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator["Answering"]:
    with Answering(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        yield server
        server.shutdown()


class Answering(http.server.ThreadingHTTPServer):
    """A server that gives prepared answers, one after the other, the last one again and again."""

    answers: list[tuple[int, bytes, int]]  # status, body, its length as announced
    asked = 0
    modified: str | None = None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body, length = self.server.answers[min(self.server.asked, len(self.server.answers) - 1)]
        self.server.asked += 1
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if self.server.modified:
            self.send_header("Last-Modified", self.server.modified)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    do_PUT = do_HEAD = do_DELETE = do_POST = do_GET  # noqa: N815 - the names are http.server's

    def log_message(self, *_: object) -> None:
        pass


def error(code: str, status: int) -> tuple[int, bytes, int]:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return status, body, len(body)


@pytest.mark.parametrize(
    ("code", "status", "told", "words"),
    [
        ("SlowDown", 503, StorageUnavailable, "answered SlowDown after all retries"),
        ("InternalError", 500, StorageUnavailable, "answered InternalError"),
        ("AccessDenied", 403, StorageDenied, "refused .AccessDenied."),
        ("ExpiredToken", 400, CredentialsRefused, "refused the credentials .*ExpiredToken.*resumes where it was"),
        ("XMinioStorageFull", 507, StorageFull, "no space left"),
        ("InvalidObjectState", 403, StorageError, "InvalidObjectState"),
        ("NotImplemented", 501, StorageError, "NotImplemented"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_what_the_server_refuses_is_told(
    answering: Answering, code: str, status: int, told: type[MribatchError], words: str
) -> None:
    answering.answers = [error(code, status)]
    fails(told, words, "s3://bucket/scans")


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_not_s3_is_told(answering: Answering) -> None:
    page = b"<html><body>Welcome!</body>"
    answering.answers = [(200, page, len(page))]
    with pytest.raises(StorageUnavailable, match="if it is not meant to be S3"):
        list(uris.walk("s3://bucket/scans"))


def test_an_object_whose_date_cannot_be_parsed_is_listed_and_read(answering: Answering) -> None:
    """Gateways to other file systems hand on whatever a file says, in `LastModified` and in the header of the same name."""
    dates = ("1969-12-31T23:59:55.000Z", "0001-01-01T00:00:00Z", "10889-10-24T05:00:00Z", "", "never")
    items = "".join(
        f"<Contents><Key>{n}</Key><LastModified>{date}</LastModified><ETag>&quot;e-{n}&quot;</ETag><Size>4</Size></Contents>"
        for n, date in enumerate(dates)
    )
    body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()
    answering.answers = [(200, body, len(body))]
    entries = list(uris.walk("s3://bucket"))
    assert [entry.version for entry in entries] == [f"e-{n}-4" for n in range(5)]
    assert {uris.size(entry.uri, entry.version) for entry in entries} == {4}
    answering.answers, answering.modified = [(200, b"data", 4)], "Mon, 01 Jan 10889 00:00:00 GMT"
    assert uris.read("s3://bucket/0") == b"data"


def test_a_server_error_is_asked_again(answering: Answering) -> None:
    answering.answers = [error("InternalError", 500), (200, b"data", 4)]
    assert uris.read("s3://bucket/a.jpg") == b"data"


def test_a_body_that_was_cut_is_read_again_and_not_for_ever(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_pause", lambda _: None)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    answering.answers = [(200, b"da", 4), (200, b"", 4), (200, b"data", 4)]
    assert uris.read("s3://bucket/a.jpg") == b"data"
    answering.answers, answering.asked = [(200, b"da", 4)], 0
    with pytest.raises(StorageUnavailable, match="no answer"):
        uris.read("s3://bucket/a.jpg")
    assert answering.asked == 5


# The house on S3


def test_the_lock_is_released_watched_and_taken_over(bucket: str) -> None:
    with lock.held(bucket, DIGEST, "one", lease_s=30) as one:
        clock = Clock()
        with lock.held(bucket, DIGEST, "two", lease_s=30, clock=clock, sleep=clock.sleep) as two:
            assert (two.generation, clock.now >= 30) == (2, True)
            with pytest.raises(OutputHeld, match="run one lost"):
                one.check()
            two.check()
            alive = Clock(lambda: uris.put(f"{bucket}/_runs/{DIGEST}.lock-2", b'{"run_id": "two", "beat": 9}'))
            with (
                pytest.raises(OutputHeld, match="run two"),
                lock.held(bucket, DIGEST, "three", lease_s=30, clock=alive, sleep=alive.sleep),
            ):
                pass
    clock = Clock()
    with lock.held(bucket, DIGEST, "four", lease_s=30, clock=clock, sleep=clock.sleep) as four:
        assert (four.generation, clock.now) == (3, 0)
    assert uris.names(f"{bucket}/_runs") == [f"{DIGEST}.lock-2", f"{DIGEST}.lock-3"]


def test_of_four_takers_at_once_exactly_one_gets_the_lock(bucket: str) -> None:
    for turn in range(5):
        assert sorted(race(f"{bucket}/{turn}", winner=1)) == [False, False, False, True]


@pytest.mark.parametrize("folder", ["out", "a b/50%41/ü+#?=[1]"])
def test_a_plan_and_its_verification_on_s3(bucket: str, folder: str) -> None:
    output, scans = f"{bucket}/{folder}", listing("a", "b", "c")
    assert ledger.plan(scans, output, DIGEST).todo.num_rows == 3
    part(output, "part-1-1.parquet", ["a"])
    planned = ledger.plan(scans, output, DIGEST)
    assert planned.todo["scan_uri"].to_pylist() == ["b", "c"]
    written = part(output, "part-2-2.parquet", ["b", "c"])
    part(output, "part-sleeper-1.parquet", ["c"])
    ledger.verify(planned, output, DIGEST, [written])
    assert ledger.part_names(output, DIGEST) == ["part-1-1.parquet", "part-2-2.parquet"]
    assert ledger.predictions(output, DIGEST, ["scan_uri"])["scan_uri"].to_pylist() == ["a", "b", "c"]
    again = ledger.plan(scans, output, DIGEST)
    assert (again.done, again.todo.num_rows) == (3, 0)
    place = ledger.write_record(output, "run", {"run_id": "run"})
    assert json.loads(uris.read(place)) == {"run_id": "run"}


def test_class_folders_on_s3(bucket: str, s3_client: "S3Client") -> None:
    write_scans(f"{bucket}/data", {"glioma": 2, "no tumor": 2})
    fill(bucket, "data/README.md", "database/x.jpg")
    rows = labelled(f"{bucket}/data/").to_pylist()
    assert [(uris.relative(row["scan_uri"], f"{bucket}/data"), row["label"]) for row in rows] == [
        ("glioma/glioma_0000.png", "glioma"), ("glioma/glioma_0001.jpg", "glioma"),
        ("no tumor/no tumor_0000.png", "no tumor"), ("no tumor/no tumor_0001.jpg", "no tumor"),
    ]  # fmt: skip
    s3_client.put_object(Bucket=bucket.removeprefix("s3://"), Key="data/pituitary/")
    with pytest.raises(InputError, match="data/pituitary"):
        labelled(f"{bucket}/data")


def test_a_manifest_on_s3(bucket: str, tmp_path: Path) -> None:
    fill(bucket, "lists/a.jpg", "scans/b c.jpg", "scans/c.jpg")
    (tmp_path / "d.jpg").write_bytes(b"d")
    rows = f"uri,label\n./a.jpg,x\n../scans/b c.jpg,y\n{bucket}/scans/c.jpg,y\n{tmp_path}/d.jpg,x\n"
    uris.put(f"{bucket}/lists/m.csv", rows.encode())
    found = labelled(f"{bucket}/lists/m.csv")["scan_uri"].to_pylist()
    names = ("lists/a.jpg", "scans/b c.jpg", "scans/c.jpg")
    assert found == [f"{tmp_path}/d.jpg", *(f"{bucket}/{name}" for name in names)]


def test_scans_from_s3_are_decoded_or_keep_their_reason(bucket: str) -> None:
    good, changed, gone = write_scans(bucket, {"a": 3})
    table = list_scans([bucket])
    uris.put(changed, b"other")
    uris.delete(gone)
    rows = decoding.decode_table(table, spec=ImageSpec(side_px=16)).to_pylist()
    assert {row["scan_uri"]: row["reason"] for row in rows} == {
        good: None,
        changed: Reason.CHANGED,
        gone: Reason.VANISHED,
    }


def test_the_arrow_filesystem_reads_what_was_put(bucket: str) -> None:
    uris.put(f"{bucket}/a b/%41+", b"data")
    filesystem, path = uris.filesystem(f"{bucket}/a b/%41+")
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"data"


def test_another_process_finds_the_server(bucket: str) -> None:
    fill(bucket, "a.jpg")
    code = f"from mribatch.stores import uris; print([e.uri for e in uris.walk({bucket!r})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"['{bucket}/a.jpg']"
