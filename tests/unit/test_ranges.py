"""Listing keys with several requests at once: the same keys in the same order as page by page. No store is asked."""

import random
import threading
import time
from bisect import bisect_right
from itertools import count, pairwise

import pytest

from mribatch.errors import StorageDenied, StorageError
from mribatch.stores.ranges import LISTERS, Page, Range, cut, listed

ARCHIVES = {
    "folders": [f"site-{n % 40:02}/study-{n // 400:04}/{n:06}.jpg" for n in range(40_000)],
    "flat": [f"scan-{n:07}.dcm" for n in range(40_000)],
    "random names": [f"{random.Random(n).getrandbits(64):016x}" for n in range(40_000)],
    "classes": [f"{name}/{n}.jpg" for name in ("glioma", "meningioma", "notumor", "pituitary") for n in range(5_000)],
    "names of other names": ["a" * n for n in range(1, 60)] + [f"{'a' * 30}/{n}" for n in range(900)],
    "strange characters": [
        f"{a}{b}{c}" for a in "a\U0010ffff\U0010fffd" for b in "/ü\U0010fffe腦" for c in map(chr, range(33, 500))
    ],
}


class Store:
    """Keys that are listed in pages, and how many requests were made, at once and in all."""

    def __init__(self, keys: list[str], page_keys: int = 100, pause_s: float = 0.0) -> None:
        self.keys, self.page_keys, self.pause_s = sorted(keys), page_keys, pause_s
        self.requests = self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def ask(self, prefix: str, after: str) -> Page[str]:
        with self._lock:
            self.requests += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.pause_s)
        start = max(bisect_right(self.keys, after), bisect_right(self.keys, prefix[:-1]))
        page: list[str] = []
        has_more = False
        for number in count(start):
            if number == len(self.keys) or not self.keys[number].startswith(prefix):
                if number < len(self.keys) and self.keys[number] < prefix:
                    continue
                break
            if len(page) == self.page_keys:
                has_more = True
                break
            page.append(self.keys[number])
        with self._lock:
            self.at_once -= 1
        return Page(page, page, has_more)

    def listing(self, prefix: str = "") -> list[str]:
        return list(listed(self.ask, self.ask(prefix, ""), prefix))


@pytest.mark.parametrize("kind", ARCHIVES)
def test_all_keys_are_listed_once_and_in_order(kind: str) -> None:
    store = Store(ARCHIVES[kind])
    assert store.listing() == store.keys


def test_only_keys_below_the_prefix_are_listed() -> None:
    store = Store(ARCHIVES["folders"])
    assert store.listing("site-2") == [key for key in store.keys if key.startswith("site-2")]


@pytest.mark.parametrize("kind", ["folders", "flat", "random names", "classes"])
def test_many_requests_are_made_at_once_and_not_many_more_than_pages(kind: str) -> None:
    store = Store(ARCHIVES[kind], pause_s=0.002)
    pages = len(store.keys) / store.page_keys
    assert store.listing() == store.keys
    assert store.most_at_once == LISTERS
    assert store.requests < 3 * pages, "all but the last pages of a range bring a full page"


def test_pages_of_one_key_are_followed() -> None:
    """S3 may return fewer keys than asked for, where many were deleted."""
    for keys in (ARCHIVES["flat"][:40], ["a", "a\U0010fffd", "a\U0010ffff", "b"], ["x" * n for n in range(1, 30)]):
        store = Store(keys, page_keys=1)
        assert store.listing() == store.keys


def test_keys_that_come_out_of_order_later_end_the_listing_in_place_of_being_lost() -> None:
    store = Store(ARCHIVES["flat"])

    def ask(prefix: str, after: str) -> Page[str]:
        page = store.ask(prefix, after)
        if any(key > "scan-0020000.dcm" for key in page.keys):
            return Page(page.keys[::-1], page.items[::-1], page.has_more)
        return page

    with pytest.raises(StorageError, match="in the order of their code points"):
        list(listed(ask, store.ask("", ""), ""))


def test_few_keys_take_one_request() -> None:
    store = Store(["a", "b"])
    assert store.listing() == ["a", "b"]
    assert store.requests == 1


def test_an_error_comes_after_the_keys_before_it() -> None:
    store = Store(ARCHIVES["flat"])

    def ask(prefix: str, after: str) -> Page[str]:
        page = store.ask(prefix, after)
        if any(key > "scan-0020000.dcm" for key in page.keys):
            raise StorageDenied("denied")
        return page

    listing: list[str] = []
    with pytest.raises(StorageDenied):
        listing.extend(listed(ask, store.ask("", ""), ""))
    assert listing == store.keys[: len(listing)]


def test_the_parts_after_a_page_begin_like_its_last_key_for_ever_less() -> None:
    parts = cut(Range("a/"), "a/b-01/x-100", "a/b-01/x-199")
    assert (parts[0].after, parts[-1].prefix) == ("a/b-01/x-199", "a/")
    assert all(part.prefix.startswith(following.prefix) for part, following in pairwise(parts))
    assert [part.done for part in parts[1:]] == [part.prefix for part in parts[:-1]]
