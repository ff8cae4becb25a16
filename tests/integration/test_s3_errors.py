"""Errors of S3: each action reports them in one sentence, with the URI and the right class."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator

import moto.settings
import pytest

from mribatch.errors import (
    ConfigError,
    CredentialsRefused,
    MribatchError,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageMissing,
    StorageUnavailable,
)
from mribatch.stores import uris
from tests.integration.conftest import fill

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


def check_failures(error: type[MribatchError], words: str, folder: str) -> None:
    """Check that every action on a folder raises this error, in one line and with the URI."""
    for act in ACTIONS:
        with pytest.raises(error, match=words) as caught:
            act(folder)
        assert folder in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("s3_server")
def test_a_bucket_that_does_not_exist_is_missing_with_exit_code_2() -> None:
    check_failures(StorageMissing, "no bucket", "s3://no-such-bucket/scans")
    assert StorageMissing.exit_code == 2


def test_a_probe_leaves_nothing_behind_and_reports_a_missing_bucket(bucket: str) -> None:
    with uris.probe(f"{bucket}/models") as place:
        assert [entry.uri for entry in uris.find([place])] == [place]
    assert uris.names(bucket) == []
    with pytest.raises(StorageMissing, match="no-such-bucket-here"), uris.probe("s3://no-such-bucket-here/models"):
        pytest.fail("this bucket does not exist")


def test_credentials_unknown_to_the_server_are_denied(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bucket, "a.jpg")
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on the server checks credentials
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    check_failures(
        CredentialsRefused,
        r"refused the credentials .*\(InvalidAccessKeyId\), access key …ting \(env\) on .*: renew them",
        f"{bucket}/scans",
    )
    assert StorageDenied.exit_code == 2


@pytest.mark.usefixtures("s3_server")
def test_missing_credentials_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    check_failures(StorageDenied, "no usable credentials", "s3://bucket/scans")
    monkeypatch.setenv("AWS_PROFILE", "absent")
    check_failures(StorageDenied, "no usable credentials .*absent", "s3://bucket/scans")


@pytest.mark.usefixtures("s3_server", "impatient")
def test_a_closed_port_is_reported_with_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    check_failures(
        StorageUnavailable, f"no answer .* from http://127.0.0.1:{port} after all retries", "s3://bucket/scans"
    )
    assert StorageUnavailable.exit_code == 1


@pytest.mark.usefixtures("s3_server")
def test_settings_that_boto_cannot_use_are_config_errors(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Send this process's requests to a server with prepared answers."""
    with Answering(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        yield server
        server.shutdown()


class Answering(http.server.ThreadingHTTPServer):
    """A server that gives prepared answers in turn, and then repeats the last one."""

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
    ("code", "status", "expected", "words"),
    [
        ("SlowDown", 503, StorageUnavailable, "answered SlowDown after all retries"),
        ("InternalError", 500, StorageUnavailable, "answered InternalError"),
        ("AccessDenied", 403, StorageDenied, "refused .AccessDenied."),
        ("ExpiredToken", 400, CredentialsRefused, "refused the credentials .*ExpiredToken.*resumes where it stopped"),
        ("XMinioStorageFull", 507, StorageFull, "no space left"),
        ("InvalidObjectState", 403, StorageError, "InvalidObjectState"),
        ("NotImplemented", 501, StorageError, "NotImplemented"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_refusal_of_the_server_becomes_the_fitting_error(
    answering: Answering, code: str, status: int, expected: type[MribatchError], words: str
) -> None:
    answering.answers = [error(code, status)]
    check_failures(expected, words, "s3://bucket/scans")


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_not_s3_is_reported(answering: Answering) -> None:
    page = b"<html><body>Welcome!</body>"
    answering.answers = [(200, page, len(page))]
    with pytest.raises(StorageUnavailable, match="if it is not Amazon S3"):
        list(uris.walk("s3://bucket/scans"))


def test_an_object_whose_date_cannot_be_parsed_is_listed_and_read(answering: Answering) -> None:
    """Gateways to file systems pass on any date of a file, in `LastModified` and in the header of that name."""
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


def test_a_request_is_retried_after_a_server_error(answering: Answering) -> None:
    answering.answers = [error("InternalError", 500), (200, b"data", 4)]
    assert uris.read("s3://bucket/a.jpg") == b"data"


@pytest.mark.usefixtures("no_pauses")
def test_a_body_that_was_cut_is_read_again_but_not_forever(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    answering.answers = [(200, b"da", 4), (200, b"", 4), (200, b"data", 4)]
    assert uris.read("s3://bucket/a.jpg") == b"data"
    answering.answers, answering.asked = [(200, b"da", 4)], 0
    with pytest.raises(StorageUnavailable, match="no answer"):
        uris.read("s3://bucket/a.jpg")
    assert answering.asked == 5
