"""One real Ray session and one tiny real model for all integration tests."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mribatch.learning import artifact


@pytest.fixture(scope="session")
def ray_session(s3_server: str) -> Iterator[None]:  # noqa: ARG001 - Ray hands its environment to the workers
    import ray

    from mribatch.runs import session  # noqa: F401 - its environment must be set before Ray starts

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def make_model(folder: Path, *, seed: int = 0, labels: tuple[str, ...] = ("glioma", "notumor")) -> artifact.Model:
    """A cnn with random weights at 32 px: wrong, but real and quick."""
    from mribatch.learning import network

    path = folder.parent / f"{folder.name}.weights.h5"
    network.build("cnn", len(labels), side_px=32, seed=seed).save_weights(path)
    facts = {"labels": list(labels), "backbone": "cnn", "image_side_px": 32}
    return artifact.save(str(folder), path, facts, "A test's model, {digest}.")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> artifact.Model:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def write_scans(root: Path, counts: dict[str, int]) -> None:
    """Small real PNG and JPEG files below root/<class>/, each different, the classes told apart by a bright disc."""
    for number, (label, count) in enumerate(sorted(counts.items())):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            rng = np.random.default_rng([index, number, zlib.crc32(str(root).encode())])
            rows, columns = np.mgrid[0:48, 0:48]
            centre = 24 + (-12 if number % 2 else 12) + rng.integers(-3, 4)
            disc = 150.0 * (np.hypot(rows - centre, columns - 24) < 7 + number)
            pixels = np.clip(disc + rng.normal(50, 12, (48, 48)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{label}_{index:04d}.{'png' if index % 2 else 'jpg'}")


@pytest.fixture(scope="session")
def scan_folder() -> Callable[[Path, dict[str, int]], None]:
    return write_scans
