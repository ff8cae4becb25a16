"""List the keys below a prefix with several requests at once, by cutting what follows a page into ranges of keys.

A store lists a thousand keys in a page, in the order of their code points. All keys that begin alike follow each other, so
the keys after a page are those that begin like its last key, and those behind them. Pure: `ask` makes the requests.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Generic, NamedTuple, TypeVar

from mribatch.errors import StorageError

__all__ = ["LISTERS", "Ask", "Page", "Range", "listed"]

LISTERS = 16
"""Requests at once. S3 allows 5,500 a second for a prefix."""

_BEHIND = "\U0010fffd"  # the last character but the two that mean nothing
_OF_A_FOLDER, _OF_THE_PAGE = 3, 6  # last characters of a name after which keys are cut: numbers vary there
_MOST_KEY_BYTES = 1000  # of S3's 1024

_Item = TypeVar("_Item")


class Range(NamedTuple):
    """The keys below a prefix and after a key, but for those that begin with `done`."""

    prefix: str
    after: str = ""
    done: str = ""


class Page(NamedTuple, Generic[_Item]):
    """The first keys of a range, in order, with what is listed of each, and whether more follow."""

    keys: list[str]
    items: list[_Item]
    has_more: bool


Ask = Callable[[str, str], Page[_Item]]
"""Returns the first page of the keys below a prefix and after a key."""


def listed(ask: Ask[_Item], first: Page[_Item], prefix: str) -> Iterator[_Item]:
    """Yield the items of a page and of all keys after it below a prefix, in the order of the keys.

    Raises what `ask` raises, once the items of all smaller keys are yielded, and StorageError for keys out of order.
    """
    yield from first.items
    if not first.has_more:
        return
    requests = _Requests(ask)
    try:
        pages = deque(map(requests.begin, cut(Range(prefix), first.keys[0], first.keys[-1])))
        while pages:
            items, rest = pages.popleft().result()
            yield from items
            pages.extendleft(reversed(rest))
    finally:
        requests.threads.shutdown(wait=False, cancel_futures=True)


class _Requests(Generic[_Item]):
    """The requests of a listing. One that leaves threads idle has the rest of its range listed in parts."""

    def __init__(self, ask: Ask[_Item]) -> None:
        self.threads = ThreadPoolExecutor(LISTERS, thread_name_prefix="mribatch-lister")
        self._ask = ask
        self._open, self._lock = 0, threading.Lock()

    def begin(self, of: Range) -> "Future[tuple[list[_Item], list[Any]]]":
        """Ask for a range in a thread. Return the items of its first page, and what is begun for the rest, in order."""
        self._count(1)
        return self.threads.submit(self._run, of)

    def _run(self, of: Range) -> tuple[list[_Item], list[Any]]:
        try:
            page = self._ask(of.prefix, of.after)
        finally:
            still_open = self._count(-1)
        if any(low >= high for low, high in pairwise([of.after, *page.keys])):
            raise StorageError(
                f"expected the store to list keys in the order of their code points, got {page.keys[0]!r} and others in "
                "another order: name its folders one by one, so that each has fewer than 1,000 keys"
            )
        rest: list[Range] = []
        if page.has_more:
            is_cut = still_open < LISTERS and not (of.done and page.keys[-1].startswith(of.done))
            rest = cut(of, page.keys[0], page.keys[-1]) if is_cut else [of._replace(after=page.keys[-1])]
        new = [
            item for key, item in zip(page.keys, page.items, strict=True) if not of.done or not key.startswith(of.done)
        ]
        return new, [self.begin(part) for part in rest]

    def _count(self, change: int) -> int:
        with self._lock:
            self._open += change
            return self._open


def cut(of: Range, first: str, last: str) -> list[Range]:
    """Return the parts of a range that follow a page, in order. first, last: the keys of the page.

    The first part begins like the last key for longest, and each other one for less. Some are empty.
    """
    pairs = enumerate(zip(first, last, strict=False))
    alike = next((number for number, pair in pairs if pair[0] != pair[1]), min(len(first), len(last) - 1))
    common = last[: alike + 1]
    blocks = [common[:length] for length in _lengths(of.prefix, common)]
    scopes = [*blocks, of.prefix]
    return [
        Range(scopes[0], last),
        *(Range(scope, block + _BEHIND, block) for block, scope in zip(blocks, scopes[1:], strict=True)),
    ]


def _lengths(prefix: str, common: str) -> list[int]:
    """Return after how many characters of what begins like a page's keys the rest is cut, largest first."""
    names = common[len(prefix) :].split("/")
    lengths: list[int] = []
    end = len(prefix)
    for number, name in enumerate(names):
        end += len(name)
        count = _OF_THE_PAGE if number == len(names) - 1 else _OF_A_FOLDER
        lengths += range(end - min(count, len(name)) + 1, end + 1)
        end += 1
    return [length for length in reversed(lengths) if len(common[:length].encode()) < _MOST_KEY_BYTES]
