"""boto3's client for S3: settings, retries, credentials that are renewed, and errors as ours. Knows no buckets or keys.

Not for use outside this folder.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mribatch.errors import ConfigError
from mribatch.stores import retry
from mribatch.stores.faults import is_about_credentials, s3_faults

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["REQUEST_PAYER", "client", "endpoint", "faults", "request", "trust"]

REQUEST_PAYER = "AWS_REQUEST_PAYER"
"""`requester` pays for requests to requester-pays buckets; GDAL knows this variable, too."""

_CONNECTIONS = 32  # boto's pool; more threads than that would wait for each other
_KEPT = 4  # clients; settings change in tests only
_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")
_CHECKSUMS = ("request_checksum_calculation", "response_checksum_validation")
_SHOWN = 4  # characters of an access key's ID

_Answer = TypeVar("_Answer")
_Settings = tuple[int, tuple[tuple[str, str], ...]]

_lock = threading.Lock()  # boto makes one client at a time


@dataclass(frozen=True, eq=False)
class _Connection:
    """A client, and the session that knows its credentials."""

    session: botocore.session.Session
    client: "S3Client"


_connections: dict[_Settings, _Connection] = {}

logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)  # a renewal that fails comes as an exception


def request(call: Callable[["S3Client"], _Answer]) -> _Answer:
    """Answer of `call`, repeated as `_retry.ask` does, and once more with fresh credentials where these are refused.

    Fresh ones exist where, say, the credentials file was rewritten since this process read it.
    """
    used = _connection()
    try:
        return retry.ask(endpoint(), lambda: call(used.client))
    except Exception as err:
        fresh = _renewed(used) if is_about_credentials(err) else None
        if fresh is None:
            raise
    return retry.ask(endpoint(), lambda: call(fresh.client))


@contextmanager
def faults(uri: str) -> Iterator[None]:
    """Translate boto's errors into ours."""
    with s3_faults(uri, endpoint(), _who):
        yield


def client() -> "S3Client":
    """This process's client for the environment as it is now."""
    return _connection().client


def endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


def trust() -> None:
    """As if it had answered this process before."""
    retry.trust(endpoint())


def _connection() -> _Connection:
    settings = _settings()
    with _lock:
        if settings not in _connections:
            while len(_connections) >= _KEPT:
                del _connections[next(iter(_connections))]
            _connections[settings] = _connect()
        return _connections[settings]


def _settings() -> _Settings:
    """What a client depends on; it must not be shared over a fork either."""
    chosen = (item for item in os.environ.items() if item[0].startswith("AWS_") or item[0] == "REQUESTS_CA_BUNDLE")
    return os.getpid(), tuple(sorted(chosen))


def _connect() -> _Connection:
    session = botocore.session.get_session()
    # dates stay text: none is used here, and one that boto cannot parse would end a listing
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    boto = boto3.session.Session(botocore_session=session)
    retries: Any = {"total_max_attempts": 1}  # `ask` asks again
    config = Config(retries=retries, connect_timeout=5, read_timeout=15, max_pool_connections=_CONNECTIONS)
    made = boto.client("s3", config=config)
    if not (urlsplit(made.meta.endpoint_url).hostname or "").endswith(_AWS):
        made = boto.client("s3", config=config.merge(_older_stores(session)))
    if _pays():
        made.meta.events.register("before-call.s3", _pay)
    return _Connection(session, made)


def _older_stores(session: botocore.session.Session) -> Config:
    """Settings for stores other than AWS: many refuse boto's newer checksums, trailers of aws-chunked bodies, or store
    them as part of the object. What the environment or the profile asks for stays."""
    profile = session.get_scoped_config()
    names = [name for name in _CHECKSUMS if name not in profile and f"AWS_{name.upper()}" not in os.environ]
    return Config(**dict.fromkeys(names, "when_required"))  # type: ignore[arg-type]


def _pays() -> bool:
    payer = os.environ.get(REQUEST_PAYER, "")
    if payer not in ("", "requester"):
        raise ConfigError(f"{REQUEST_PAYER} must be `requester` or unset, got {payer!r}")
    return bool(payer)


def _pay(params: Any, **_: Any) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"


def _renewed(refused: _Connection) -> _Connection | None:
    """A connection with other credentials than the refused ones; None where there are none."""
    settings = _settings()
    with _lock:
        current = _connections.get(settings)
        if current is not None and current is not refused:
            return current  # another thread was faster
        fresh = _connect()
        if _keys(fresh) in (None, _keys(refused)):
            return None
        _connections[settings] = fresh
        return fresh


def _keys(connection: _Connection) -> object | None:
    try:
        credentials = connection.session.get_credentials()
        return None if credentials is None else credentials.get_frozen_credentials()
    except (BotoCoreError, ClientError, RuntimeError):
        return None  # a role or a process that gives none


def _who() -> str:
    """The credentials in use, for a message: never the secret."""
    session = _connection().session
    credentials = session.get_credentials()
    if credentials is None:
        return f"no credentials on {os.uname().nodename}"
    facts = vars(credentials)  # its properties would try to renew it
    key = str(facts.get("_access_key") or facts.get("access_key"))
    source = (
        credentials.method
        if credentials.method == "env"
        else f"{credentials.method}, profile {session.profile or 'default'}"
    )
    return f"access key …{key[-_SHOWN:]} ({source}) on {os.uname().nodename}, {_until(facts.get('_expiry_time'))}"


def _until(expiry: datetime | None) -> str:
    now = datetime.now(UTC)
    if expiry is None:
        return f"refused at {now:%Y-%m-%d %H:%M:%S} UTC"
    ended = "which expired" if expiry <= now else "which would have been valid until"
    return f"{ended} at {expiry.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
