"""What a session promises before any Ray has started: what is unwanted on stderr is kept from it, all else is not lost."""

import gc
import io
import os
import signal
import sys

import pytest

from mribatch.cluster import session
from mribatch.cluster.session import quiet_stderr
from mribatch.cluster.supervisor import Stopped, stoppable
from mribatch.errors import RunFailed
from mribatch.stores import uris


def test_only_unwanted_lines_are_kept_from_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_stderr(b"greeting"):
        os.write(2, b"a greeting of a library\na warning\n")
        assert capfd.readouterr().err == "", "all of it waits for the end"
    assert capfd.readouterr().err == "a warning\n"
    with quiet_stderr():
        os.write(2, b"anything\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_what_was_held_back_comes_after_an_error_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="no luck"), quiet_stderr(b"greeting"):
        os.write(2, b"a warning\n")
        raise OSError("no luck")
    assert capfd.readouterr().err == "a warning\n"


def test_stderr_is_given_back_though_a_second_signal_interrupts_that(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.StringIO):
        def flush(self) -> None:
            raise SystemExit(15)

    with pytest.raises(SystemExit), monkeypatch.context() as patch, quiet_stderr():
        patch.setattr(sys, "stderr", Interrupted())
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_two_signals_while_ray_starts_stop_the_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(session, "cluster_address", lambda: None)
    monkeypatch.setattr(session, "_OWN", {})  # else the settings of a session would stay in this process
    monkeypatch.setattr(session.ray, "init", init)
    with stoppable():
        with pytest.raises(Stopped) as stop:
            session._connect()
        assert stop.value.code == 128 + signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # during the cleanup: a lock must still be released


def test_the_handler_of_sigterm_is_the_same_after_ray_failed_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        raise RuntimeError("no luck")

    monkeypatch.setattr(session, "cluster_address", lambda: None)
    monkeypatch.setattr(session, "_OWN", {})
    monkeypatch.setattr(session.ray, "init", init)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RunFailed, match="no luck"):
        session._connect()
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_garbage_is_collected_while_ray_shuts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that collected an object reference then would end the process with exit code 1 and without a word."""
    collecting: list[bool] = []
    monkeypatch.setattr(session.ray, "shutdown", lambda: collecting.append(gc.isenabled()))
    session._disconnect()
    assert collecting == [False]
    assert gc.isenabled()


def test_workers_on_a_cluster_are_told_who_pays_unless_the_job_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert session._environment() is None
    with uris.paying(True):
        assert session._environment() == {"env_vars": {"AWS_REQUEST_PAYER": "requester"}}
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"env_vars": {"AWS_REQUEST_PAYER": "requester"}}')
        assert session._environment() is None
    assert session._environment() is None


def test_ray_starts_no_process_of_a_dashboard_and_later_starts_may(monkeypatch: pytest.MonkeyPatch) -> None:
    services = session.ray._private.services
    before, started = services.start_api_server, []
    monkeypatch.setattr(session, "cluster_address", lambda: None)
    monkeypatch.setattr(session, "_OWN", {})
    monkeypatch.setattr(session.ray, "init", lambda **_: started.append(services.start_api_server(False, False)))
    session._connect()
    assert started == [("", None)], "no address and no process"
    assert services.start_api_server is before
