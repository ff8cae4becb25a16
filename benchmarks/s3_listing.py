"""Measure how long listing a million objects on S3 takes, from a server on this machine that takes 100 ms for a page.

In the root of the repository:  python benchmarks/s3_listing.py
"""

import bisect
import json
import logging
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import machine
import tyro

from mribatch.stores import uris

log = logging.getLogger("bench")

PAGE_KEYS = 1000
SHAPES: dict[str, Callable[[int], str]] = {
    "folders": lambda n: f"hospital-{n % 40:02}/study-{n // 200:06}/scan-{n:09}.jpg",
    "flat": lambda n: f"scan-{n:09}.jpg",
}


@dataclass(frozen=True, kw_only=True)
class ListingConfig:
    """The size of the bucket."""

    objects: int = 1_000_000
    """Number of objects."""

    page_s: float = 0.1
    """Seconds that the server takes for a page."""


class Answers(BaseHTTPRequestHandler):
    """Answers ListObjectsV2 for the sorted `keys`."""

    protocol_version = "HTTP/1.1"
    keys: list[str]
    page_s: float

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix, after = asked.get("prefix", ""), asked.get("continuation-token") or asked.get("start-after", "")
        start = max(bisect.bisect_left(self.keys, prefix), bisect.bisect_right(self.keys, after))
        end = bisect.bisect_left(self.keys, prefix + "\U0010ffff") if prefix else len(self.keys)
        page = self.keys[start : min(end, start + int(asked.get("max-keys", PAGE_KEYS)))]
        data = _answer(page, start + len(page) < end).encode()
        time.sleep(self.page_s)
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _answer(page: list[str], has_more: bool) -> str:
    contents = "".join(
        f"<Contents><Key>{quote(key)}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>20000</Size></Contents>"
        for key in page
    )
    token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if has_more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<EncodingType>url</EncodingType><KeyCount>{len(page)}</KeyCount>"
        f"<IsTruncated>{str(has_more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>"
    )


def serve(shape: str, config: ListingConfig, ready: Connection) -> None:
    """Serve a bucket, and send its port."""
    keys = sorted(map(SHAPES[shape], range(config.objects)))
    handler = type("Bucket", (Answers,), {"keys": keys, "page_s": config.page_s})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    ready.send(server.server_address[1])
    server.serve_forever()


def measure(shape: str, config: ListingConfig) -> dict[str, Any]:
    """List the objects of a new server; return the time and the driver's memory."""
    ready, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(shape, config, theirs), daemon=True)
    server.start()
    os.environ["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{ready.recv()}"
    try:
        begun, cpu_s = time.monotonic(), time.process_time()
        count = sum(1 for _ in uris.walk("s3://archive"))
        seconds = time.monotonic() - begun
    finally:
        server.terminate()
    return {
        "objects": count,
        "seconds": round(seconds, 1),
        "cpu_s": round(time.process_time() - cpu_s, 1),
        "peak_gib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) / 2**30, 2),
    }


def main() -> int:
    config = tyro.cli(ListingConfig, description=str(__doc__))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
    results = {shape: measure(shape, config) for shape in SHAPES}
    log.info(json.dumps({**results, **machine.facts()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
