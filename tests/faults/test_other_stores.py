"""S3 stores that are not AWS, private certificates, credentials that end: the rows are exact, or the end says why."""

import gc
import os
import pickle
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow.fs
import pytest
import trustme

from mribatch.errors import ConfigError, CredentialsRefused, ScanChanged, StorageDenied, StorageError
from mribatch.learning.artifact import Model
from mribatch.scans.images import ImageSpec
from mribatch.storage import _access, _client, _s3, lock, source, uris
from tests.conftest import write_scans
from tests.faults import standard
from tests.faults.conftest import Archive, Start, Tell
from tests.faults.odd_stores import (
    Asked,
    BillsReaders,
    Both,
    IgnoresConditions,
    OtherChecksums,
    Refusal,
    Refuses,
    RefusesChunks,
    Store,
    StoresChunks,
)
from tests.faults.processes import Job, score_flags
from tests.faults.s3_proxy import S3Proxy

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

OTHERS: list[Callable[[], Store]] = [RefusesChunks, StoresChunks, OtherChecksums]
DIGEST = "0123456789ab"


class Behind(Protocol):
    """Leads this process, and those it starts, to a store before the server; over https without `plain`."""

    def __call__(self, store: Store, *, plain: bool = False) -> S3Proxy: ...


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """What an https server of a private certificate authority needs, and the authority's certificate."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    certificate = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(certificate)
    return context, certificate


@pytest.fixture
def behind(s3_server: str, authority: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    proxies: list[S3Proxy] = []
    for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)

    def lead(store: Store, *, plain: bool = False) -> S3Proxy:
        context, certificate = authority
        proxy = S3Proxy(s3_server, store=store, tls=None if plain else context)
        proxies.append(proxy.__enter__())
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        if not plain:
            monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        return proxy

    yield lead
    for proxy in proxies:
        proxy.__exit__(None, None, None)


# Checksums that came with newer clients


def round_trip(folder: str) -> list[bytes]:
    """What comes back of some bytes: of an object, of one that was created, and as it was listed."""
    data = os.urandom(5000)
    uris.put(f"{folder}/put", data)
    assert uris.create(f"{folder}/created", data)
    (entry,) = uris.find([f"{folder}/put"])
    assert entry.size == len(data)
    return [data, uris.read(f"{folder}/put"), uris.read(f"{folder}/created"), uris.read_version(*entry[:2])]


@pytest.mark.parametrize("store", OTHERS)
def test_bytes_come_back_from_stores_without_the_newer_checksums(
    bucket: str, behind: Behind, store: Callable[[], Store]
) -> None:
    behind(store())
    assert len(set(round_trip(bucket))) == 1


@pytest.mark.parametrize("store", OTHERS)
def test_such_a_store_does_break_a_client_that_insists_on_them(
    bucket: str, behind: Behind, store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own setting stays in force, and the test above would fail with boto's default."""
    behind(store())
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_supported")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises((StorageError, AssertionError)):
        assert len(set(round_trip(bucket))) == 1


@pytest.mark.usefixtures("s3_server")
def test_aws_itself_is_sent_the_newer_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _client.client().meta.config.request_checksum_calculation == "when_required"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert _client.client().meta.config.request_checksum_calculation == "when_supported"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://vpce-1.s3.eu-central-1.vpce.amazonaws.com")
    assert _client.client().meta.config.request_checksum_calculation == "when_supported"


@pytest.mark.parametrize("store", OTHERS)
def test_a_checkpoint_comes_back_from_such_a_store(
    bucket: str, behind: Behind, store: Callable[[], Store], tmp_path: Path
) -> None:
    behind(store())
    filesystem, path = uris.filesystem(f"{bucket}/training/run/checkpoint_1")
    filesystem = pickle.loads(pickle.dumps(filesystem))  # as it goes to workers
    files = {"last.weights.h5": os.urandom(200_000), "state.json": b"{}", "empty": b"", "deep/er/x": b"x"}
    for name, data in files.items():
        place = tmp_path / "here" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    filesystem.create_dir(path)
    pyarrow.fs.copy_files(str(tmp_path / "here"), path, destination_filesystem=filesystem)
    assert {name: uris.read(f"{bucket}/training/run/checkpoint_1/{name}") for name in files} == files
    (tmp_path / "back").mkdir()
    pyarrow.fs.copy_files(path, str(tmp_path / "back"), source_filesystem=filesystem)
    assert {name: (tmp_path / "back" / name).read_bytes() for name in files} == files
    listed = filesystem.get_file_info(pyarrow.fs.FileSelector(path.removesuffix("/checkpoint_1")))
    assert [(info.base_name, info.is_file) for info in listed] == [("checkpoint_1", False)]
    filesystem.delete_dir(path)
    assert filesystem.get_file_info(path).type == pyarrow.fs.FileType.NotFound


def test_a_checkpoint_whose_copy_fails_leaves_no_file_that_looks_whole(bucket: str) -> None:
    filesystem, path = uris.filesystem(f"{bucket}/training")
    stream = filesystem.open_output_stream(f"{path}/last.weights.h5")
    stream.write(b"half")
    del stream
    gc.collect()
    assert uris.names(bucket) == []
    with pytest.raises(FileNotFoundError):
        filesystem.open_input_stream(f"{path}/last.weights.h5")
    with pytest.raises(FileNotFoundError):
        filesystem.get_file_info(pyarrow.fs.FileSelector(path))
    assert filesystem.get_file_info(pyarrow.fs.FileSelector(path, allow_not_found=True)) == []


# A private certificate authority


def test_a_private_authority_is_trusted_by_any_of_the_settings_of_boto(
    bucket: str, behind: Behind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    behind(Store())
    certificate = os.environ["AWS_CA_BUNDLE"]
    uris.put(f"{bucket}/x", b"data")
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    check_both(bucket)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    (tmp_path / "config").write_text(f"[default]\nca_bundle = {certificate}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    check_both(bucket)


def check_both(bucket: str) -> None:
    """The store is reached by ourselves and by what Ray Train is given."""
    assert uris.read(f"{bucket}/x") == b"data"
    filesystem, path = uris.filesystem(f"{bucket}/x")
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"data"


@pytest.mark.parametrize("bundle", ["", "/no/such/file.pem"])
def test_an_unknown_authority_is_wrong_use_and_says_what_to_set(
    bucket: str, behind: Behind, monkeypatch: pytest.MonkeyPatch, bundle: str
) -> None:
    proxy = behind(Store())
    monkeypatch.delenv("AWS_CA_BUNDLE")
    if bundle:
        monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    with pytest.raises(ConfigError, match=f"no safe connection to {proxy.address}.*set AWS_CA_BUNDLE") as caught:
        uris.read(f"{bucket}/x")
    assert "\n" not in str(caught.value)


# Conditions


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store has shown yet what it does with conditions."""
    monkeypatch.setattr(_s3, "_exclusive", set())


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize(
    ("store", "words"),
    [
        (IgnoresConditions(), "ignores"),
        (Refuses(Refusal(501, "NotImplemented"), lambda asked: "if-none-match" in asked.headers), "refuses"),
        (Refuses(Refusal(400, "InvalidArgument"), lambda asked: "if-none-match" in asked.headers), "refuses"),
        (Refuses(Refusal(412, "PreconditionFailed"), lambda asked: "if-none-match" in asked.headers), "misunderstands"),
    ],
)
def test_a_store_that_cannot_create_exclusively_holds_no_lock(
    bucket: str, behind: Behind, store: Store, words: str
) -> None:
    proxy = behind(store, plain=True)
    for _ in range(2):
        with (
            pytest.raises(ConfigError, match=f"{proxy.address} {words} `If-None-Match.*upgrade the store, or give"),
            lock.held(f"{bucket}/out", DIGEST, "one", lease_s=30),
        ):
            pytest.fail("it holds nothing")
    assert uris.names(bucket) == []


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize(("status", "code"), [(409, "FileAlreadyExists"), (304, "NotModified"), (412, "Whatever")])
def test_a_store_that_refuses_in_other_words_holds_locks(bucket: str, behind: Behind, status: int, code: str) -> None:
    """The proxy answers for the server from the second create of a key on."""
    created = set[str]()

    def again(asked: Asked) -> bool:
        first = "if-none-match" in asked.headers and asked.path not in created
        created.update([asked.path] if first else [])
        return "if-none-match" in asked.headers and not first

    behind(Refuses(Refusal(status, code), again), plain=True)
    with lock.held(f"{bucket}/out", DIGEST, "one", lease_s=30):
        assert not uris.create(f"{bucket}/out/_runs/{DIGEST}.lock-1", b"another's")
    assert uris.names(f"{bucket}/out/_runs") == [f"{DIGEST}.lock-1"]


@pytest.mark.usefixtures("unasked")
def test_a_store_is_asked_once(bucket: str, behind: Behind) -> None:
    creates = Refuses(Refusal(500, "x"), lambda asked: "probe" in asked.path and bool(counted.append(asked)))
    counted: list[Asked] = []
    behind(creates, plain=True)
    for number in range(3):
        with lock.held(f"{bucket}/{number}", DIGEST, "one", lease_s=30):
            pass
    assert [asked.method for asked in counted] == ["PUT", "PUT", "HEAD", "DELETE"]


@pytest.mark.usefixtures("unasked")
def test_a_store_that_lets_nothing_be_deleted_can_hold_a_lock(bucket: str, behind: Behind) -> None:
    behind(Refuses(Refusal(403, "AccessDenied"), lambda asked: asked.method == "DELETE"), plain=True)
    with lock.held(f"{bucket}/out", DIGEST, "one", lease_s=30) as fence:
        fence.check()


def test_what_was_replaced_is_not_read_from_a_store_that_ignores_the_condition(bucket: str, behind: Behind) -> None:
    behind(IgnoresConditions("if-match"), plain=True)
    uris.put(f"{bucket}/a.jpg", b"as it was listed")
    (entry,) = uris.walk(bucket)
    assert uris.read_version(entry.uri, entry.version) == b"as it was listed"
    for other in (b"OF THE SAME SIZE", b"longer than it was listed"):
        uris.put(f"{bucket}/a.jpg", other)
        with pytest.raises(ScanChanged):
            uris.read_version(entry.uri, entry.version)


# Credentials and permissions


def expired(which: Callable[[Asked], bool] = lambda _: True) -> Refuses:
    return Refuses(Refusal(400, "ExpiredToken"), which)


def write_credentials(path: Path, key: str) -> None:
    path.write_text(f"[night]\naws_access_key_id = {key}\naws_secret_access_key = hidden\naws_session_token = t\n")


@pytest.fixture
def profile(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:  # noqa: ARG001 - sets what this unsets
    """The credentials file in use: that of the profile `night`."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "night")
    write_credentials(tmp_path / "credentials", "AKIAOLDOLD1234")
    return tmp_path / "credentials"


@pytest.mark.usefixtures("profile")
def test_refused_credentials_are_named_by_their_end_and_source_and_never_by_the_secret(
    bucket: str, behind: Behind
) -> None:
    behind(expired(), plain=True)
    now = f"{datetime.now(UTC):%Y-%m-%d}"
    words = (
        rf"ExpiredToken.*access key …1234 \(shared-credentials-file, profile night\) on .*refused at {now}.*renew them"
    )
    with pytest.raises(CredentialsRefused, match=words) as caught:
        uris.read(f"{bucket}/x")
    assert "AKIA" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_credentials_whose_file_was_rewritten_are_read_anew(bucket: str, behind: Behind, profile: Path) -> None:
    uris.put(f"{bucket}/x", b"data")
    store = expired(lambda asked: asked.access_key == "AKIAOLDOLD1234")
    behind(store, plain=True)
    store.on = False
    assert uris.read(f"{bucket}/x") == b"data"
    store.on = True
    with pytest.raises(CredentialsRefused):
        uris.read(f"{bucket}/x")
    write_credentials(profile, "AKIANEWNEW5678")
    assert uris.read(f"{bucket}/x") == b"data"
    refused = store.refused
    uris.put(f"{bucket}/y", b"data")
    assert store.refused == refused, "the old ones are asked with no more"


@pytest.mark.usefixtures("s3_server")
def test_credentials_that_say_when_they_end_are_named_with_it(
    bucket: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    end = datetime.now(UTC) - timedelta(minutes=5)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", end.isoformat())
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    with pytest.raises(CredentialsRefused, match=rf"\(env\).*which expired at {end:%Y-%m-%d %H:%M:%S} UTC: renew them"):
        uris.read(f"{bucket}/x")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "InvalidAccessKeyId", "renew them"),
        (403, "SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (400, "TokenRefreshRequired", "renew them"),
        (401, "Unauthorized", "renew them"),
    ],
)
def test_each_refusal_of_credentials_ends_a_block_of_scans(
    bucket: str, behind: Behind, status: int, code: str, words: str
) -> None:
    write_scans(bucket, {"glioma": 1})
    table = source.listing([bucket])
    behind(Refuses(Refusal(status, code)), plain=True)
    with pytest.raises(CredentialsRefused, match=f"{code}.*{words}"):
        source.decode_table(table, spec=ImageSpec(side_px=32))


def test_a_redirect_names_the_region_and_what_to_set(bucket: str, behind: Behind) -> None:
    for refusal in (
        Refusal(301, "PermanentRedirect", {"x-amz-bucket-region": "eu-central-1"}),
        Refusal(400, "AuthorizationHeaderMalformed", {"x-amz-bucket-region": "eu-central-1"}),
    ):
        behind(Refuses(refusal), plain=True)
        with pytest.raises(ConfigError, match=r"in region eu-central-1.*set AWS_DEFAULT_REGION=eu-central-1"):
            uris.read(f"{bucket}/x")


def test_a_bucket_that_bills_its_readers_is_used_with_the_flag_only(bucket: str, behind: Behind) -> None:
    behind(BillsReaders())
    with pytest.raises(StorageDenied, match="--requester-pays"):
        uris.put(f"{bucket}/x", b"")
    with uris.paying(True):
        assert len(set(round_trip(bucket))) == 1
        uris.put(f"{bucket}/x", b"data")
        check_both(bucket)
        uris.delete(f"{bucket}/x")
    with pytest.raises(StorageDenied), uris.paying(False):
        uris.read(f"{bucket}/put")


# Closed scans, and everything closed


@pytest.fixture
def access(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not been denied anything yet."""
    monkeypatch.setattr(source, "_access", _access.Access())


def denies(which: Callable[[Asked], bool]) -> Refuses:
    return Refuses(Refusal(403, "AccessDenied"), lambda asked: asked.method == "GET" and which(asked))


@pytest.mark.usefixtures("access")
def test_a_closed_folder_among_good_ones_is_failed_scans_with_the_cause(bucket: str, behind: Behind) -> None:
    write_scans(bucket, {"closed": 40, "good": 4})
    table = source.listing([bucket])
    behind(denies(lambda asked: "/closed/" in asked.path), plain=True)
    rows = source.decode_table(table, spec=ImageSpec(side_px=32), among=_access.witnesses(table)).to_pylist()
    assert {(row["status"], row["detail"]) for row in rows if "/closed/" in row["scan_uri"]} == {
        ("failed", "access denied (AccessDenied)")
    }
    assert [row["status"] for row in rows if "/good/" in row["scan_uri"]] == ["ok"] * 4
    again = table.slice(0, 40)  # the next run has only the closed ones left to do
    rows = source.decode_table(again, spec=ImageSpec(side_px=32), among=_access.witnesses(table)).to_pylist()
    assert {row["status"] for row in rows} == {"failed"}


@pytest.mark.usefixtures("access")
def test_when_everything_is_closed_the_run_ends(bucket: str, behind: Behind) -> None:
    write_scans(bucket, {"glioma": 40})
    table = source.listing([bucket])
    store = denies(lambda _: True)
    behind(store, plain=True)
    with pytest.raises(StorageDenied, match=r"AccessDenied.*last 8 scans were refused, and so were 16"):
        source.decode_table(table, spec=ImageSpec(side_px=32), among=_access.witnesses(table))
    assert store.refused == 8 + 16


@pytest.mark.usefixtures("access")
def test_the_same_holds_for_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scans(tmp_path, {"glioma": 10})
    table = source.listing([str(tmp_path)])

    def closed(uri: str, version: str) -> bytes:
        raise StorageDenied(f"no permission for {uri}, {version}", detail="permission denied")

    monkeypatch.setattr(uris, "read_version", closed)  # tests may run as root, whom no mode keeps out
    with pytest.raises(StorageDenied, match="last 8 scans"):
        source.decode_table(table, spec=ImageSpec(side_px=32), among=_access.witnesses(table))


# Runs


@pytest.fixture(scope="module")
def scans(s3_client: "S3Client", tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """80 scans on S3, and the output of a run on them that nothing disturbed."""
    place = tmp_path_factory.mktemp("undisturbed")
    s3_client.create_bucket(Bucket="other-stores")
    names = write_scans("s3://other-stores/scans", {"glioma": 40, "notumor": 40}, side_px=48)
    job = Job("score", *score_flags(tiny_model.uri, "s3://other-stores/scans", place / "out"), log=place / "log")
    assert job.end() == 0, (place / "log").read_text()
    return Archive(folder=Path("s3://other-stores/scans"), uris=names, undisturbed=place / "out")


def last_line(job: Job) -> str:
    return job.log.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    "store",
    [StoresChunks, *(pytest.param(store, marks=pytest.mark.slow) for store in (RefusesChunks, OtherChecksums))],
)
def test_a_whole_run_on_such_a_store_over_https_has_exact_rows(
    bucket: str, behind: Behind, scans: Archive, tiny_model: Model, start: Start, tell: Tell, store: Callable[[], Store]
) -> None:
    """It bills its readers, too, and its certificate is of a private authority."""
    behind(Both(store(), BillsReaders()))
    flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out", "--requester-pays")
    job = start("score", *flags)
    assert job.end() == 0, job.log.read_text()
    with uris.paying(True):
        standard.check(f"{bucket}/out", scans.uris, str(scans.undisturbed))
    tell(
        f"S3 over https of a private authority: {store.__name__}, requester pays", "each request", "80 rows, in one run"
    )


def test_credentials_that_expire_in_the_middle_end_the_run_and_the_same_command_completes_it(
    bucket: str, behind: Behind, scans: Archive, tiny_model: Model, start: Start, tell: Tell
) -> None:
    closed = scans.uris[-1].removeprefix("s3:/")
    reads: list[str] = []

    def late(asked: Asked) -> bool:
        reads.extend([asked.path] if asked.method == "GET" and "/scans/" in asked.path else [])
        return len(reads) > 50

    store, one = expired(late), denies(lambda asked: asked.path == closed)
    one.on = False
    behind(Both(store, one), plain=True)
    flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out")
    job = start("score", *flags)
    assert job.end() == 2, job.log.read_text()
    assert last_line(job).startswith("error: the storage refused the credentials for s3://"), job.log.read_text()
    assert "access key …ting (env)" in last_line(job)
    assert "Traceback" not in job.log.read_text()
    store.on, one.on = False, True
    assert standard.records(f"{bucket}/out") == []
    job = start("score", *flags)
    assert job.end() == 0, job.log.read_text()
    assert "access denied (AccessDenied)" in job.log.read_text()
    assert f"failed: access denied (AccessDenied): {scans.uris[-1]}" in job.log.read_text()
    (record,) = standard.records(f"{bucket}/out")
    assert record["failed_by_cause"] == {"access denied (AccessDenied)": 1}
    one.on = False
    job = start("score", *flags)
    assert job.end() == 0, job.log.read_text()
    standard.check(f"{bucket}/out", scans.uris, str(scans.undisturbed))
    tell(
        "S3 refuses the credentials from the 51st read on; then one scan is closed",
        "once each",
        "80 rows, after two reruns",
    )


@pytest.mark.slow
def test_a_policy_that_closes_everything_in_the_middle_ends_the_run(
    bucket: str, behind: Behind, scans: Archive, tiny_model: Model, start: Start, tell: Tell
) -> None:
    reads: list[str] = []

    def late(asked: Asked) -> bool:
        reads.extend([asked.path] if "/scans/" in asked.path else [])
        return "/scans/" in asked.path and len(reads) > 40

    store = denies(late)
    behind(store, plain=True)
    flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out")
    job = start("score", *flags)
    assert job.end() == 2, job.log.read_text()
    assert "from all over the input" in last_line(job)
    assert "Traceback" not in job.log.read_text()
    store.on = False
    job = start("score", *flags)
    assert job.end() == 0, job.log.read_text()
    standard.check(f"{bucket}/out", scans.uris, str(scans.undisturbed))
    tell("S3 denies every read from the 41st on", "once", "80 rows, after a rerun")


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_two_runs_on_one_output_of_a_store_that_ignores_conditions_are_both_refused(
    bucket: str, behind: Behind, tiny_model: Model, start: Start, tell: Tell, rounds: int
) -> None:
    proxy = behind(IgnoresConditions(), plain=True)
    for _ in range(rounds):
        flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out")
        for job in [start("score", *flags), start("score", *flags)]:
            assert job.end() == 2, job.log.read_text()
            assert last_line(job).startswith(f"error: the store {proxy.address} ignores `If-None-Match")
        assert uris.names(bucket) == []
    tell("S3 ignores If-None-Match: two runs at once on one output", f"{rounds} times", "both refused, nothing written")


@pytest.mark.slow
def test_a_training_over_https_of_a_private_authority_writes_its_checkpoints(
    bucket: str, behind: Behind, start: Start, tell: Tell
) -> None:
    behind(Both(RefusesChunks(), OtherChecksums(), BillsReaders()))
    with uris.paying(True):
        write_scans(f"{bucket}/data", {"glioma": 24, "notumor": 24})
    job = start("train", "--data", f"{bucket}/data", "--output", f"{bucket}/models/tiny", "--backbone", "cnn", "--image-side",
                "32", "--epochs", "2", "--batch-size", "8", "--requester-pays")  # fmt: skip
    assert job.end() == 0, job.log.read_text()
    with uris.paying(True):
        assert "model.json" in uris.names(f"{bucket}/models/tiny")
        (run,) = uris.folders(f"{bucket}/models/_training")
        assert [name for name in uris.folders(f"{bucket}/models/_training/{run}") if name.startswith("checkpoint_")]
    tell(
        "a training on S3 over https of a private authority, requester pays",
        "each request",
        "a model and its checkpoints",
    )


def test_another_process_trusts_the_authority(bucket: str, behind: Behind) -> None:
    behind(Store())
    uris.put(f"{bucket}/x", b"data")
    filesystem, path = uris.filesystem(f"{bucket}/x")
    code = (
        "import pickle, sys; f = pickle.loads(sys.stdin.buffer.read()); print(f.open_input_stream(sys.argv[1]).read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], input=pickle.dumps(filesystem), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "b'data'"


@pytest.mark.slow
def test_nodes_of_a_cluster_that_was_there_pay_too(
    bucket: str, behind: Behind, scans: Archive, tiny_model: Model, start: Start
) -> None:
    from ray.cluster_utils import Cluster

    behind(BillsReaders(), plain=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=2, object_store_memory=200 << 20)
        flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out", "--requester-pays")
        job = start("score", *flags, environment={"RAY_ADDRESS": str(cluster.address)})
        assert job.end() == 0, job.log.read_text()
    finally:
        cluster.shutdown()
    with uris.paying(True):
        standard.check(f"{bucket}/out", scans.uris, str(scans.undisturbed))
