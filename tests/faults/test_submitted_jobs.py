"""README's commands on a head with a token: `ray job submit` gives right results and exit codes, and lets nobody else in."""

import http.client
import json
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mribatch.models import directory
from mribatch.models.format import Model
from tests.faults import standard
from tests.faults.conftest import Archive, Launch, ScanFolder, Tell
from tests.faults.processes import ROOT, Process, parts, score_flags, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
Archives = Callable[[int], Archive]

QUICK, FULL = 240, 1000  # scans
STOPS = (0, 1, 5, 10, 20)  # parts, of 125, after which a job is stopped; 0: while it starts
RAY = Path(sys.executable).with_name("ray")
STOP_WAIT_S = 60  # as cluster.yaml


class Head:
    """`ray start --head` with a token, beside whatever Ray runs on this machine: its ports, files and token are its own."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(32)
        kept = folder / "auth_token"
        kept.touch(mode=0o600)
        kept.write_text(self.token)
        self.port, self._agent, gcs, client = free_ports(4)
        search = os.pathsep.join([str(RAY.parent), os.environ["PATH"]])  # a job's `python` is the first one there
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(kept), "PATH": search}
        self._files = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # a socket's path is short
        self._process = Process(
            str(RAY), "start", "--head", "--block", "--include-dashboard=true", "--disable-usage-stats", "--num-cpus=2",
            f"--object-store-memory={200 << 20}", f"--temp-dir={self._files.name}", f"--port={gcs}",
            f"--dashboard-port={self.port}", f"--dashboard-agent-listen-port={self._agent}",
            f"--ray-client-server-port={client}",
            log=folder / "head.log", environment=self.environment | {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
        )  # fmt: skip

    def wait(self) -> None:
        """Return when it takes jobs."""
        process = self._process.process
        until(
            lambda: process.poll() is not None or (self.ask("GET", "/api/jobs/", self.token)[0] == 200 and self._runs())
        )
        assert process.poll() is None, self._process.log.read_text()

    def end(self) -> None:
        """End what it started, jobs too, and nothing else."""
        self._process.reap()
        self._files.cleanup()

    def job(self, verb: str, *words: str) -> list[str]:
        """`ray job submit` or another verb, to this head."""
        return [str(RAY), "job", verb, "--address", f"http://127.0.0.1:{self.port}", *words]

    def submission(self, name: str, *argv: str, called: str) -> list[str]:
        """The command that README gives for a job."""
        return self.job("submit", "--submission-id", called, "--working-dir", str(ROOT), "--",
                        "python", f"jobs/{name}.py", *argv)  # fmt: skip

    def ask(self, method: str, path: str, token: str | None, body: object = None) -> tuple[int, str]:
        """The status and the text that the job server answers; status 0 where nobody answers."""
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
        """What became of a job."""
        status, said = self.ask("GET", f"/api/jobs/{called}", self.token)
        assert status == 200, said
        return str(json.loads(said)["status"])

    def _runs(self) -> bool:
        """Does the agent listen that starts the jobs?"""
        try:
            socket.create_connection(("127.0.0.1", self._agent), timeout=5).close()
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    up = Head(tmp_path_factory.mktemp("head"))
    try:
        up.wait()
        yield up
    finally:
        up.end()


def has_come_to(output: Path, count: int) -> bool:
    """Does a run hold the output, and are there so many parts?"""
    return bool(list(output.glob("_runs/*.lock-*"))) and len(parts(output)) >= count


def scans_with_a_row(output: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in parts(output))


def test_a_submitted_run_scores_and_its_outcome_reaches_the_shell(
    head: Head, tiny_model: Model, archive: Archives, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
    about, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, about.folder, output)
    good = launch(*head.submission("score", *flags, called="good"), environment=head.environment)
    assert good.end(600) == 0, good.log.read_text()
    assert head.status("good") == "SUCCEEDED"
    assert f"scoring {QUICK} of {QUICK} scans" in good.log.read_text(), "the run's own lines are those of the command"
    standard.check(str(output), about.uris, str(about.undisturbed))
    (record,) = standard.records(str(output))
    assert record["counts"] == {"ok": QUICK, "rejected": 0, "failed": 0, "left": 0}
    nothing = launch(*head.submission("score", *flags, called="nothing"), environment=head.environment)
    assert nothing.end() == 0, nothing.log.read_text()
    assert "nothing to do" in nothing.log.read_text()
    wrong = score_flags(str(tmp_path / "none"), about.folder, tmp_path / "wrong")
    bad = launch(*head.submission("score", *wrong, called="bad"), environment=head.environment)
    assert bad.end() == 1, bad.log.read_text()
    assert head.status("bad") == "FAILED"
    for words in ("error: no model at", "failed with exit code 2"):
        assert words in bad.log.read_text()
    assert not (tmp_path / "wrong").exists()
    tell("none: `ray job submit` of `score` to a head with a token", f"{QUICK} scans",
         f"{QUICK} rows, the shell sees 0; for a wrong flag 1, and the code 2 in the last message")  # fmt: skip


def test_a_submitted_training_writes_its_model(
    head: Head, scan_folder: ScanFolder, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
    scan_folder(tmp_path / "data", {"glioma": 24, "notumor": 24})
    flags = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "model"), "--storage", str(tmp_path / "store"),
             "--backbone", "cnn", "--image-side", "32", "--epochs", "1", "--batch-size", "8"]  # fmt: skip
    job = launch(*head.submission("train", *flags, called="training"), environment=head.environment)
    assert job.end(600) == 0, job.log.read_text()
    assert "epoch 1/1 done" in job.log.read_text()
    assert (tmp_path / "model" / "model.json").exists()
    model = directory.load_model(str(tmp_path / "model"))
    assert (model.labels, model.backbone) == (("glioma", "notumor"), "cnn")
    assert model.digest in job.log.read_text(), "the last line names the model"
    tell("none: `ray job submit` of `train` to a head with a token", "48 scans", "a model directory, the shell sees 0")


def test_the_line_of_cron_in_the_readme_scores_a_night(
    head: Head, tiny_model: Model, archive: Archives, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
    """Cron gives a command the home of its user and next to nothing else."""
    about, output, home = archive(QUICK), tmp_path / "out", tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").touch(mode=0o600)
    (home / ".ray" / "auth_token").write_text(head.token)
    (line,) = re.findall(r"^0 22 \* \* \* +(.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    here = {
        "/srv/mribatch": str(ROOT), ".venv/bin/ray": str(RAY), ":8265": f":{head.port}", "s3://bucket/models": tiny_model.uri,
        "s3://bucket/scans": str(about.folder), "s3://bucket/predictions": str(output),
    }  # fmt: skip
    for there, ours in here.items():
        assert line.count(there) == 1, f"the line in README has no {there}"
        line = line.replace(there, ours)
    night = launch("env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", "/bin/sh", "-c", line)
    assert night.end(600) == 0, night.log.read_text()
    standard.check(str(output), about.uris, str(about.undisturbed))
    assert (output / "_nights").is_dir(), "the night has its report"
    tell("none: README's line of cron, with cron's environment", f"{QUICK} scans", f"{QUICK} rows and a report, exit 0")


def test_without_the_token_nobody_gets_in_and_nothing_runs(
    head: Head, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
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
    tell("the job server asked without the token, or with another one", "2 requests each, and `ray job submit`",
         "401 and 403; nothing ran")  # fmt: skip


def test_a_job_that_is_stopped_lets_go_at_once_and_can_go_on(
    head: Head, tiny_model: Model, archive: Archives, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
    about = archive(FULL)
    for number, moment in enumerate(STOPS):
        output, called = tmp_path / f"out-{number}", f"stopped-{number}"
        flags = score_flags(tiny_model.uri, about.folder, output, "--lease-s", "300")
        job = launch(*head.submission("score", *flags, called=called), environment=head.environment)
        until(lambda output=output, moment=moment, process=job.process:
              has_come_to(output, moment) or process.poll() is not None)  # fmt: skip
        stop = launch(*head.job("stop", called), environment=head.environment)
        assert stop.end(STOP_WAIT_S + 60) == 0, stop.log.read_text()
        assert head.status(called) == "STOPPED", "the run was over before it was stopped"
        job.end()
        assert "Traceback" not in job.log.read_text()
        assert scans_with_a_row(output) < FULL
        assert standard.records(str(output)) == [], "a record stands for a whole run only"
        (lock,) = output.glob("_runs/*.lock-*")
        assert json.loads(lock.read_text())["released"], "a job that is stopped lets go of the output"
        last = launch(*head.submission("score", *flags, called=f"{called}-rerun"), environment=head.environment)
        assert last.end(600) == 0, last.log.read_text()
        standard.check(str(output), about.uris, str(about.undisturbed))
    tell("`ray job stop`, rerun", f"{len(STOPS)} moments", f"lock released, no record; {FULL:,} rows after the rerun")
