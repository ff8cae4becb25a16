"""Pages of S3 as `uris.walk` asks for them: many at once where the store lists in order, else one after the other."""

from collections.abc import Callable
from typing import Any

import pytest

from mribatch.stores import s3, uris

KEYS = [f"site-{number % 7}/{number:05}.jpg" for number in range(3_000)]


class Client:
    """A bucket that answers ListObjectsV2 with 100 keys at most. The order in which it lists may be its own."""

    def __init__(self, keys: list[str], starts_after: bool = True) -> None:
        self.keys, self.starts_after = keys, starts_after
        self.queries: list[dict[str, Any]] = []

    def list_objects_v2(self, **query: Any) -> dict[str, Any]:
        self.queries.append(query)
        keys = [key for key in self.keys if key.startswith(query["Prefix"])]
        if "StartAfter" in query and self.starts_after:
            keys = [key for key in keys if key > query["StartAfter"]]
        start = int(query.get("ContinuationToken", 0))
        page = [{"Key": key, "ETag": f'"etag-{key[-9:-4]}"', "Size": 7} for key in keys[start : start + 100]]
        return {
            "Contents": page,
            "IsTruncated": start + 100 < len(keys),
            "NextContinuationToken": str(start + 100),
        }


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Client], list[uris.Entry]]:
    """Return what a walk lists in a bucket."""

    def listed(client: Client) -> list[uris.Entry]:
        def answer(call: Callable[[Any], Any]) -> Any:
            return call(client)

        monkeypatch.setattr(s3, "request", answer)
        return list(uris.walk("s3://archive"))

    return listed


def test_objects_are_listed_in_order_with_their_versions(listed: Callable[[Client], list[uris.Entry]]) -> None:
    client = Client(sorted(KEYS))
    entries = listed(client)
    assert [entry.uri for entry in entries] == [f"s3://archive/{key}" for key in sorted(KEYS)]
    assert entries[0] == uris.Entry("s3://archive/site-0/00000.jpg", "etag-00000-7", 7)
    assert {query["Prefix"] for query in client.queries} >= {"", "site-0", "site-1"}, "parts of it are asked for"


@pytest.mark.parametrize(
    "client", [Client(sorted(KEYS), starts_after=False), Client(KEYS)], ids=["tokens", "unordered"]
)
def test_a_store_that_lists_otherwise_is_listed_page_by_page(
    listed: Callable[[Client], list[uris.Entry]], client: Client
) -> None:
    assert [entry.uri for entry in listed(client)] == [f"s3://archive/{key}" for key in client.keys]
    assert len(client.queries) == 30 + 1, "each page once, and one question whether the store lists from a key on"


def test_few_objects_take_one_request(listed: Callable[[Client], list[uris.Entry]]) -> None:
    client = Client(sorted(KEYS)[:100])
    assert len(listed(client)) == 100
    assert len(client.queries) == 1
