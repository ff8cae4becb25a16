"""Implement the store for S3: listings with ETags, conditional reads and conditional writes."""

import logging
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from mribatch.errors import ConfigError, ScanChanged, ScanVanished, StorageDenied, StorageError, StorageMissing
from mribatch.junk import is_junk
from mribatch.stores.client import endpoint, faults, request
from mribatch.stores.faults import code_of, status_of
from mribatch.stores.glob import Exclusion, Glob
from mribatch.stores.ranges import LISTERS, Page, listed
from mribatch.stores.store import Entry

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["Bucket", "canonical"]

log = logging.getLogger("mribatch.s3")

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_NOT_MET = ("PreconditionFailed", "412")
_NOT_MET_STATUS = (304, 409, 412)  # of a conditional write: stores other than AWS use other codes

known_exclusive: set[tuple[str, str]] = set()  # (endpoint, bucket) pairs known to refuse a second create


def canonical(uri: str) -> str:
    """Check an s3:// URI and remove slashes from its end. Raises ConfigError."""
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
    """The store of s3:// URIs. A folder is a prefix of keys that ends with a /; an object may have its name."""

    def walk(self, uri: str, glob: Glob | None = None, exclude: Exclusion | None = None) -> Iterator[Entry]:
        bucket, key = _split(uri)
        folder = _split_folder(uri)[1]
        exclude = exclude or Exclusion(())
        exists = not key  # a bucket may be empty
        if key and glob is None:
            for item in self._first(uri, key):
                exists = True
                if not exclude.fits(key.rpartition("/")[2]):
                    yield _entry(bucket, item)
        above = len(f"s3://{bucket}/{folder}")
        for entry in self._entries(uri, bucket, folder + (glob.head if glob else "")):
            exists = True
            name = entry.uri[above:]
            is_hidden = not name or name.endswith("/") or is_junk(name)  # a / ends the mark of a folder
            if not is_hidden and (glob is None or glob.fits(name)) and not exclude.fits(name):
                yield entry
        if not exists and glob is None:
            raise StorageMissing(f"no object at or below {uri}: check the bucket and the prefix")

    def find(self, uris: Iterable[str]) -> Iterator[Entry]:
        """Yield the files that exist. Lists each folder once, mostly with far fewer requests than one per object."""

        def in_folder(folder: str) -> list[Entry]:
            bucket, prefix = _split_folder(folder)
            items = self._objects(folder, Bucket=bucket, Prefix=prefix, Delimiter="/")
            return [_entry(bucket, item) for item in items]

        wanted = set(uris)
        folders = sorted({uri.rpartition("/")[0] for uri in wanted})
        with ThreadPoolExecutor(LISTERS) as threads:
            for entries in threads.map(in_folder, folders):
                yield from (entry for entry in entries if entry.uri in wanted)

    def exists(self, uri: str) -> bool:
        bucket, key = _split(uri)
        if self._first(uri, key):
            return True
        return bool(next(self._pages(uri, Bucket=bucket, Prefix=f"{key}/", MaxKeys=1)).get("Contents"))

    def names(self, uri: str, prefix: str) -> list[str]:
        bucket, folder = _split_folder(uri)
        keys: list[str] = []
        for page in self._pages(uri, Bucket=bucket, Prefix=folder + prefix, Delimiter="/"):
            keys += [str(item["Key"]) for item in page.get("Contents", [])]
            keys += [str(item["Prefix"]) for item in page.get("CommonPrefixes", [])]
        return sorted({key.removeprefix(folder).rstrip("/") for key in keys} - {""})

    def folders(self, uri: str) -> list[str]:
        bucket, folder = _split_folder(uri)
        pages = self._pages(uri, Bucket=bucket, Prefix=folder, Delimiter="/")
        below = [str(item["Prefix"]).removeprefix(folder) for page in pages for item in page.get("CommonPrefixes", [])]
        return [name.rstrip("/") for name in below if not name.startswith("/") and not is_junk(name)]

    def tree(self, uri: str) -> Iterator[Entry]:
        """Yield every object below a folder, including hidden ones and the marks of folders."""
        bucket, folder = _split_folder(uri)
        yield from self._entries(uri, bucket, folder)

    def read(self, uri: str) -> bytes:
        with faults(uri):
            return _get(uri)[0]

    def read_version(self, uri: str, version: str) -> bytes:
        """Read with If-Match, and check the response too, because some stores ignore that header."""
        etag, _, size = version.rpartition("-")
        with faults(uri):
            try:
                data, read_etag = _get(uri, IfMatch=f'"{etag}"')
            except ClientError as err:
                if code_of(err) in _NOT_MET:
                    raise ScanChanged("replaced after it was listed") from err
                if code_of(err) == "NoSuchKey":
                    raise ScanVanished("deleted after it was listed") from err
                raise
        if len(data) != int(size) or read_etag not in (None, etag):
            raise ScanChanged("replaced after it was listed")
        return data

    def put(self, uri: str, data: bytes) -> None:
        bucket, key = _split(uri)
        with faults(uri):
            request(lambda client: client.put_object(Bucket=bucket, Key=key, Body=data))

    def create(self, uri: str, data: bytes) -> bool:
        """Create an object that names its creator, so that a retry after a lost response recognizes its own object."""
        bucket, key = _split(uri)
        creator = uuid.uuid4().hex
        conditions: Any = {"IfNoneMatch": "*", "Metadata": {"creator": creator}}
        with faults(uri):
            try:
                request(lambda client: client.put_object(Bucket=bucket, Key=key, Body=data, **conditions))
            except ClientError as err:
                if status_of(err) not in _NOT_MET_STATUS and code_of(err) not in _NOT_MET:
                    raise
                existing = _creator_of(bucket, key)
                if existing is None and code_of(err) not in _NOT_MET:
                    raise  # a conflict with a request that has since failed
                return existing == creator
        return True

    def check_exclusive(self, uri: str) -> None:
        """Create an object twice, once per process and bucket."""
        place = endpoint(), _split(uri)[0]
        if place in known_exclusive:
            return
        probe = f"{uri}/.probe-{uuid.uuid4().hex}.tmp"
        try:
            fault = self._fault_of_create(probe)
        finally:
            try:
                self.delete(probe)
            except StorageDenied as err:
                log.warning("a probe could not be deleted; it does no harm: %s", err)
        if fault:
            raise ConfigError(
                f"the store {place[0]} {fault} `If-None-Match: *`, so two runs on {uri.removesuffix('/_runs')} could "
                "delete each other's rows: upgrade the store, or give a local --output and copy it there"
            )
        known_exclusive.add(place)

    def _fault_of_create(self, probe: str) -> str | None:
        """Return how a store mishandles If-None-Match, or None if it handles it correctly."""
        try:
            if not self.create(probe, b"first"):
                return "misunderstands"
        except StorageError as err:
            if type(err) is not StorageError:
                raise
            self.put(probe, b"first")  # raises if something else was refused
            return "refuses"
        return "ignores" if self.create(probe, b"second") else None

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        with faults(uri):
            request(lambda client: client.delete_object(Bucket=bucket, Key=key))

    def _first(self, uri: str, key: str) -> list[Any]:
        """Return the object of exactly this key, if there is one: it is listed first of those with this prefix."""
        bucket, _ = _split(uri)
        page = next(self._pages(uri, Bucket=bucket, Prefix=key, MaxKeys=1))
        return [item for item in page.get("Contents", []) if item["Key"] == key]

    def _entries(self, uri: str, bucket: str, prefix: str) -> Iterator[Entry]:
        """Yield all objects below a prefix, in the order of their keys: with many requests at once if there are many.

        A store whose first pages are not in order, or that does not list from a key on, is listed page by page. Raises
        StorageError if keys are out of order only later: they could be lost.
        """
        answers = self._pages(uri, Bucket=bucket, Prefix=prefix)
        first = _page(bucket, next(answers))
        yield from first.items
        follow = self._following(uri, bucket, prefix, first.keys[-1]) if first.has_more and first.keys else None
        if follow is not None and all(low < high for low, high in pairwise(first.keys + follow.keys)):
            yield from listed(partial(self._following, uri, bucket), follow, prefix)
        else:
            for answer in answers:
                yield from _page(bucket, answer).items

    def _following(self, uri: str, bucket: str, prefix: str, after: str) -> Page[Entry]:
        """Return the first objects below a prefix and after a key; none only if there are none."""
        for answer in self._pages(uri, Bucket=bucket, Prefix=prefix, StartAfter=after):
            page = _page(bucket, answer)
            if page.keys:
                return page
        return Page([], [], False)

    def _objects(self, uri: str, **query: Any) -> Iterator[Any]:
        for page in self._pages(uri, **query):
            yield from page.get("Contents", [])

    def _pages(self, uri: str, **query: Any) -> Iterator[Any]:
        with faults(uri):
            page = request(lambda client: client.list_objects_v2(**query))
            yield page
            while page.get("IsTruncated"):
                query["ContinuationToken"] = page["NextContinuationToken"]
                page = request(lambda client: client.list_objects_v2(**query))
                yield page


def _page(bucket: str, answer: Any) -> Page[Entry]:
    items = answer.get("Contents", [])
    keys = [str(item["Key"]) for item in items]
    return Page(keys, [_entry(bucket, item) for item in items], bool(answer.get("IsTruncated")))


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _split_folder(uri: str) -> tuple[str, str]:
    """Return the bucket of a folder, and the prefix of the keys below it."""
    bucket, key = _split(uri)
    return bucket, f"{key}/" if key else ""


def _entry(bucket: str, item: Any) -> Entry:
    size = int(item["Size"])
    return Entry(f"s3://{bucket}/{item['Key']}", f"{item['ETag'].strip(chr(34))}-{size}", size)


def _get(uri: str, **condition: Any) -> tuple[bytes, str | None]:
    """Return the bytes of an object and their ETag."""
    bucket, key = _split(uri)

    def get(client: "S3Client") -> tuple[bytes, str | None]:
        answer = client.get_object(Bucket=bucket, Key=key, **condition)
        etag = answer.get("ETag")
        return answer["Body"].read(), etag and etag.removeprefix("W/").strip('"')

    return request(get)


def _creator_of(bucket: str, key: str) -> str | None:
    """Return who created an object (empty if unknown), or None if there is no object."""
    try:
        answer = request(lambda client: client.head_object(Bucket=bucket, Key=key))
        return answer["Metadata"].get("creator", "")
    except ClientError as err:
        if code_of(err) in ("404", "NoSuchKey"):
            return None  # deleted in the meantime
        raise
