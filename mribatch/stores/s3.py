"""S3 as `uris` needs it: lists with ETags, conditional reads and writes. How requests are made is `_client`'s.

Not for use outside this folder.
"""

import logging
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from mribatch.errors import ConfigError, ScanChanged, ScanVanished, StorageDenied, StorageError, StorageMissing
from mribatch.stores.client import endpoint, faults, request
from mribatch.stores.faults import code_of, status_of
from mribatch.stores.glob import Exclusion, Glob
from mribatch.stores.junk import is_junk
from mribatch.stores.store import Entry

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["Bucket", "spelled"]

log = logging.getLogger("mribatch.s3")

_LISTERS = 16
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_NOT_MET = ("PreconditionFailed", "412")
_NOT_MET_STATUS = (304, 409, 412)  # of a conditional write: stores other than AWS have codes of their own

known_exclusive: set[tuple[str, str]] = set()  # endpoints and buckets that have shown that they refuse a second create


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
        return [name.rstrip("/") for name in below if not name.startswith("/") and not is_junk(name)]

    def tree(self, uri: str) -> Iterator[Entry]:
        """Every object below a folder, hidden ones and the marks of folders too."""
        bucket, key = _split(uri)
        for item in self._objects(uri, Bucket=bucket, Prefix=f"{key}/" if key else ""):
            yield _entry(bucket, item)

    def read(self, uri: str) -> bytes:
        with faults(uri):
            return _get(uri)[0]

    def read_version(self, uri: str, version: str) -> bytes:
        """The answer is checked, too: some stores ignore If-Match."""
        etag, _, size = version.rpartition("-")
        with faults(uri):
            try:
                data, answered = _get(uri, IfMatch=f'"{etag}"')
            except ClientError as err:
                if code_of(err) in _NOT_MET:
                    raise ScanChanged("replaced after it was listed") from err
                if code_of(err) == "NoSuchKey":
                    raise ScanVanished("deleted after it was listed") from err
                raise
        if len(data) != int(size) or answered not in (None, etag):
            raise ScanChanged("replaced after it was listed")
        return data

    def put(self, uri: str, data: bytes) -> None:
        bucket, key = _split(uri)
        with faults(uri):
            request(lambda client: client.put_object(Bucket=bucket, Key=key, Body=data))

    def create(self, uri: str, data: bytes) -> bool:
        """A first try whose answer was lost meets its own object at the next: the object names its creator."""
        bucket, key = _split(uri)
        creator = uuid.uuid4().hex
        mine: Any = {"IfNoneMatch": "*", "Metadata": {"creator": creator}}
        with faults(uri):
            try:
                request(lambda client: client.put_object(Bucket=bucket, Key=key, Body=data, **mine))
            except ClientError as err:
                if status_of(err) not in _NOT_MET_STATUS and code_of(err) not in _NOT_MET:
                    raise
                there = _creator_of(bucket, key)
                if there is None and code_of(err) not in _NOT_MET:
                    raise  # a conflict with a request that has since failed
                return there == creator
        return True

    def check_exclusive(self, uri: str) -> None:
        """Create one object twice, once per process and bucket."""
        place = endpoint(), _split(uri)[0]
        if place in known_exclusive:
            return
        probe = f"{uri}/.probe-{uuid.uuid4().hex}.tmp"
        try:
            fault = self._fault_of_create(probe)
        finally:
            self._remove(probe)
        if fault:
            raise ConfigError(f"the store {place[0]} {fault} `If-None-Match: *`, so two runs on {uri.removesuffix('/_runs')} could "
                              "remove each other's rows: upgrade the store, or give a local --output and copy it there")  # fmt: skip
        known_exclusive.add(place)

    def _fault_of_create(self, probe: str) -> str | None:
        """What a store does with If-None-Match, where that is not what it should."""
        try:
            if not self.create(probe, b"first"):
                return "misunderstands"
        except StorageError as err:
            if type(err) is not StorageError:
                raise
            self.put(probe, b"first")  # raises where something else was refused
            return "refuses"
        return "ignores" if self.create(probe, b"second") else None

    def _remove(self, probe: str) -> None:
        try:
            self.delete(probe)
        except StorageDenied as err:
            log.warning("a probe stays behind, it does no harm: %s", err)

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        with faults(uri):
            request(lambda client: client.delete_object(Bucket=bucket, Key=key))

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

    def _pages(self, uri: str, **asked: Any) -> Iterator[Any]:
        with faults(uri):
            page = request(lambda client: client.list_objects_v2(**asked))
            yield page
            while page.get("IsTruncated"):
                asked["ContinuationToken"] = page["NextContinuationToken"]
                page = request(lambda client: client.list_objects_v2(**asked))
                yield page


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _entry(bucket: str, item: Any) -> Entry:
    size = int(item["Size"])
    return Entry(f"s3://{bucket}/{item['Key']}", f"{item['ETag'].strip(chr(34))}-{size}", size)


def _is_passed_over(name: str) -> bool:
    """Return whether a key below a folder is hidden, junk, or only the mark of a folder."""
    return not name or name.endswith("/") or is_junk(name)


def _get(uri: str, **condition: Any) -> tuple[bytes, str | None]:
    """The bytes of an object and the ETag that came with them."""
    bucket, key = _split(uri)

    def get(client: "S3Client") -> tuple[bytes, str | None]:
        answer = client.get_object(Bucket=bucket, Key=key, **condition)
        etag = answer.get("ETag")
        return answer["Body"].read(), etag and etag.removeprefix("W/").strip('"')

    return request(get)


def _creator_of(bucket: str, key: str) -> str | None:
    """Who created an object, empty where it does not say; None where there is none."""
    try:
        answer = request(lambda client: client.head_object(Bucket=bucket, Key=key))
        return answer["Metadata"].get("creator", "")
    except ClientError as err:
        if code_of(err) in ("404", "NoSuchKey"):
            return None  # it was there a moment ago
        raise
