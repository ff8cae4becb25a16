"""Fixtures of the integration tests: one real Ray session, and helpers for S3."""

import time
from collections.abc import Iterator

import pytest

from mribatch.stores import uris


@pytest.fixture(scope="package")
def ray_session(s3_server: str) -> Iterator[None]:  # noqa: ARG001 - Ray passes on the environment that it sets
    """Start Ray as a command does, once for all tests: its workers stay for the next test."""
    from mribatch.cluster.session import session

    with session():
        yield


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
