"""S3 as `uris` needs it, through boto3: it lists ETags and puts on conditions; what fails for a while is `_retry`'s.

pyarrow's S3FileSystem does neither; libraries that want one get it here. Not for use outside this folder.
"""

import functools
import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import pyarrow.fs
from botocore.config import Config
from botocore.exceptions import ClientError

from mribatch.errors import ConfigError, ScanChanged, ScanVanished, StorageMissing
from mribatch.storage import _retry
from mribatch.storage._faults import code_of, s3_faults
from mribatch.storage._glob import Exclusion, Glob
from mribatch.storage._retry import ask
from mribatch.storage._store import Entry

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["Bucket", "arrow_filesystem", "spelled", "trust"]

_CONNECTIONS = 32  # boto's pool; more threads than that would wait for each other
_LISTERS = 16
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_NOT_MET = ("PreconditionFailed", "412")
_making_clients = threading.Lock()  # boto makes them one at a time


def spelled(uri: str) -> str:
    """Check an s3:// URI and take the / off its end. Raises ConfigError."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"expected s3://bucket/prefix, got {uri}")
    try:
        key.encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"keys on S3 are UTF-8, but this one is not: {os.fsencode(uri)!r}; correct the URI") from err
    key = key.rstrip("/")
    return f"s3://{bucket}/{key}" if key else f"s3://{bucket}"


def arrow_filesystem(uri: str) -> pyarrow.fs.FileSystem:
    """pyarrow's client for the endpoint that boto talks to: by itself it reads no AWS_ENDPOINT_URL_S3 and no profile's."""
    with s3_faults(uri, _endpoint()):
        meta = _client().meta
    own = re.fullmatch(r"https://s3([.-][a-z0-9-]+)*\.amazonaws\.com(\.cn)?", meta.endpoint_url)
    region = boto3.session.Session().region_name or "us-east-1"
    return pyarrow.fs.S3FileSystem(region=region, endpoint_override=None if own else meta.endpoint_url)


def trust() -> None:
    """As if it had answered this process before."""
    _retry.trust(_endpoint())


class Bucket:
    """The store behind s3:// URIs. A folder is what keys have in common before a /; it may be an object's key too."""

    def walk(self, uri: str, glob: Glob | None = None, exclude: Exclusion | None = None) -> Iterator[Entry]:
        bucket, key = _split(uri)
        exclude = exclude or Exclusion(())
        folder = f"{key}/" if key else ""
        found = not key  # a bucket may be empty
        if key and glob is None:
            for item in self._first(uri, key):
                found = True
                if not exclude.fits(key.rpartition("/")[2]):
                    yield _entry(bucket, item)
        for item in self._objects(uri, Bucket=bucket, Prefix=folder + (glob.head if glob else "")):
            found = True
            name = str(item["Key"]).removeprefix(folder)
            if not _is_passed_over(name) and (glob is None or glob.fits(name)) and not exclude.fits(name):
                yield _entry(bucket, item)
        if not found and glob is None:
            raise StorageMissing(f"no object at or below {uri}: check the bucket and the prefix")

    def find(self, uris: Iterable[str]) -> Iterator[Entry]:
        """One listing per folder: at most as many requests as one per object would be, mostly by far fewer."""
        wanted = set(uris)
        folders = sorted({uri.rpartition("/")[0] for uri in wanted})
        with ThreadPoolExecutor(_LISTERS) as threads:
            for entries in threads.map(self._directly_in, folders):
                yield from (entry for entry in entries if entry.uri in wanted)

    def exists(self, uri: str) -> bool:
        bucket, key = _split(uri)
        if self._first(uri, key):
            return True
        return bool(next(self._pages(uri, Bucket=bucket, Prefix=f"{key}/", MaxKeys=1)).get("Contents"))

    def names(self, uri: str, prefix: str) -> list[str]:
        bucket, key = _split(uri)
        folder = f"{key}/" if key else ""
        keys: list[str] = []
        for page in self._pages(uri, Bucket=bucket, Prefix=folder + prefix, Delimiter="/"):
            keys += [str(item["Key"]) for item in page.get("Contents", [])]
            keys += [str(item["Prefix"]) for item in page.get("CommonPrefixes", [])]
        return sorted({key.removeprefix(folder).rstrip("/") for key in keys} - {""})

    def folders(self, uri: str) -> list[str]:
        bucket, key = _split(uri)
        folder = f"{key}/" if key else ""
        pages = self._pages(uri, Bucket=bucket, Prefix=folder, Delimiter="/")
        below = [str(item["Prefix"]).removeprefix(folder) for page in pages for item in page.get("CommonPrefixes", [])]
        return [name.rstrip("/") for name in below if not name.startswith((".", "/"))]

    def read(self, uri: str) -> bytes:
        with s3_faults(uri, _endpoint()):
            return _get(uri)

    def read_version(self, uri: str, version: str) -> bytes:
        with s3_faults(uri, _endpoint()):
            try:
                return _get(uri, IfMatch=f'"{version.rpartition("-")[0]}"')
            except ClientError as err:
                if code_of(err) in _NOT_MET:
                    raise ScanChanged("replaced after it was listed") from err
                if code_of(err) == "NoSuchKey":
                    raise ScanVanished("deleted after it was listed") from err
                raise

    def put(self, uri: str, data: bytes) -> None:
        bucket, key = _split(uri)
        with s3_faults(uri, _endpoint()):
            ask(_endpoint(), lambda: _client().put_object(Bucket=bucket, Key=key, Body=data))

    def create(self, uri: str, data: bytes) -> bool:
        """A first try whose answer was lost meets its own object at the next: the object names its creator."""
        bucket, key = _split(uri)
        creator = uuid.uuid4().hex
        mine: Any = {"IfNoneMatch": "*", "Metadata": {"creator": creator}}
        with s3_faults(uri, _endpoint()):
            try:
                ask(_endpoint(), lambda: _client().put_object(Bucket=bucket, Key=key, Body=data, **mine))
            except ClientError as err:
                if code_of(err) not in _NOT_MET:
                    raise
                return _creator_of(bucket, key) == creator
        return True

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        with s3_faults(uri, _endpoint()):
            ask(_endpoint(), lambda: _client().delete_object(Bucket=bucket, Key=key))

    def _first(self, uri: str, key: str) -> list[Any]:
        """The object of this very key, or nothing: it comes first of all that begin with it."""
        bucket, _ = _split(uri)
        page = next(self._pages(uri, Bucket=bucket, Prefix=key, MaxKeys=1))
        return [item for item in page.get("Contents", []) if item["Key"] == key]

    def _directly_in(self, folder: str) -> list[Entry]:
        bucket, key = _split(folder)
        prefix = f"{key}/" if key else ""
        return [_entry(bucket, item) for item in self._objects(folder, Bucket=bucket, Prefix=prefix, Delimiter="/")]

    def _objects(self, uri: str, **request: Any) -> Iterator[Any]:
        for page in self._pages(uri, **request):
            yield from page.get("Contents", [])

    def _pages(self, uri: str, **request: Any) -> Iterator[Any]:
        with s3_faults(uri, _endpoint()):
            page = ask(_endpoint(), lambda: _client().list_objects_v2(**request))
            yield page
            while page.get("IsTruncated"):
                request["ContinuationToken"] = page["NextContinuationToken"]
                page = ask(_endpoint(), lambda: _client().list_objects_v2(**request))
                yield page


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _entry(bucket: str, item: Any) -> Entry:
    size = int(item["Size"])
    return Entry(f"s3://{bucket}/{item['Key']}", f"{item['ETag'].strip(chr(34))}-{size}", size)


def _is_passed_over(name: str) -> bool:
    """Hidden, in a hidden folder, or only the mark of a folder."""
    return name.startswith(".") or "/." in name or name.endswith("/") or not name


def _get(uri: str, **condition: Any) -> bytes:
    bucket, key = _split(uri)
    return ask(_endpoint(), lambda: _client().get_object(Bucket=bucket, Key=key, **condition)["Body"].read())


def _creator_of(bucket: str, key: str) -> str | None:
    try:
        answer = ask(_endpoint(), lambda: _client().head_object(Bucket=bucket, Key=key))
        return answer["Metadata"].get("creator")
    except ClientError as err:
        if code_of(err) in ("404", "NoSuchKey"):
            return None  # it was there a moment ago
        raise


def _client() -> "S3Client":
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    with _making_clients:
        return _client_for(os.getpid(), settings)  # a client must not be shared over a fork


@functools.lru_cache(maxsize=4)
def _client_for(process: int, settings: tuple[tuple[str, str], ...]) -> "S3Client":  # noqa: ARG001 - the cache's key
    retries: Any = {"total_max_attempts": 1}  # `ask` asks again
    config = Config(retries=retries, connect_timeout=5, read_timeout=15, max_pool_connections=_CONNECTIONS)
    return _session().client("s3", config=config)


def _session() -> boto3.session.Session:
    """A session that leaves dates as text: no date is used here, and one that boto cannot parse would end a listing."""
    core = botocore.session.Session()
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    return boto3.session.Session(botocore_session=core)


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
