"""Fixtures of the fault tests: archives with undisturbed predictions, processes that end with their test, the table."""

import json
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import trustme

from mribatch.models.format import Model
from tests.faults.odd_stores import Store
from tests.faults.processes import WITH_RAY, WITHOUT_RAY, Job, Process, score_flags
from tests.faults.s3_proxy import S3Proxy

ScanFolder = Callable[..., list[str]]
Start = Callable[..., Job]
Launch = Callable[..., Process]
Tell = Callable[[str, str, str], None]

HEAD = """# Faults and their outcomes

Written by `make faults`. After each fault, the standard check (`tests/faults/standard.py`) must pass: every scan has
exactly one row; predictions are within 1e-5 of an undisturbed run; every visible Parquet file opens; only complete runs
have a record; the next run leaves no temporary files.

| fault | dose | outcome |
|---|---|---|
"""


@dataclass(frozen=True)
class Archive:
    """A folder of scans and the output of an undisturbed run on them."""

    folder: Path
    uris: list[str]
    undisturbed: Path


Archives = Callable[[int], Archive]


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """Collect the processes that a test starts, and end them after it."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.reap()


@pytest.fixture
def start(tmp_path: Path, started: list[Process]) -> Start:
    """Return a function that starts a job: start("score", *flags). It starts Ray, also for few scans."""

    def start(name: str, *argv: str, environment: dict[str, str] | None = None) -> Job:
        with_ray = WITH_RAY | (environment or {})
        job = Job(name, *argv, log=tmp_path / f"{name}-{len(started)}.log", environment=with_ray)
        started.append(job)
        return job

    return start


@pytest.fixture
def launch(tmp_path: Path, started: list[Process]) -> Launch:
    """Return a function that starts any other command: launch(*command)."""

    def launch(*command: str, environment: dict[str, str] | None = None) -> Process:
        process = Process(*command, log=tmp_path / f"process-{len(started)}.log", environment=environment)
        started.append(process)
        return process

    return launch


class Behind(Protocol):
    """Put a store before the server, for this process and those it starts; over https unless `plain`."""

    def __call__(self, store: Store, *, plain: bool = False) -> S3Proxy: ...


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """Return what an https server of a private certificate authority needs, and the authority's certificate."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    certificate = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(certificate)
    return context, certificate


@pytest.fixture
def behind(s3_server: str, authority: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    proxies: list[S3Proxy] = []
    for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)

    def lead(store: Store, *, plain: bool = False) -> S3Proxy:
        context, certificate = authority
        proxy = S3Proxy(s3_server, store=store, tls=None if plain else context)
        proxies.append(proxy.__enter__())
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        if not plain:
            monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        return proxy

    yield lead
    for proxy in proxies:
        proxy.__exit__(None, None, None)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, scan_folder: ScanFolder, tiny_model: Model) -> Archives:
    """Return archive(n): n tiny scans of two classes with an undisturbed output. Tests must not change it."""
    made: dict[int, Archive] = {}

    def archive(count: int) -> Archive:
        if count not in made:
            root = tmp_path_factory.mktemp(f"archive-{count}")
            uris = scan_folder(root / "scans", {"glioma": count // 2, "notumor": count - count // 2})
            flags = score_flags(tiny_model.uri, root / "scans", root / "out")
            job = Job("score", *flags, log=root / "log", environment=WITHOUT_RAY)
            assert job.end(300 + count / 10) == 0, (root / "log").read_text()
            made[count] = Archive(folder=root / "scans", uris=uris, undisturbed=root / "out")
        return made[count]

    return archive


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Return tell(fault, dose, outcome), which adds a row to docs/faults.md. `make faults` writes that table."""

    def tell(fault: str, dose: str, outcome: str) -> None:
        request.node.user_properties.append(("fault", json.dumps([fault, dose, outcome])))

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the table of faults if FAULTS_TABLE names a file. A run of some of the tests renews only their rows."""
    place = os.environ.get("FAULTS_TABLE")
    if not place:
        return
    new_rows, failed = [], []
    for kind in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(kind, []):
            lines = [json.loads(value) for name, value in getattr(report, "user_properties", []) if name == "fault"]
            new_rows += lines if kind == "passed" and report.when == "call" else []
            failed += [report.nodeid] if kind != "passed" and "tests/faults/" in report.nodeid else []
    table = config.rootpath / place
    rows = {(fault, dose): outcome for fault, dose, outcome in [*_earlier_rows(table), *new_rows]}
    lines = [f"| {fault} | {dose} | {outcome} |" for (fault, dose), outcome in sorted(rows.items())]
    lines += ["", *(f"Failed or skipped: {name}" for name in failed)] if failed else []
    table.write_text(HEAD + "\n".join(lines) + "\n")


def _earlier_rows(table: Path) -> list[list[str]]:
    """Return the rows of an earlier table: fault, dose, outcome."""
    lines = table.read_text().splitlines() if table.exists() else []
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [cells for cells in rows if len(cells) == 3 and cells[0] != "fault"]
