"""S3 stores that are not AWS, as a proxy before a real server makes them: what they refuse, change and answer."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "Asked", "BillsReaders", "Both", "IgnoresConditions", "OtherChecksums", "Refusal", "Refuses", "RefusesChunks", "Store",
    "StoresChunks", "denies", "expired",
]  # fmt: skip


class Asked(NamedTuple):
    """A request: the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def access_key(self) -> str:
        found = re.search(r"Credential=([^/]+)/", self.headers.get("authorization", ""))
        return found[1] if found else ""

    @property
    def is_chunked(self) -> bool:
        return "aws-chunked" in self.headers.get("content-encoding", "")


@dataclass(frozen=True)
class Refusal:
    status: int
    code: str
    headers: dict[str, str] = field(default_factory=dict)


class Store:
    """One that does what AWS does."""

    def refusal(self, asked: Asked) -> Refusal | None:  # noqa: ARG002
        """What is answered in place of the server."""
        return None

    def stored(self, asked: Asked) -> tuple[dict[str, str], bytes]:
        """Headers and body as the server gets them."""
        return asked.headers, asked.body

    def told(self, method: str) -> dict[str, str]:  # noqa: ARG002
        """More headers of the answer."""
        return {}


class IgnoresConditions(Store):
    """Older MinIO and Ceph, some gateways."""

    def __init__(self, *names: str) -> None:
        self._names = names or ("if-none-match",)

    def stored(self, asked: Asked) -> tuple[dict[str, str], bytes]:
        return {name: value for name, value in asked.headers.items() if name not in self._names}, asked.body


class Refuses(Store):
    """Answers with a code what `which` picks, where it is `on`."""

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
    """Takes the sizes and checksums around aws-chunks for data."""

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
    """Answers with a checksum that is not that of the object, as of a part or of what lies on its disk."""

    def told(self, method: str) -> dict[str, str]:
        return {"x-amz-checksum-crc32": "AAAAAA=="} if method in ("GET", "PUT") else {}


class BillsReaders(Refuses):
    """A requester-pays bucket."""

    def __init__(self) -> None:
        super().__init__(
            Refusal(403, "AccessDenied"), lambda asked: asked.headers.get("x-amz-request-payer") != "requester"
        )


class Both(Store):
    """What several stores do, in one."""

    def __init__(self, *stores: Store) -> None:
        self._stores = stores

    def refusal(self, asked: Asked) -> Refusal | None:
        return next((refusal for store in self._stores if (refusal := store.refusal(asked))), None)

    def stored(self, asked: Asked) -> tuple[dict[str, str], bytes]:
        for store in self._stores:
            headers, body = store.stored(asked)
            asked = asked._replace(headers=headers, body=body)
        return asked.headers, asked.body

    def told(self, method: str) -> dict[str, str]:
        return {name: value for store in self._stores for name, value in store.told(method).items()}


def expired(which: Callable[[Asked], bool] = lambda _: True) -> Refuses:
    return Refuses(Refusal(400, "ExpiredToken"), which)


def denies(which: Callable[[Asked], bool]) -> Refuses:
    return Refuses(Refusal(403, "AccessDenied"), lambda asked: asked.method == "GET" and which(asked))
