"""S3 stores that differ from AWS, and private certificates: bytes come back unchanged and locks are exclusive."""

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.fs
import pytest

from mribatch.errors import ConfigError, ScanChanged, StorageDenied, StorageError
from mribatch.predictions import lock
from mribatch.stores import client, s3, uris
from tests.faults.conftest import Behind
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

OTHERS: list[Callable[[], Store]] = [RefusesChunks, StoresChunks, OtherChecksums]
DIGEST = "0123456789ab"


# Checksums that came with newer clients


def round_trip(folder: str) -> list[bytes]:
    """Return some bytes and what is read back of them: by put, by create, and by the listed version."""
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
def test_these_stores_break_a_client_that_insists_on_the_newer_checksums(
    bucket: str, behind: Behind, store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own setting is kept, and the test above would fail with boto's default."""
    behind(store())
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_supported")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises((StorageError, AssertionError)):
        assert len(set(round_trip(bucket))) == 1


@pytest.mark.usefixtures("s3_server")
def test_aws_gets_the_newer_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.client().meta.config.request_checksum_calculation == "when_required"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert client.client().meta.config.request_checksum_calculation == "when_supported"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://vpce-1.s3.eu-central-1.vpce.amazonaws.com")
    assert client.client().meta.config.request_checksum_calculation == "when_supported"


@pytest.mark.parametrize("store", OTHERS)
def test_a_checkpoint_comes_back_from_stores_without_the_newer_checksums(
    bucket: str, behind: Behind, store: Callable[[], Store], tmp_path: Path
) -> None:
    behind(store())
    filesystem, path = uris.filesystem(f"{bucket}/training/run/checkpoint_1")
    filesystem = pickle.loads(pickle.dumps(filesystem))  # as on its way to the workers
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


def test_the_storage_of_ray_train_persists_restores_and_deletes_a_checkpoint(
    bucket: str, behind: Behind, tmp_path: Path
) -> None:
    """Over https of a private authority, on a requester-pays store that refuses aws-chunked bodies. Starts no Ray."""
    from ray.train import Checkpoint
    from ray.train.v2._internal.execution.storage import StorageContext, delete_fs_path

    behind(Both(RefusesChunks(), OtherChecksums(), BillsReaders()))
    files = {"last.weights.h5": os.urandom(300_000), "state.json": b"{}"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with uris.paying(True):
        filesystem, path = uris.filesystem(f"{bucket}/training")
        context = pickle.loads(pickle.dumps(StorageContext(path, "run", filesystem)))
        kept = context.persist_current_checkpoint(Checkpoint.from_directory(str(tmp_path)), "checkpoint_1")
        assert {name: uris.read(f"{bucket}/training/run/checkpoint_1/{name}") for name in files} == files
        with pickle.loads(pickle.dumps(kept)).as_directory() as folder:
            assert {name: (Path(folder) / name).read_bytes() for name in files} == files
        delete_fs_path(filesystem, kept.path)
        assert uris.folders(f"{bucket}/training/run") == []


def test_a_checkpoint_whose_copy_fails_leaves_no_file_that_looks_complete(bucket: str) -> None:
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


def test_a_private_authority_is_trusted_by_each_of_the_settings_of_boto(
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
    """Read an object by `uris` and by the filesystem that Ray Train gets."""
    assert uris.read(f"{bucket}/x") == b"data"
    filesystem, path = uris.filesystem(f"{bucket}/x")
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"data"


@pytest.mark.parametrize("bundle", ["", "/no/such/file.pem"])
def test_an_unknown_authority_is_a_config_error_that_says_what_to_set(
    bucket: str, behind: Behind, monkeypatch: pytest.MonkeyPatch, bundle: str
) -> None:
    proxy = behind(Store())
    monkeypatch.delenv("AWS_CA_BUNDLE")
    if bundle:
        monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    with pytest.raises(ConfigError, match=f"no secure connection to {proxy.address}.*set AWS_CA_BUNDLE") as caught:
        uris.read(f"{bucket}/x")
    assert "\n" not in str(caught.value)


# Conditions


@pytest.fixture
def no_known_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which stores are known to honour conditions."""
    monkeypatch.setattr(s3, "known_exclusive", set())


@pytest.mark.usefixtures("no_known_stores")
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


@pytest.mark.usefixtures("no_known_stores")
@pytest.mark.parametrize(("status", "code"), [(409, "FileAlreadyExists"), (304, "NotModified"), (412, "Whatever")])
def test_a_store_that_refuses_with_another_error_code_holds_locks(
    bucket: str, behind: Behind, status: int, code: str
) -> None:
    """The proxy answers in place of the server from the second create of a key on."""
    created = set[str]()

    def again(asked: Asked) -> bool:
        first = "if-none-match" in asked.headers and asked.path not in created
        created.update([asked.path] if first else [])
        return "if-none-match" in asked.headers and not first

    behind(Refuses(Refusal(status, code), again), plain=True)
    with lock.held(f"{bucket}/out", DIGEST, "one", lease_s=30):
        assert not uris.create(f"{bucket}/out/_runs/{DIGEST}.lock-1", b"another's")
    assert uris.names(f"{bucket}/out/_runs") == [f"{DIGEST}.lock-1"]


@pytest.mark.usefixtures("no_known_stores")
def test_a_store_is_probed_once(bucket: str, behind: Behind) -> None:
    creates = Refuses(Refusal(500, "x"), lambda asked: "probe" in asked.path and bool(counted.append(asked)))
    counted: list[Asked] = []
    behind(creates, plain=True)
    for number in range(3):
        with lock.held(f"{bucket}/{number}", DIGEST, "one", lease_s=30):
            pass
    assert [asked.method for asked in counted] == ["PUT", "PUT", "HEAD", "DELETE"]


@pytest.mark.usefixtures("no_known_stores")
def test_a_store_that_denies_every_delete_holds_locks(bucket: str, behind: Behind) -> None:
    behind(Refuses(Refusal(403, "AccessDenied"), lambda asked: asked.method == "DELETE"), plain=True)
    with lock.held(f"{bucket}/out", DIGEST, "one", lease_s=30) as fence:
        fence.check()


def test_a_replaced_object_is_not_read_from_a_store_that_ignores_conditions(bucket: str, behind: Behind) -> None:
    behind(IgnoresConditions("if-match"), plain=True)
    uris.put(f"{bucket}/a.jpg", b"as it was listed")
    (entry,) = uris.walk(bucket)
    assert uris.read_version(entry.uri, entry.version) == b"as it was listed"
    for other in (b"OF THE SAME SIZE", b"longer than it was listed"):
        uris.put(f"{bucket}/a.jpg", other)
        with pytest.raises(ScanChanged):
            uris.read_version(entry.uri, entry.version)


def test_a_requester_pays_bucket_is_used_only_with_the_flag(bucket: str, behind: Behind) -> None:
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


def test_another_process_trusts_the_authority(bucket: str, behind: Behind) -> None:
    behind(Store())
    uris.put(f"{bucket}/x", b"data")
    filesystem, path = uris.filesystem(f"{bucket}/x")
    code = "import pickle, sys; fs = pickle.load(sys.stdin.buffer); print(fs.open_input_stream(sys.argv[1]).read())"
    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, input=pickle.dumps(filesystem), capture_output=True, check=True)
    assert done.stdout.decode().strip() == "b'data'"
