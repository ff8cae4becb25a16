"""What every run needs of Ray: a session that is quiet, and errors that say one thing. No job's own logic."""

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

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; else it warns at each start
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray Data's own actor pools log an "error" at each start
os.environ.setdefault(
    "RAY_DEDUP_LOGS_SKIP_REGEX", "[Ff]ailed|died"
)  # Ray's reports of workers that died: the run goes on, or says why not
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ray
import ray.data
import ray.exceptions
from ray.train import TrainingFailedError

from mribatch import errors
from mribatch.errors import MribatchError, RunFailed
from mribatch.runs.cluster import await_node
from mribatch.storage import uris

__all__ = ["quiet_stderr", "session"]


_OWN = {  # a session that a run starts itself: nobody looks at its metrics, and no machine joins it
    "RAY_idle_worker_killing_time_threshold_ms": "30000",  # else a decoder that waits for a second is ended, and its
    # successor takes seconds to start
    "RAY_enable_metrics_collection": "0",  # this and the others cost two cores that train 2% of their time
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "3600000",
    "AUTOSCALER_UPDATE_INTERVAL_S": "3600",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "1",  # else it looks for new log files ten times a second
}
_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
_WATCHER_WANTED = os.environ.get(_WATCHER)
_PRINTED = re.compile(r"^mribatch\.errors\.(\w+): (.+)$", re.MULTILINE)


@contextmanager
def session() -> Iterator[None]:
    """Use the Ray cluster that is there, or start one on this machine for as long as this lasts.

    Raises the MribatchError that a worker raised, RunFailed for everything else that Ray reports.
    """
    started = not ray.is_initialized()
    if started:
        _connect()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # an error comes as an exception, and is told in a sentence
    try:
        await_node()
        alone = len(ray.nodes()) == 1  # such a node has none to move to when it is taken away
        os.environ[_WATCHER] = _WATCHER_WANTED or ("0" if alone else "1")
        yield
    except (ray.exceptions.RayError, TrainingFailedError) as err:
        raise _told(err) from err
    finally:
        if started:
            _disconnect()


def _disconnect() -> None:
    """Shut Ray down, with no garbage collection in other threads meanwhile.

    One that frees an object reference after Ray's core has gone ends the process: exit code 1, without a word.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _connect() -> None:
    on_sigterm = signal.getsignal(signal.SIGTERM)
    for name, value in _OWN.items():
        os.environ.setdefault(name, value)
    try:
        with quiet_stderr(b"Set ray log level"):
            # Workers' errors come as exceptions. A dashboard would cost 3% of two cores; a cluster that is there keeps its own.
            ray.init(
                logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False, runtime_env=_environment()
            )
    except (RuntimeError, OSError, ray.exceptions.RayError) as err:
        raise RunFailed(f"Ray could not be started or reached ({_last_line(err)}): check RAY_ADDRESS and the token of the "
                        "cluster; where an earlier one died on this machine, `ray stop` clears it away, and all other Ray here") from err  # fmt: skip
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would end the run with 1


def _environment() -> dict[str, dict[str, str]] | None:
    """What workers on a cluster that is there need of this process's environment, unless the job brought it along."""
    shared = {name: os.environ[name] for name in uris.SHARED_SETTINGS if name in os.environ}
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "")
    return {"env_vars": shared} if shared and not any(name in job for name in shared) else None


@contextmanager
def quiet_stderr(unwanted: bytes = b"") -> Iterator[None]:
    """Lines with `unwanted` in them, so all of them if nothing is named, do not reach stderr while this lasts; the others
    do at its end. For C++ libraries, which greet before they can be told not to."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        try:
            os.dup2(held.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if unwanted not in line:
                    os.write(2, line)


def _told(err: BaseException) -> MribatchError:
    """The error of ours that lies in one of Ray's, or one that names what Ray said."""
    for inner in _within(err, set()):
        if isinstance(inner, MribatchError):
            return inner
    printed = _PRINTED.findall(str(err))  # of an actor's death Ray hands over the text alone
    if printed:
        name, message = printed[-1]
        known: type[MribatchError] = getattr(errors, name, MribatchError)
        return known(message)
    return RunFailed(f"Ray ended the run ({type(err).__name__}): {_last_line(err)}; run the command again, it goes on "
                     "where it was")  # fmt: skip


def _last_line(err: BaseException) -> str:
    lines = [line for line in str(err).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it gave no reason"


def _within(err: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if err is None or id(err) in seen:
        return
    seen.add(id(err))
    yield err
    failures = getattr(err, "worker_failures", None) or {}
    for inner in (getattr(err, "cause", None), err.__cause__, err.__context__, *failures.values()):
        if isinstance(inner, BaseException):
            yield from _within(inner, seen)
