"""S3 as `uris` needs it, through boto3: it lists ETags, puts on conditions and retries server errors.

pyarrow's S3FileSystem does none of the three; it only reads ranges here. Not for use outside this folder.
"""

import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pyarrow.fs
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError, ResponseStreamingError

from mribatch.errors import ConfigError, ScanChanged, ScanVanished, StorageMissing
from mribatch.storage._faults import code_of, s3_faults

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from mribatch.storage.uris import Entry

__all__ = ["Bucket", "arrow_filesystem", "spelled"]

_CUT_SHORT = (HTTPClientError, IncompleteReadError, ResponseStreamingError)
_ATTEMPTS = 6  # about 20 s of backoff: longer than S3's usual hiccups, short enough to fail while someone looks


def spelled(uri: str) -> str:
    """Check an s3:// URI. Raises ConfigError."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or "?" in bucket:
        raise ConfigError(f"expected s3://bucket/prefix, got {uri}")
    return f"s3://{bucket}/{key}" if key else f"s3://{bucket}"


@functools.cache
def _client_of(process: int) -> "S3Client":
    config = Config(
        retries={"mode": "standard", "max_attempts": _ATTEMPTS},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
    )
    return boto3.client("s3", config=config)


def _client() -> "S3Client":
    return _client_of(os.getpid())  # a client must not be shared over a fork


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


def arrow_filesystem() -> pyarrow.fs.FileSystem:
    region = boto3.session.Session().region_name or "us-east-1"
    return pyarrow.fs.S3FileSystem(region=region)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class Bucket:
    """The store behind s3:// URIs."""

    def __init__(self, entry: "type[Entry]") -> None:
        self._entry = entry

    def walk(self, uri: str) -> "Iterator[Entry]":
        bucket, key = _split(uri.rstrip("/"))
        folder = f"{key}/" if key else ""
        found = False
        for item in self._pages(uri, Bucket=bucket, Prefix=key):
            at = str(item["Key"])
            if at != key and not at.startswith(folder):
                continue  # a neighbour whose name begins alike
            found = True
            below = at.removeprefix(folder)
            if at.endswith("/") or any(part.startswith(".") for part in below.split("/")):
                continue  # a folder's marker object, or a hidden name
            size = int(item["Size"])
            yield self._entry(f"s3://{bucket}/{at}", f"{str(item['ETag']).strip(chr(34))}-{size}", size)
        if not found:
            raise StorageMissing(f"no object at or below {uri}: check the bucket and the prefix")

    def names(self, uri: str) -> list[str]:
        bucket, key = _split(uri.rstrip("/"))
        folder = f"{key}/" if key else ""
        return [
            str(item["Key"]).removeprefix(folder)
            for item in self._pages(uri, Bucket=bucket, Prefix=folder, Delimiter="/")
        ]

    def read(self, uri: str) -> bytes:
        bucket, key = _split(uri)
        return self._get(uri, Bucket=bucket, Key=key)

    def read_version(self, uri: str, version: str) -> bytes:
        bucket, key = _split(uri)
        etag = version.rpartition("-")[0]
        try:
            return self._get(uri, Bucket=bucket, Key=key, IfMatch=f'"{etag}"')
        except StorageMissing as err:
            raise ScanVanished("deleted after it was listed") from err

    def put(self, uri: str, data: bytes) -> None:
        bucket, key = _split(uri)
        with s3_faults(uri, _endpoint()):
            _client().put_object(Bucket=bucket, Key=key, Body=data)

    def create(self, uri: str, data: bytes) -> bool:
        bucket, key = _split(uri)
        with s3_faults(uri, _endpoint()):
            try:
                _client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except ClientError as err:
                if code_of(err) in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
                    # an answer that was lost and asked for again meets its own object
                    return self.read(uri) == data
                raise
        return True

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        with s3_faults(uri, _endpoint()):
            _client().delete_object(Bucket=bucket, Key=key)

    def _get(self, uri: str, **request: Any) -> bytes:
        with s3_faults(uri, _endpoint()):
            for attempt in range(_ATTEMPTS):
                try:
                    return _client().get_object(**request)["Body"].read()
                except ClientError as err:
                    if code_of(err) in ("PreconditionFailed", "412"):
                        raise ScanChanged("replaced after it was listed") from err
                    raise
                except _CUT_SHORT:  # boto retries requests, not bodies
                    if attempt == _ATTEMPTS - 1:
                        raise
        raise AssertionError("unreachable: the loop returns or raises")

    def _pages(self, uri: str, **request: Any) -> "Iterator[Any]":
        with s3_faults(uri, _endpoint()):
            for page in _client().get_paginator("list_objects_v2").paginate(**request):
                yield from page.get("Contents", [])
