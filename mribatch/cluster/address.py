"""Find the Ray cluster that a run would join, and check that its head answers.

Ray itself retries a dead head for many minutes without a message.
"""

import os
import socket
import time

import grpc
from ray._private import services  # what ray.init itself asks; there is no public function for it

from mribatch.cluster.supervisor import ray_folder
from mribatch.errors import ConfigError, RunFailed

__all__ = ["cluster_address"]

_ANSWER_S = 15.0  # enough for a head that restarts; a dead one is still reported soon
_METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_OWN = "unset RAY_ADDRESS to start Ray on this machine alone"


def cluster_address(patience_s: float = _ANSWER_S) -> str | None:
    """Return host:port of the cluster that a run would join, None if it would start Ray itself.

    Raises ConfigError for an address that cannot be one, RunFailed where no head answers within `patience_s` seconds.
    """
    given = os.environ.get("RAY_ADDRESS", "")
    _check_form(given)
    try:
        address = services.canonicalize_bootstrap_address(None)  # type: ignore[arg-type]  # None: what ray.init would join
    except ConnectionError as err:
        raise ConfigError(
            f"RAY_ADDRESS={given}, but no Ray runs on this machine: start one with `ray start --head`, or {_OWN}"
        ) from err
    except (ValueError, OSError) as err:
        raise _malformed(given) from err
    if address is not None:
        _check_head(str(address), given, patience_s)
    return address


def _check_form(given: str) -> None:
    scheme, separator, _ = given.partition("://")
    if separator and scheme in ("http", "https"):
        raise ConfigError(
            f"RAY_ADDRESS={given} is the address of a dashboard, which takes submitted jobs only: use `ray job submit "
            f"--working-dir . -- python jobs/…`, or {_OWN}"
        )
    if separator:
        raise ConfigError(
            f"RAY_ADDRESS={given} cannot be used: {scheme}:// is not supported; use `ray job submit`, or run on a node of "
            f"the cluster with RAY_ADDRESS=HOST:6379, or {_OWN}"
        )
    host, _, port = given.rpartition(":")
    if given not in ("", "auto", "local") and not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise _malformed(given)


def _malformed(given: str) -> ConfigError:
    return ConfigError(
        f"expected RAY_ADDRESS=HOST:PORT, such as 10.0.0.1:6379, or auto, got {given!r}: correct it, or {_OWN}"
    )


def _check_head(address: str, given: str, patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while (status := _ask(address, end - time.monotonic())) in _SILENT:
        if time.monotonic() + 1 > end:
            raise _no_answer(address, given, patience_s)
        time.sleep(1)
    if status == grpc.StatusCode.UNIMPLEMENTED:
        raise ConfigError(
            f"{address} is not the head of a Ray cluster: expected the address and port that `ray start --head` printed, "
            f"usually port 6379; correct RAY_ADDRESS, or {_OWN}"
        )


def _ask(address: str, seconds: float) -> grpc.StatusCode:
    """Return the status of the head's answer. A head that asks for a token or a certificate has answered."""
    if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
        return _connect(address, seconds)  # only Ray has the certificates
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=max(seconds, 1.0))
        except grpc.RpcError as err:
            status: grpc.StatusCode = err.code()
            return status
    return grpc.StatusCode.OK


def _connect(address: str, seconds: float) -> grpc.StatusCode:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=max(seconds, 1.0)).close()
    except OSError:
        return grpc.StatusCode.UNAVAILABLE
    return grpc.StatusCode.UNKNOWN


def _no_answer(address: str, given: str, patience_s: float) -> RunFailed:
    if given not in ("", "auto"):
        return RunFailed(
            f"no Ray head answered at RAY_ADDRESS={given} within {patience_s:g} s: start it with `ray start --head`, correct "
            f"the address, or {_OWN}"
        )
    file = os.path.join(ray_folder(), "ray_current_cluster")
    return RunFailed(
        f"no Ray head answered at {address} within {patience_s:g} s, though {file} says that this machine belongs to it: if "
        "that cluster has stopped, run `ray stop` to clean up, or set RAY_ADDRESS=local to start Ray on this machine alone"
    )
