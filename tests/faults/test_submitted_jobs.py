"""`ray job submit` to a head with a token: right results and exit codes, and no access without the token."""

import http.client
import json
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mribatch.models import directory
from mribatch.models.format import Model
from tests.conftest import as_flags
from tests.faults import standard
from tests.faults.conftest import Archives, Launch, ScanFolder, Tell
from tests.faults.processes import ROOT, Process, parts, score_flags, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

QUICK, FULL = 240, 1000  # scans
STOPS = (0, 1, 5, 10, 20)  # a job is stopped after so many of 125 parts; 0: while it starts
RAY = Path(sys.executable).with_name("ray")
STOP_WAIT_S = 60  # as cluster.yaml


class Head:
    """`ray start --head` with a token. Its ports and files are its own, so other clusters on this machine do not matter."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(32)
        kept = folder / "auth_token"
        kept.touch(mode=0o600)
        kept.write_text(self.token)
        self.port, self._agent, gcs, client = free_ports(4)
        search = os.pathsep.join([str(RAY.parent), os.environ["PATH"]])  # a job runs the first `python` here
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(kept), "PATH": search}
        # The paths of sockets must be short: not pytest's folder.
        self._files = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        options = as_flags(
            num_cpus=2,
            object_store_memory=200 << 20,
            temp_dir=self._files.name,
            port=gcs,
            dashboard_port=self.port,
            dashboard_agent_listen_port=self._agent,
            ray_client_server_port=client,
        )
        switches = ("--block", "--include-dashboard=true", "--disable-usage-stats")
        environment = self.environment | {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
        start = (str(RAY), "start", "--head", *switches, *options)
        self._process = Process(*start, log=folder / "head.log", environment=environment)

    def wait(self) -> None:
        """Wait until the head accepts jobs."""
        process = self._process.process
        until(lambda: process.poll() is not None or self._accepts_jobs())
        assert process.poll() is None, self._process.log.read_text()

    def end(self) -> None:
        """Kill the head and everything that it started, and nothing else."""
        self._process.reap()
        self._files.cleanup()

    def job(self, verb: str, *words: str) -> list[str]:
        """Return the command `ray job submit`, or another verb, for this head."""
        return [str(RAY), "job", verb, "--address", f"http://127.0.0.1:{self.port}", *words]

    def submission(self, name: str, *argv: str, called: str) -> list[str]:
        """Return the command that the manual gives for a job."""
        options = as_flags(submission_id=called, working_dir=ROOT)
        return self.job("submit", *options, "--", "python", f"jobs/{name}.py", *argv)

    def ask(self, method: str, path: str, token: str | None, body: object = None) -> tuple[int, str]:
        """Return status and text of the job server's answer; status 0 if nothing answers."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        server = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            server.request(method, path, None if body is None else json.dumps(body), headers)
            answer = server.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            server.close()

    def status(self, called: str) -> str:
        """Return the status of a job."""
        status, text = self.ask("GET", f"/api/jobs/{called}", self.token)
        assert status == 200, text
        return str(json.loads(text)["status"])

    def _accepts_jobs(self) -> bool:
        """Return whether the job server answers, and the agent listens that starts the jobs."""
        if self.ask("GET", "/api/jobs/", self.token)[0] != 200:
            return False
        try:
            socket.create_connection(("127.0.0.1", self._agent), timeout=5).close()
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in sockets]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    up = Head(tmp_path_factory.mktemp("head"))
    try:
        up.wait()
        yield up
    finally:
        up.end()


def has_ended_or_reached(job: Process, output: Path, count: int) -> bool:
    """Return whether the job has ended, or holds the output and has written so many parts."""
    holds = bool(list(output.glob("_runs/*.lock-*")))
    return (holds and len(parts(output)) >= count) or job.process.poll() is not None


def scans_with_a_row(output: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in parts(output))


def test_a_submitted_run_scores_and_returns_its_exit_code_to_the_shell(
    head: Head, tiny_model: Model, archive: Archives, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    good = launch(*head.submission("score", *flags, called="good"), environment=head.environment)
    assert good.end(600) == 0, good.log.read_text()
    assert head.status("good") == "SUCCEEDED"
    assert f"scoring {QUICK} of {QUICK} scans" in good.log.read_text(), "the command shows the run's own lines"
    standard.check(str(output), source.uris, str(source.undisturbed))
    (record,) = standard.records(str(output))
    assert record["counts"] == {"ok": QUICK, "rejected": 0, "failed": 0, "left": 0}
    nothing = launch(*head.submission("score", *flags, called="nothing"), environment=head.environment)
    assert nothing.end() == 0, nothing.log.read_text()
    assert "nothing to do" in nothing.log.read_text()
    wrong = score_flags(str(tmp_path / "none"), source.folder, tmp_path / "wrong")
    bad = launch(*head.submission("score", *wrong, called="bad"), environment=head.environment)
    assert bad.end() == 1, bad.log.read_text()
    assert head.status("bad") == "FAILED"
    for words in ("error: no model at", "failed with exit code 2"):
        assert words in bad.log.read_text()
    assert not (tmp_path / "wrong").exists()
    outcome = f"{QUICK} rows, exit code 0; with a wrong path, exit code 1 and the job's code 2 in the last message"
    tell("none: `ray job submit` of `score` to a head with a token", f"{QUICK} scans", outcome)


def test_a_submitted_training_writes_its_model(
    head: Head, scan_folder: ScanFolder, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
    scan_folder(tmp_path / "data", {"glioma": 24, "notumor": 24})
    places = as_flags(data=tmp_path / "data", output=tmp_path / "model", storage=tmp_path / "store")
    flags = [*places, *as_flags(backbone="cnn", image_side=32, epochs=1, batch_size=8)]
    job = launch(*head.submission("train", *flags, called="training"), environment=head.environment)
    assert job.end(600) == 0, job.log.read_text()
    assert "epoch 1/1 done" in job.log.read_text()
    assert (tmp_path / "model" / "model.json").exists()
    model = directory.load_model(str(tmp_path / "model"))
    assert (model.labels, model.backbone) == (("glioma", "notumor"), "cnn")
    assert model.digest in job.log.read_text(), "the last line names the model"
    tell("none: `ray job submit` of `train` to a head with a token", "48 scans", "a model directory, exit code 0")


def test_the_cron_line_in_the_manual_scores_a_night(
    head: Head, tiny_model: Model, archive: Archives, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
    """Run it with cron's environment: the home of the user and next to nothing else."""
    source, output, home = archive(QUICK), tmp_path / "out", tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").touch(mode=0o600)
    (home / ".ray" / "auth_token").write_text(head.token)
    (line,) = re.findall(r"^0 22 \* \* \* +(.*)$", (ROOT / "docs" / "nightly.md").read_text(), re.MULTILINE)
    places = {
        "/srv/mribatch": str(ROOT),
        ".venv/bin/ray": str(RAY),
        ":8265": f":{head.port}",
        "s3://bucket/models": tiny_model.uri,
        "s3://bucket/scans": str(source.folder),
        "s3://bucket/predictions": str(output),
    }
    for example, place in places.items():
        assert line.count(example) == 1, f"the line in the manual does not have {example} once"
        line = line.replace(example, place)
    night = launch("env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", "/bin/sh", "-c", line)
    assert night.end(600) == 0, night.log.read_text()
    standard.check(str(output), source.uris, str(source.undisturbed))
    assert (output / "_nights").is_dir(), "the night has its report"
    tell(
        "none: the manual's cron line, in cron's environment",
        f"{QUICK} scans",
        f"{QUICK} rows and a report, exit code 0",
    )


def test_the_job_server_runs_nothing_without_its_token(head: Head, tmp_path: Path, launch: Launch, tell: Tell) -> None:
    marker = tmp_path / "ran"
    wanted = {"entrypoint": f"touch {marker}", "submission_id": "uninvited"}
    answers = [
        head.ask(method, path, token, body)[0]
        for token in (None, secrets.token_hex(32))
        for method, path, body in (("POST", "/api/jobs/", wanted), ("GET", "/api/jobs/", None))
    ]
    assert answers == [401, 401, 403, 403]
    stranger = launch(
        *head.job("submit", "--submission-id", "uninvited-too", "--", "touch", str(marker)),
        environment=head.environment | {"RAY_AUTH_MODE": "disabled"},
    )
    assert stranger.end() != 0, stranger.log.read_text()
    assert "Authentication required" in stranger.log.read_text()
    status, known = head.ask("GET", "/api/jobs/", head.token)
    assert status == 200
    assert "uninvited" not in known
    assert not marker.exists()
    dose = "2 requests each, and `ray job submit`"
    tell("requests to the job server with no token or a wrong one", dose, "status 401 and 403; nothing ran")


def test_a_stopped_job_releases_its_lock_at_once_and_a_rerun_completes(
    head: Head, tiny_model: Model, archive: Archives, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
    source = archive(FULL)
    for number, moment in enumerate(STOPS):
        output, called = tmp_path / f"out-{number}", f"stopped-{number}"
        flags = score_flags(tiny_model.uri, source.folder, output, "--lease-s", "300")
        job = launch(*head.submission("score", *flags, called=called), environment=head.environment)
        until(partial(has_ended_or_reached, job, output, moment))
        stop = launch(*head.job("stop", called), environment=head.environment)
        assert stop.end(STOP_WAIT_S + 60) == 0, stop.log.read_text()
        assert head.status(called) == "STOPPED", "the run was complete before it was stopped"
        job.end()
        assert "Traceback" not in job.log.read_text()
        assert scans_with_a_row(output) < FULL
        assert standard.records(str(output)) == [], "only a complete run has a record"
        (lock,) = output.glob("_runs/*.lock-*")
        assert json.loads(lock.read_text())["released"], "a stopped job releases its lock"
        last = launch(*head.submission("score", *flags, called=f"{called}-rerun"), environment=head.environment)
        assert last.end(600) == 0, last.log.read_text()
        standard.check(str(output), source.uris, str(source.undisturbed))
    tell("`ray job stop`, rerun", f"{len(STOPS)} moments", f"lock released, no record; {FULL:,} rows after the rerun")
