"""Fixtures of the integration tests: one real Ray session, one tiny real model, helpers for S3."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.stores import uris


@pytest.fixture(scope="package")
def ray_session(s3_server: str) -> Iterator[None]:  # noqa: ARG001 - Ray passes on the environment that it sets
    import ray

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def make_model(folder: Path, *, seed: int = 0, labels: tuple[str, ...] = ("glioma", "notumor")) -> Model:
    """Save a cnn with random weights at 32 px: useless as a classifier, but real and fast."""
    from mribatch.models import networks

    path = folder.parent / f"{folder.name}.weights.h5"
    networks.build("cnn", len(labels), side_px=32, seed=seed).save_weights(path)
    facts = {"labels": list(labels), "backbone": "cnn", "image_side_px": 32}
    return directory.save(str(folder), path, facts, "A test's model, {digest}.")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow one try per request. AWS_MAX_ATTEMPTS is the setting of all AWS clients."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without pauses in between."""
    monkeypatch.setattr(time, "sleep", lambda _: None)


def fill(bucket: str, *names: str) -> None:
    """Put objects that contain their own name."""
    for name in names:
        uris.put(f"{bucket}/{name}", name.encode())


def below(bucket: str, uri: str) -> list[str]:
    """Return the names of all files that a walk of the URI lists, relative to the bucket."""
    return sorted(uris.relative(entry.uri, bucket) for entry in uris.walk(uri))
