"""Join a Ray cluster or start one, keep it quiet, and turn what Ray raises into one sentence."""

import gc
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray._private.services
import ray.exceptions

from mribatch import errors
from mribatch.cluster.address import cluster_address
from mribatch.cluster.nodes import await_node
from mribatch.cluster.supervisor import Stopped, ray_logs
from mribatch.errors import MribatchError, RunFailed
from mribatch.stores import uris

__all__ = ["has_dashboard", "quiet_stderr", "session"]

log = logging.getLogger("mribatch.session")

_OWN = {  # for a session that a run starts itself: nobody reads its metrics, and no machine joins it
    # Without this, a decoder that is idle for a second is killed, and its successor takes seconds to start.
    "RAY_idle_worker_killing_time_threshold_ms": "30000",
    "RAY_enable_metrics_collection": "0",  # this and the next three cost 2% of the time of two training cores
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "3600000",
    "AUTOSCALER_UPDATE_INTERVAL_S": "3600",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # Ray takes one epoch's report at each check; by default every 2 s
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "1",  # else it looks for new log files ten times a second
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",  # a dead GCS does not come back: end the run after 15 s, not 60 s
}
_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
_WATCHER_WANTED = os.environ.get(_WATCHER)
_LONGEST = 300  # characters of a foreign message
_ADVICE = re.compile(r"(^|\n)Failed to [^\n]+ after \d+/\d+ attempts \(total backoff .*", re.DOTALL)
"""The advice that Ray Data appends to the message of each error that passes through it."""
_TYPE = re.compile(r"^(?:\w+\.)*([A-Z]\w+): ", re.MULTILINE)
_LATER = re.compile(r"^(?:The above exception was the direct cause|During handling of the above)", re.MULTILINE)
_PRINTED = re.compile(r"^mribatch\.errors\.(\w+): (.+)$", re.MULTILINE)


@contextmanager
def session() -> Iterator[None]:
    """Join the running Ray cluster, or start one on this machine and stop it at the end.

    Raises the MribatchError that a worker raised, RunFailed for everything else that Ray reports.
    """
    started = not ray.is_initialized()
    try:
        if started:
            _connect()
        _silence()
        await_node()
        alone = len(ray.nodes()) == 1  # a single node has no other to move to when it is preempted
        os.environ[_WATCHER] = _WATCHER_WANTED or ("0" if alone else "1")
        yield
    except _ray_errors() as err:
        raise _plain(err) from err
    finally:
        if started:
            _disconnect()


def has_dashboard() -> bool:
    """Return whether this Ray has its dashboard, which also answers questions about actors; True where Ray does not say."""
    ask = getattr(ray._private.services, "get_webui_url_from_internal_kv", None)
    return ask is None or bool(ask())


def _ray_errors() -> tuple[type[Exception], ...]:
    """Return the errors of Ray, and those of Ray Data and Ray Train if this process has imported them."""
    homes = {"ray.data.exceptions": "SystemException", "ray.train": "TrainingFailedError"}
    imported = (getattr(sys.modules[home], name) for home, name in homes.items() if home in sys.modules)
    return (ray.exceptions.RayError, *imported)


def _disconnect() -> None:
    """Shut Ray down, with garbage collection off meanwhile.

    If another thread's collection frees an object reference after Ray's core has shut down, the process exits with
    code 1 and no message.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _silence() -> None:
    import ray.data  # takes a second, in which Ray starts its first workers

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # an error comes as an exception, which becomes a sentence


def _connect() -> None:
    address = cluster_address()
    log.info("%s …", f"joining the Ray cluster at {address}" if address else "starting Ray")
    if address is None:
        for name, value in _OWN.items():
            os.environ.setdefault(name, value)
    try:
        with quiet_stderr(b"Set ray log level"), _sigterm_restored(), _no_dashboard():
            # Workers' errors arrive as exceptions. A running cluster keeps its dashboard.
            ray.init(
                logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False, runtime_env=_environment()
            )
    except Stopped:
        raise
    except SystemExit as err:  # raised by the SIGTERM handler that Ray sets while it starts
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            handler(signal.SIGTERM, None)  # counts the signal, so that a second one is ignored during the cleanup
        raise Stopped(128 + signal.SIGTERM) from err
    except Exception as err:  # Ray raises the base class too, for a node that takes more than 30 s
        raise RunFailed(
            f"Ray could not be started or reached ({_last_line(str(err))}): check RAY_ADDRESS and the token of the cluster; "
            "if a Ray process is left over from an earlier run, `ray stop` ends it and all other Ray on this machine"
        ) from err


@contextmanager
def _sigterm_restored() -> Iterator[None]:
    """Give SIGTERM back its handler at the end, however Ray's start ends: Ray's own would exit with another code."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _no_dashboard() -> Iterator[None]:
    """Keep Ray from starting the process of its dashboard, and from waiting for it: it does so even where that is off.

    It takes 1.5 s of a start and 1 s of a core. No setting prevents it in Ray 2.60. In a Ray without `start_api_server`
    it starts as usual.
    """
    services, name = ray._private.services, "start_api_server"
    start = getattr(services, name, None)
    if start is not None:
        setattr(services, name, lambda *_, **__: ("", None))  # an address and a process
    try:
        yield
    finally:
        if start is not None:
            setattr(services, name, start)


def _environment() -> dict[str, dict[str, str]] | None:
    """Return the runtime environment that hands this process's storage settings to workers, unless the job set them."""
    shared = {name: os.environ[name] for name in uris.SHARED_SETTINGS if name in os.environ}
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "")
    return {"env_vars": shared} if shared and not any(name in job for name in shared) else None


@contextmanager
def quiet_stderr(unwanted: bytes = b"") -> Iterator[None]:
    """Keep lines that contain `unwanted` from stderr while this lasts; all lines by default. The others are written at the end.

    For C++ libraries, which print before they can be configured.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        try:
            os.dup2(held.fileno(), 2)
            yield
        finally:
            try:
                sys.stderr.flush()
            finally:  # also when a second signal raises here
                os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if unwanted not in line:
                    os.write(2, line)


def _plain(err: BaseException) -> MribatchError:
    """Return the package's own error inside one of Ray's, or RunFailed with the type and message of the first cause."""
    wrappers = _ray_errors()
    causes = [_without_advice(cause) for cause in _causes(err, set())]
    for cause in causes:
        if isinstance(cause, MribatchError) and not isinstance(cause, ray.exceptions.RayError):
            return cause
    printed = _PRINTED.findall(str(err))  # when an actor dies, Ray passes on the text only
    if printed:
        name, message = printed[-1]
        known: type[MribatchError] = getattr(errors, name, MribatchError)
        return known(message)
    foreign = [cause for cause in causes if not isinstance(cause, (*wrappers, StopIteration))]
    reason = f"{type(foreign[-1]).__name__}: {_last_line(str(foreign[-1]))}" if foreign else _printed_reason(str(err))
    return RunFailed(
        f"Ray ended the run ({type(err).__name__}: {reason}): see {ray_logs()} for the cause, then run the command again to resume"
    )


def _without_advice(err: BaseException) -> BaseException:
    """Remove what Ray Data appended to an error's message, in place."""
    words = (_ADVICE.sub("", arg) if isinstance(arg, str) else arg for arg in err.args)
    err.args = tuple(word for word in words if word != "")
    return err


def _printed_reason(text: str) -> str:
    """Return the type and the last line of the first error in a text of tracebacks."""
    text = _LATER.split(_ADVICE.sub("", text))[0]
    last, types = _last_line(text), _TYPE.findall(text)
    return f"{types[-1]}: {last}" if types and not _TYPE.match(last) else last


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else "no reason given"


def _causes(err: BaseException | None, visited: set[int]) -> Iterator[BaseException]:
    """Yield an error and all errors that it wraps, outermost first."""
    if err is None or id(err) in visited:
        return
    visited.add(id(err))
    yield err
    failures = getattr(err, "worker_failures", None) or {}
    wrapped = (getattr(err, "cause", None), getattr(err, "controller_failure", None), err.__cause__, err.__context__)
    for inner in (*wrapped, *failures.values()):
        if isinstance(inner, BaseException):
            yield from _causes(inner, visited)
