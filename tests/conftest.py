"""Shared fixtures: a real S3 server, tiny scans, a tiny model, the folder of real data. Importing this is cheap."""

import hashlib
import io
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.stores import uris

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

ScanFolder = Callable[..., list[str]]

ROOT = Path(__file__).parent.parent
SIDE_PX = 48
RAY_FOLDERS = ("tests/faults", "tests/integration", "tests/jobs")
RAY_FREE_FILES = (  # of those folders
    "tests/faults/test_credentials.py",
    "tests/faults/test_other_stores.py",
    "tests/faults/test_without_ray.py",
    "tests/integration/test_s3_errors.py",
    "tests/integration/test_s3_listing.py",
    "tests/integration/test_s3_objects.py",
    "tests/jobs/test_pages_in_a_browser.py",
    "tests/jobs/test_screen.py",
)

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


class Groups(LoadScopeScheduling):
    """Hands the workers of `make test` a file of tests at a time, but all files that may start Ray to one of them.

    Tests that wait for Ray run beside those that compute, and never two with Ray at once.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if file.startswith(RAY_FOLDERS) and file not in RAY_FREE_FILES else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the fixture `shared`, and skip the marked ones where the folder is missing."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
        if _SHARED is None and item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason=_WHY_SKIPPED))


@pytest.fixture(scope="session", autouse=True)
def own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the key file of identifiers out of the home folder, in this process and those it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of the real scans (data/) and weights (weights/, models/)."""
    if _SHARED is None:
        pytest.skip(_WHY_SKIPPED)
    return _SHARED


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Start a real S3 server and return its address. This process and those it starts use it by their environment."""
    from moto.server import ThreadedMotoServer  # takes seconds to import

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # one line per request would bury a failure
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
    """Return a client of the server that shares no code with the package."""
    import boto3

    return boto3.session.Session().client("s3", endpoint_url=s3_server)


@pytest.fixture
def bucket(s3_client: "S3Client") -> str:
    """Create an empty bucket for this test and return its URI, s3://…"""
    name = f"mribatch-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def scan_folder() -> ScanFolder:
    """Return `write_scans`: scan_folder(root, {"glioma": 5, "notumor": 5}) fills root/<class>/, on disk or on S3."""
    return write_scans


def make_model(folder: Path, *, seed: int = 0, labels: tuple[str, ...] = ("glioma", "notumor")) -> Model:
    """Save a cnn with random weights at 32 px: useless as a classifier, but real and fast."""
    from mribatch.models import networks  # loads TensorFlow

    path = folder.parent / f"{folder.name}.weights.h5"
    networks.build("cnn", len(labels), side_px=32, seed=seed).save_weights(path)
    facts = {"labels": list(labels), "backbone": "cnn", "image_side_px": 32}
    return directory.save(str(folder), path, facts, "A test's model, {digest}.")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return one tiny model for all tests."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def as_flags(**values: object) -> list[str]:
    """Return command-line flags: as_flags(image_side=32, output=path) is ["--image-side", "32", "--output", "…"]."""
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def write_scans(root: str | Path, counts: dict[str, int], *, side_px: int = SIDE_PX) -> list[str]:
    """Write tiny scans into a folder per class and return their URIs.

    Every second scan is a PNG, the others are JPEGs. No two are equal, and every run writes the same bytes.
    """
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
    """Draw a disk on black: stripes whose direction and width depend on the class, and spots and noise of the scan's own.

    The spots make scans of one class different pictures, not near copies.
    """
    look = hashlib.sha256(label.encode()).digest()
    noise = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    y, x = np.mgrid[-1 : 1 : side_px * 1j, -1 : 1 : side_px * 1j]
    angle, waves = look[0] / 256 * np.pi, 3 + look[1] % 9
    angle, waves = angle + noise.uniform(-0.1, 0.1), waves * noise.uniform(0.9, 1.1)
    grey = 130 + 50 * np.sin(np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + noise.uniform(0, 2 * np.pi))
    for _ in range(12):
        (column, row), sign = noise.uniform(-0.8, 0.8, 2), noise.choice([-1, 1])
        grey += 80 * sign * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 0.02)
    grey = grey * (x**2 + y**2 < 0.8) + noise.normal(0, 8, x.shape)
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
