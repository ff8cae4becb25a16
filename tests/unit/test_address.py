"""Which cluster a run would join, and that a head which does not answer is reported soon. Real sockets, no Ray."""

import http.server
import socket
import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from mribatch.cluster.address import cluster_address
from mribatch.cluster.supervisor import ray_folder
from mribatch.errors import ConfigError, RunFailed

PATIENCE_S = 1.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which Ray notes the cluster of this machine: empty, and no other Ray in sight."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", frozenset)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray"


@pytest.fixture
def refused() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers, as a head that is stopped or behind a firewall."""
    with socket.create_server(("", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def web() -> Iterator[str]:
    """An address at which a web server answers."""
    with socketserver.TCPServer(("", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def other_service() -> Iterator[str]:
    """An address that speaks gRPC and is no head, as the port of the Ray client is."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_without_a_cluster_a_run_starts_its_own() -> None:
    assert cluster_address() is None


def test_local_starts_ones_own_whatever_this_machine_belongs_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    (folder / "ray_current_cluster").write_text(refused)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address() is None


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8265", "ray job submit"),
        ("https://head.example:8265", "ray job submit"),
        ("ray://head.example:10001", "RAY_ADDRESS=HOST:6379"),
        ("foo://bar", "RAY_ADDRESS=HOST:6379"),
        ("head.example", "HOST:PORT"),
        ("head.example:", "HOST:PORT"),
        (":6379", "HOST:PORT"),
        ("head.example:six", "HOST:PORT"),
        ("head.example:99999", "HOST:PORT"),
        ("auto", "ray start --head"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, address: str, words: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError) as caught:
        cluster_address()
    message = str(caught.value)
    for each in ("RAY_ADDRESS", address, words, "unset RAY_ADDRESS"):
        assert each in message
    assert "\n" not in message


@pytest.mark.parametrize("head", ["refused", "silent", "web"])
def test_a_head_that_does_not_answer_is_named(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    address = request.getfixturevalue(head)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RunFailed, match=f"no Ray head answered at RAY_ADDRESS={address} within 1 s.*ray start --head"):
        cluster_address(PATIENCE_S)


def test_another_service_at_the_address_is_no_head(monkeypatch: pytest.MonkeyPatch, other_service: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", other_service)
    with pytest.raises(ConfigError, match=r"is not the head of a Ray cluster.*6379"):
        cluster_address(PATIENCE_S)


@pytest.mark.parametrize("given", ["", "auto"])
@pytest.mark.parametrize("head", ["refused", "silent"])
def test_the_note_of_a_head_that_died_is_named_with_its_remedy(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, folder: Path, head: str, given: str
) -> None:
    address = request.getfixturevalue(head)
    (folder / "ray_current_cluster").write_text(address)
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(RunFailed) as caught:
        cluster_address(PATIENCE_S)
    for words in (address.rpartition(":")[2], str(folder / "ray_current_cluster"), "ray stop", "RAY_ADDRESS=local"):
        assert words in str(caught.value)


def test_the_folder_of_ray_is_the_one_that_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._common.utils import get_default_ray_temp_dir

    for name, folder in (("TMPDIR", "/somewhere"), ("RAY_TMPDIR", "/elsewhere")):
        monkeypatch.setenv(name, folder)
        assert ray_folder() == get_default_ray_temp_dir()
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.delenv("RAY_TMPDIR")
    assert ray_folder() == get_default_ray_temp_dir() == "/tmp/ray"
