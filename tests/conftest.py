"""What all tests share: a real S3 server, tiny real scans, the shared data. No Ray, no TensorFlow."""

import hashlib
import io
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from mribatch.stores import uris

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

ScanFolder = Callable[..., list[str]]

ROOT = Path(__file__).parent.parent
SIDE_PX = 48

_SHARED = next((place for place in (ROOT / "shared", ROOT.parent / "shared") if (place / "DESIGN.md").exists()), None)
_WHY_SKIPPED = "needs the real scans and weights of ../shared, which are not here"
_FOREIGN = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_MAX_ATTEMPTS",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the fixture `shared` carries the marker; whoever carries the marker is skipped without it."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
        if _SHARED is None and item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason=_WHY_SKIPPED))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the real scans (data/) and weights (weights/, models/)."""
    if _SHARED is None:
        pytest.skip(_WHY_SKIPPED)
    return _SHARED


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a real S3 server on this machine; the environment leads every process that is started to it."""
    from moto.server import ThreadedMotoServer  # takes seconds to import

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line per request would hide what a failure says
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in _FOREIGN:
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL_S3", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield address
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_server: str) -> "S3Client":
    """The server as another program sees it."""
    import boto3

    return boto3.session.Session().client("s3", endpoint_url=s3_server)


@pytest.fixture
def bucket(s3_client: "S3Client") -> str:
    """A bucket of one's own, as s3://…"""
    name = f"mribatch-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def scan_folder() -> ScanFolder:
    """Write tiny real scans: scan_folder(root, {"glioma": 5, "notumor": 5}) fills root/<class>/, on disk or on S3."""
    return write_scans


def write_scans(root: str | Path, counts: dict[str, int], *, side_px: int = SIDE_PX) -> list[str]:
    """Every second scan is a PNG, the others are JPEG; no two are equal, and each is the same in every run. Their URIs."""
    written = []
    for label, count in counts.items():
        for number in range(count):
            kind = ("PNG", "JPEG")[number % 2]
            uri = uris.join(str(root), label, f"{label}_{number:04d}.{'png' if kind == 'PNG' else 'jpg'}")
            data = io.BytesIO()
            _scan(label, f"{label}/{number}", side_px).save(data, kind)
            uris.put(uri, data.getvalue())
            written.append(uri)
    return written


def _scan(label: str, name: str, side_px: int) -> Image.Image:
    """A bright disk on black with stripes whose direction and width tell the class, and noise that tells the scan."""
    look = hashlib.sha256(label.encode()).digest()
    noise = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    y, x = np.mgrid[-1 : 1 : side_px * 1j, -1 : 1 : side_px * 1j]
    angle, waves = look[0] / 256 * np.pi, 3 + look[1] % 9
    stripes = np.sin(np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + noise.uniform(0, 2 * np.pi))
    grey = (130 + 90 * stripes) * (x**2 + y**2 < 0.8) + noise.normal(0, 8, x.shape)
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
