"""One real Ray session and one tiny real model for all integration tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mribatch.models import directory
from mribatch.models.format import Model


@pytest.fixture(scope="package")
def ray_session(s3_server: str) -> Iterator[None]:  # noqa: ARG001 - Ray hands its environment to the workers
    import ray

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def make_model(folder: Path, *, seed: int = 0, labels: tuple[str, ...] = ("glioma", "notumor")) -> Model:
    """A cnn with random weights at 32 px: wrong, but real and quick."""
    from mribatch.models import networks

    path = folder.parent / f"{folder.name}.weights.h5"
    networks.build("cnn", len(labels), side_px=32, seed=seed).save_weights(path)
    facts = {"labels": list(labels), "backbone": "cnn", "image_side_px": 32}
    return directory.save(str(folder), path, facts, "A test's model, {digest}.")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")
