"""Objects on a real S3 server: versions, exclusive create, and access from Arrow and from other processes."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from mribatch.errors import ScanChanged, ScanVanished, StorageMissing, StorageUnavailable
from mribatch.stores import client, uris
from tests.integration.conftest import fill

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# Versions


def test_an_object_replaced_after_it_was_listed_is_not_read(bucket: str) -> None:
    fill(bucket, "a.jpg")
    (entry,) = uris.walk(bucket)
    assert entry.size == uris.size(entry.uri, entry.version) == 5
    assert uris.read_version(entry.uri, entry.version) == b"a.jpg"
    uris.put(entry.uri, b"b.jpg")
    with pytest.raises(ScanChanged):
        uris.read_version(entry.uri, entry.version)


def test_an_object_rewritten_with_the_same_bytes_keeps_its_version(bucket: str) -> None:
    fill(bucket, "a.jpg")
    before = list(uris.walk(bucket))
    fill(bucket, "a.jpg")
    assert list(uris.walk(bucket)) == before


def test_an_object_deleted_after_it_was_listed_has_vanished(bucket: str) -> None:
    fill(bucket, "a.jpg")
    (entry,) = uris.walk(bucket)
    uris.delete(entry.uri)
    uris.delete(entry.uri)
    with pytest.raises(ScanVanished):
        uris.read_version(entry.uri, entry.version)


def test_a_deleted_bucket_is_not_the_fault_of_the_scan(bucket: str, s3_client: "S3Client") -> None:
    """A vanished scan is final for its version, whereas a scan in a deleted bucket must be retried."""
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


def test_exactly_one_of_four_simultaneous_creators_wins_twenty_times(bucket: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        for turn in range(20):
            start = threading.Barrier(4, timeout=60)

            def create(_: int, uri: str = f"{bucket}/{turn}", start: threading.Barrier = start) -> bool:
                start.wait()
                return uris.create(uri, b"same bytes")  # the same bytes, and yet only one winner

            assert sorted(threads.map(create, range(4))) == [False, False, False, True]


def answers(monkeypatch: pytest.MonkeyPatch, *prepared: Callable[[Callable[[], Any]], Any]) -> None:
    """Answer calls of put_object by these functions, one call after the other; later calls by the server."""
    s3, waiting = client.client(), list(prepared)
    put = s3.put_object

    def put_object(**request: Any) -> Any:
        def really() -> Any:
            return put(**request)

        return waiting.pop(0)(really) if waiting else really()

    monkeypatch.setattr(s3, "put_object", put_object)


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]


def test_a_create_whose_answer_was_lost_recognises_its_own_object(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost_and_asked_again(really: Callable[[], Any]) -> Any:
        really()
        return really()  # 412: boto's retry finds the object of the first try

    answers(monkeypatch, lost_and_asked_again)
    assert uris.create(f"{bucket}/lock", b"data")
    assert not uris.create(f"{bucket}/lock", b"data")


@pytest.mark.usefixtures("no_pauses")
def test_a_create_that_conflicts_is_retried(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(_: Callable[[], Any]) -> Any:
        raise refusal("ConditionalRequestConflict", 409)

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    answers(monkeypatch, conflict, conflict)
    assert uris.create(f"{bucket}/lock", b"data")
    answers(monkeypatch, conflict)
    assert not uris.create(f"{bucket}/lock", b"data")
    answers(monkeypatch, *[conflict] * 9)
    with pytest.raises(StorageUnavailable, match="Conflict"):
        uris.create(f"{bucket}/other", b"data")


# Arrow and other processes


def test_the_arrow_filesystem_reads_what_was_put(bucket: str) -> None:
    uris.put(f"{bucket}/a b/%41+", b"data")
    filesystem, path = uris.filesystem(f"{bucket}/a b/%41+")
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"data"


def test_another_process_reaches_the_server(bucket: str) -> None:
    fill(bucket, "a.jpg")
    code = f"from mribatch.stores import uris; print([e.uri for e in uris.walk({bucket!r})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"['{bucket}/a.jpg']"
