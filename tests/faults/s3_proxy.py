"""An HTTP proxy before a real S3 server. It breaks requests and answers by a seeded plan and counts the faults."""

import http.client
import random
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlsplit

from tests.faults.odd_stores import Asked, Store

__all__ = ["S3Proxy"]

_REFUSALS = {  # kind → status and S3's error code; without a code it is a gateway's answer, with an HTML page as body
    "500": (500, "InternalError"),
    "502": (502, None),
    "503": (503, None),
    "504": (504, None),
    "SlowDown": (503, "SlowDown"),
    "RequestTimeout": (400, "RequestTimeout"),
}
_RESET = "reset"
_BETWEEN_HOPS = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
_WITHOUT_BODY = (204, 304)

_Card = TypeVar("_Card")


class S3Proxy:
    """A proxy that injects faults into some of the requests, and passes on the others.

    - `share` of the requests are refused or reset before the server sees them.
    - `lost_share` of the successful PUTs get no answer.
    - `cut_share` of the GET answers announce their full length, send half of it and end.
    - `breaks_refusals` resets the connection in the middle of each refusal's body.

    All four may be changed while it runs. `injected` counts the faults by kind: 500, 502, 503, 504, SlowDown,
    RequestTimeout, reset, lost, cut, down. What a `store` refuses or changes is not counted. `asked` counts all requests.
    With `tls`, the proxy speaks https.
    """

    def __init__(
        self,
        server: str,
        *,
        share: float = 0,
        lost_share: float = 0,
        cut_share: float = 0,
        seed: int = 0,
        store: Store | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.store, self._scheme = store or Store(), "https" if tls else "http"
        self.share, self.lost_share, self.cut_share = share, lost_share, cut_share
        self.breaks_refusals = False
        self.injected: Counter[str] = Counter()
        self.asked = 0
        self.upstream = urlsplit(server).netloc
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self._percent, self._kinds = _Deck(self._rng, range(100)), _Deck(self._rng, (*_REFUSALS, _RESET))
        self._is_down, self._to_lose = False, 0
        self._server = _Server(self)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)

    @property
    def address(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="s3-proxy", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def down(self) -> None:
        """Reset every request from now on, or answer it with 503."""
        with self._lock:
            self._is_down = True

    def up(self) -> None:
        with self._lock:
            self._is_down = False

    def lose_next_put_answers(self, count: int) -> None:
        """Send no answer to the next so many successful PUTs."""
        with self._lock:
            self._to_lose = count

    # The handler asks these for each request, in this order

    def fault(self, method: str) -> str | None:
        """Return the kind of fault for a request that has come in, or None."""
        with self._lock:
            self.asked += 1
            if self._is_down:
                self.injected["down"] += 1
                return self._rng.choice((_RESET, "503"))
            if self._percent.draw() >= self.share * 100:
                return None
            kind = self._kinds.draw()
            if (method, kind) == ("HEAD", "RequestTimeout"):
                kind = _RESET  # no body can carry its code, and a bare 400 is no reason to retry
            return self._counted(kind)

    def is_lost(self, method: str, status: int) -> bool:
        """Return whether to reset the connection in place of this answer."""
        with self._lock:
            if method != "PUT" or status != 200:
                return False
            lost = self._to_lose > 0 or self._rng.random() < self.lost_share
            self._to_lose = max(self._to_lose - 1, 0)
            return bool(lost and self._counted("lost"))

    def is_cut(self, method: str, status: int, body: bytes) -> bool:
        """Return whether to send only half of this answer."""
        with self._lock:
            cut = method == "GET" and status in (200, 206) and body and self._rng.random() < self.cut_share
            return bool(cut and self._counted("cut"))

    def _counted(self, kind: str) -> str:
        self.injected[kind] += 1
        return kind


class _Deck(Generic[_Card]):
    """Cards in random order, none twice before all were drawn: each gets its share, whatever the order of requests."""

    def __init__(self, rng: random.Random, cards: Iterable[_Card]) -> None:
        self._rng, self._cards, self._left = rng, list(cards), list[_Card]()

    def draw(self) -> _Card:
        if not self._left:
            self._left = self._rng.sample(self._cards, len(self._cards))
        return self._left.pop()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # all of Ray's workers connect at once

    def __init__(self, proxy: S3Proxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        killed_client = isinstance(sys.exception(), (ConnectionError, ssl.SSLError))
        if not killed_client:
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"  # keeps connections alive, and answers Expect: 100-continue by itself
    disable_nagle_algorithm = True

    def _pass_on(self) -> None:
        proxy, method = self.server.proxy, self.command
        body = self._body()  # all of it, whatever the answer: unread bytes would be taken for the next request
        kind = proxy.fault(method)
        if kind == _RESET:
            self._reset()
        elif kind:
            self._refuse(*_REFUSALS[kind])
        else:
            self._serve(Asked(method, self.path, {name.lower(): value for name, value in self.headers.items()}, body))

    def _serve(self, asked: Asked) -> None:
        proxy, method = self.server.proxy, self.command
        refusal = proxy.store.refusal(asked)
        if refusal:
            self._refuse(refusal.status, refusal.code, refusal.headers)
        else:
            headers, sent = proxy.store.stored(asked)
            answer, body = _forward(proxy.upstream, method, self.path, list(headers.items()), sent)
            if proxy.is_lost(method, answer.status):
                self._reset()
            else:
                self._answer(answer, body, cut=proxy.is_cut(method, answer.status, body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - the names are http.server's

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            continue  # trailers; those of aws-chunked are inside the body
        return b"".join(chunks)

    def _answer(self, answer: http.client.HTTPResponse, body: bytes, *, cut: bool) -> None:
        self.send_response_only(answer.status, answer.reason)
        extra = self.server.proxy.store.extra_headers(self.command)
        replaced = _BETWEEN_HOPS | extra.keys() | (set() if self.command == "HEAD" else {"content-length"})
        for name, value in answer.getheaders():
            if name.lower() not in replaced:
                self.send_header(name, value)
        for name, value in extra.items():
            self.send_header(name, value)
        if self.command != "HEAD" and answer.status not in _WITHOUT_BODY:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut

    def _refuse(self, status: int, code: str | None, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        body = f"<Error><Code>{code}</Code><Message>Injected.</Message></Error>" if code else "<html>Injected.</html>"
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/xml" if code else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.proxy.breaks_refusals:
            self.wfile.write(body[:10].encode())
            time.sleep(0.1)  # lets the client read this much before the reset
            self._reset()
        elif self.command != "HEAD":
            self.wfile.write(body.encode())

    def _reset(self) -> None:
        """End the connection with RST, before http.server can end it in good order."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


def _forward(
    upstream: str, method: str, path: str, headers: list[tuple[str, str]], body: bytes
) -> tuple[http.client.HTTPResponse, bytes]:
    """Return the server's answer and its body, over a new connection: none is ever stale."""
    connection = http.client.HTTPConnection(upstream, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            if name.lower() not in _BETWEEN_HOPS | {"expect", "content-length"}:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader("Connection", "close")
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()
