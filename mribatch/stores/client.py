"""Provide boto3's client for S3 with our settings, retries and renewed credentials, and translate its errors."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from mribatch.errors import ConfigError
from mribatch.stores import retry, s3_items
from mribatch.stores.faults import is_about_credentials, s3_faults

if TYPE_CHECKING:  # the rest of boto takes 0.2 s of each process to import, and only S3 needs it
    from botocore.config import Config
    from botocore.session import Session
    from mypy_boto3_s3.client import S3Client

__all__ = ["REQUEST_PAYER", "client", "endpoint", "faults", "request", "trust"]

REQUEST_PAYER = "AWS_REQUEST_PAYER"
"""Set to `requester`, it pays for requests to requester-pays buckets. GDAL reads this variable too."""

_PAYER_HEADER = {"x-amz-request-payer": "requester"}
_CONNECTIONS = 32  # boto's pool; with more threads than this, some would wait
_MAX_CLIENTS = 4  # settings change in tests only
_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")
_CHECKSUMS = ("request_checksum_calculation", "response_checksum_validation")
_KEY_CHARACTERS = 4  # of an access key's ID, shown in messages

_TIME = "%Y-%m-%d %H:%M:%S UTC"

_Answer = TypeVar("_Answer")
_Settings = tuple[int, tuple[tuple[str, str], ...]]

_lock = threading.Lock()  # boto cannot create two clients at once


@dataclass(frozen=True, eq=False)
class _Connection:
    """A client, and the session that holds its credentials."""

    session: "Session"
    client: "S3Client"


_connections: dict[_Settings, _Connection] = {}

logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)  # a failed renewal raises an exception anyway


def request(call: Callable[["S3Client"], _Answer]) -> _Answer:
    """Return the result of `call`, retried like `retry.ask`, and once more with fresh credentials if they are refused.

    There are fresh ones if, for example, the credentials file was rewritten after this process read it.
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
    """Translate boto's errors to those of this package."""
    with s3_faults(uri, endpoint(), _describe_credentials):
        yield


def client() -> "S3Client":
    """Return this process's client for the current environment."""
    return _connection().client


def endpoint() -> str:
    """Return the address that requests go to, or AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


def trust() -> None:
    """Treat the endpoint as one that has answered this process before."""
    retry.trust(endpoint())


def _connection() -> _Connection:
    settings = _settings()
    with _lock:
        if settings not in _connections:
            while len(_connections) >= _MAX_CLIENTS:
                del _connections[next(iter(_connections))]
            _connections[settings] = _connect()
        return _connections[settings]


def _settings() -> _Settings:
    """Return what a client depends on, including the process: a fork must not share it."""
    chosen = (item for item in os.environ.items() if item[0].startswith("AWS_") or item[0] == "REQUESTS_CA_BUNDLE")
    return os.getpid(), tuple(sorted(chosen))


def _connect() -> _Connection:
    payer = os.environ.get(REQUEST_PAYER, "")
    if payer not in ("", "requester"):
        raise ConfigError(f"{REQUEST_PAYER} must be `requester` or unset, got {payer!r}")
    import boto3
    import botocore.session
    from botocore.config import Config

    session = botocore.session.get_session()
    # keep dates as text: none is used here, and one that boto cannot parse would end a listing
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    boto = boto3.session.Session(botocore_session=session)
    retries: Any = {"total_max_attempts": 1}  # `ask` retries
    config = Config(retries=retries, connect_timeout=5, read_timeout=15, max_pool_connections=_CONNECTIONS)
    s3 = boto.client("s3", config=config)
    if not (urlsplit(s3.meta.endpoint_url).hostname or "").endswith(_AWS):
        s3 = boto.client("s3", config=config.merge(_older_stores(session)))
    s3_items.register(s3.meta.events)
    if payer:
        s3.meta.events.register("before-call.s3", lambda params, **_: params["headers"].update(_PAYER_HEADER))
    return _Connection(session, s3)


def _older_stores(session: "Session") -> "Config":
    """Return settings for stores other than AWS, unless the environment or the profile sets them.

    Many of these stores refuse boto's newer checksums (trailers of aws-chunked bodies) or store them in the object.
    """
    from botocore.config import Config

    profile = session.get_scoped_config()
    names = [name for name in _CHECKSUMS if name not in profile and f"AWS_{name.upper()}" not in os.environ]
    return Config(**dict.fromkeys(names, "when_required"))  # type: ignore[arg-type]


def _renewed(refused: _Connection) -> _Connection | None:
    """Return a connection with other credentials than the refused ones, or None if there are none."""
    settings = _settings()
    with _lock:
        current = _connections.get(settings)
        if current is not None and current is not refused:
            return current  # another thread has renewed them
        fresh = _connect()
        if _credentials(fresh) in (None, _credentials(refused)):
            return None
        _connections[settings] = fresh
        return fresh


def _credentials(connection: _Connection) -> object | None:
    try:
        credentials = connection.session.get_credentials()
        return None if credentials is None else credentials.get_frozen_credentials()
    except (BotoCoreError, ClientError, RuntimeError):
        return None  # a role or a credential process that yields none


def _describe_credentials() -> str:
    """Describe the credentials in use for a message, without the secret."""
    session = _connection().session
    credentials = session.get_credentials()
    if credentials is None:
        return f"no credentials on {os.uname().nodename}"
    fields = vars(credentials)  # the properties would try to renew them
    key = str(fields.get("_access_key") or fields.get("access_key"))
    source = credentials.method
    if source != "env":
        source += f", profile {session.profile or 'default'}"
    expiry, now = fields.get("_expiry_time"), datetime.now(UTC)
    if expiry is None:
        validity = f"refused at {now:{_TIME}}"
    else:
        verb = "which expired at" if expiry <= now else "valid until"
        validity = f"{verb} {expiry.astimezone(UTC):{_TIME}}"
    return f"access key …{key[-_KEY_CHARACTERS:]} ({source}) on {os.uname().nodename}, {validity}"
