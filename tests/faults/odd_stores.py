"""S3 stores that differ from AWS: what they refuse, change and answer. A proxy before a real server applies it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "Asked",
    "BillsReaders",
    "Both",
    "IgnoresConditions",
    "OtherChecksums",
    "Refusal",
    "Refuses",
    "RefusesChunks",
    "Store",
    "StoresChunks",
    "denies",
    "expired",
]


class Asked(NamedTuple):
    """A request, with header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def access_key(self) -> str:
        match = re.search(r"Credential=([^/]+)/", self.headers.get("authorization", ""))
        return match[1] if match else ""

    @property
    def is_chunked(self) -> bool:
        return "aws-chunked" in self.headers.get("content-encoding", "")


@dataclass(frozen=True)
class Refusal:
    status: int
    code: str
    headers: dict[str, str] = field(default_factory=dict)


class Store:
    """A store that behaves like AWS."""

    def refusal(self, asked: Asked) -> Refusal | None:  # noqa: ARG002
        """Return an answer to send in place of the server's, or None."""
        return None

    def stored(self, asked: Asked) -> tuple[dict[str, str], bytes]:
        """Return headers and body as the server gets them."""
        return asked.headers, asked.body

    def extra_headers(self, method: str) -> dict[str, str]:  # noqa: ARG002
        """Return headers to add to the server's answer."""
        return {}


class IgnoresConditions(Store):
    """Ignores conditional headers, as older MinIO and Ceph and some gateways do."""

    def __init__(self, *names: str) -> None:
        self._names = names or ("if-none-match",)

    def stored(self, asked: Asked) -> tuple[dict[str, str], bytes]:
        return {name: value for name, value in asked.headers.items() if name not in self._names}, asked.body


class Refuses(Store):
    """Refuses the requests that `which` picks, while it is `on`."""

    def __init__(self, refusal: Refusal, which: Callable[[Asked], bool] = lambda _: True, *, on: bool = True) -> None:
        self._refusal, self._which, self.on = refusal, which, on
        self.refused = 0

    def refusal(self, asked: Asked) -> Refusal | None:
        if not (self.on and self._which(asked)):
            return None
        self.refused += 1
        return self._refusal


class RefusesChunks(Refuses):
    def __init__(self) -> None:
        super().__init__(Refusal(501, "NotImplemented"), lambda asked: asked.is_chunked)


class StoresChunks(Store):
    """Stores the sizes and checksums around aws-chunks as if they were data."""

    def stored(self, asked: Asked) -> tuple[dict[str, str], bytes]:
        if not asked.is_chunked:
            return asked.headers, asked.body
        kept = {
            name: value
            for name, value in asked.headers.items()
            if name not in ("content-encoding", "x-amz-trailer", "x-amz-decoded-content-length")
        }
        return kept | {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, asked.body


class OtherChecksums(Store):
    """Answers with a checksum of something other than the object, such as a part or the file on its disk."""

    def extra_headers(self, method: str) -> dict[str, str]:
        return {"x-amz-checksum-crc32": "AAAAAA=="} if method in ("GET", "PUT") else {}


class BillsReaders(Refuses):
    """A requester-pays bucket."""

    def __init__(self) -> None:
        super().__init__(
            Refusal(403, "AccessDenied"), lambda asked: asked.headers.get("x-amz-request-payer") != "requester"
        )


class Both(Store):
    """Combines the behaviour of several stores."""

    def __init__(self, *stores: Store) -> None:
        self._stores = stores

    def refusal(self, asked: Asked) -> Refusal | None:
        return next((refusal for store in self._stores if (refusal := store.refusal(asked))), None)

    def stored(self, asked: Asked) -> tuple[dict[str, str], bytes]:
        for store in self._stores:
            headers, body = store.stored(asked)
            asked = asked._replace(headers=headers, body=body)
        return asked.headers, asked.body

    def extra_headers(self, method: str) -> dict[str, str]:
        return {name: value for store in self._stores for name, value in store.extra_headers(method).items()}


def expired(which: Callable[[Asked], bool] = lambda _: True) -> Refuses:
    return Refuses(Refusal(400, "ExpiredToken"), which)


def denies(which: Callable[[Asked], bool]) -> Refuses:
    return Refuses(Refusal(403, "AccessDenied"), lambda asked: asked.method == "GET" and which(asked))
