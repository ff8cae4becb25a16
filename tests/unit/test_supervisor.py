"""A command under its supervisor: whatever ends it, there is one sentence, the documented exit code and a free lock.

Real processes and real locks on disk; no Ray.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import os, signal, sys, time
from mribatch.cluster import supervisor
supervisor._STOP_S = 1.0

def main():
    from mribatch.errors import RunFailed
    from mribatch.cluster.supervisor import Stopped
    from mribatch.predictions import lock
    output, ending = sys.argv[1:]
    with lock.held(output, "0123456789ab", "test-run", lease_s=300.0):
        open(output + "/child", "w").write(str(os.getpid()))
        if ending == "waits":
            time.sleep(60)
        if ending == "cleans up slowly":
            try:
                time.sleep(60)
            finally:
                time.sleep(0.6)
        if ending == "hangs":
            try:
                time.sleep(60)
            finally:
                time.sleep(60)
        if ending == "ends as Ray's C++ code does":
            os._exit(1)
        if ending == "leaves a process behind":
            import subprocess
            left = subprocess.Popen(["sleep", "60"])
            open(output + "/left", "w").write(str(left.pid))
            os._exit(1)
        if ending == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if ending == "prints":
            print("first\\nsecond")
            print("\\u2026 \\udce9 \\u00b7")
            print("third", file=sys.stderr)
    return 3

sys.exit(supervisor.supervised(main))
"""

Run = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """run(ending) starts the program; its output is read by `said`."""
    started: list[subprocess.Popen[bytes]] = []

    def run(ending: str, *, before: str = "", **environment: str) -> subprocess.Popen[bytes]:
        (tmp_path / "out").mkdir(exist_ok=True)
        command = [sys.executable, "-c", before + PROGRAM, str(tmp_path / "out"), ending]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell in the background ignores it
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def child_of(folder: Path) -> int:
    """Wait until the child holds the lock; its process ID."""
    until(lambda: (folder / "out" / "child").exists() and bool((folder / "out" / "child").read_text()))
    return int((folder / "out" / "child").read_text())


DROPPED = """
import os, signal, time, weakref
from mribatch.cluster.supervisor import stoppable

class Held:
    pass

def signalled(_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)

with stoppable():
    held = Held()
    reference = weakref.ref(held, signalled)
    del held
    time.sleep(60)
"""


def test_a_stop_signal_is_not_lost_where_python_drops_what_is_raised() -> None:
    """Else a run that is stopped within a destructor, or the callback of a weak reference, goes on."""
    done = subprocess.run([sys.executable, "-c", DROPPED], cwd=ROOT, capture_output=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"", b"")


def released(folder: Path) -> bool:
    (lock,) = (folder / "out" / "_runs").glob("*.lock-1")
    return bool(json.loads(lock.read_text())["released"])


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_a_stop_signal_ends_with_one_sentence_its_own_code_and_a_free_lock(
    run: Run, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = run("waits")
    child_of(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    (line,) = errors.decode().splitlines()
    assert line.startswith("stopped: ")
    assert released(tmp_path)


def test_an_impatient_user_does_not_keep_the_lock_from_its_release(run: Run, tmp_path: Path) -> None:
    process = run("cleans up slowly")
    child_of(tmp_path)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = errors.decode().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["stopping", "stopped"]
    assert released(tmp_path)


@pytest.mark.parametrize("ending", ["waits", "hangs"])
def test_a_signal_to_every_process_at_once_ends_as_one_to_the_command_alone(
    run: Run, tmp_path: Path, ending: str
) -> None:
    process = run(ending)
    child = child_of(tmp_path)
    for each in (child, process.pid):
        os.kill(each, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    (line,) = errors.decode().splitlines()
    assert line.startswith("stopped: ")
    assert released(tmp_path)
    assert not is_alive(child)


@pytest.mark.parametrize(
    ("ending", "how"), [("ends as Ray's C++ code does", "exit code 1"), ("is killed", "signal SIGKILL")]
)
def test_a_command_that_ends_without_a_word_gets_a_sentence_and_its_lock_is_released(
    run: Run, tmp_path: Path, ending: str, how: str
) -> None:
    process = run(ending)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = errors.decode().splitlines()
    assert line.startswith(f"error: the run's process ended without a message ({how})")
    assert "run the command again" in line
    assert released(tmp_path)


def test_what_a_dead_command_started_is_ended_before_its_lock_is_released(run: Run, tmp_path: Path) -> None:
    process = run("leaves a process behind")
    process.communicate(timeout=60)
    assert released(tmp_path)
    assert not is_alive(int((tmp_path / "out" / "left").read_text()))


def test_a_killed_supervisor_takes_the_command_with_it(run: Run, tmp_path: Path) -> None:
    process = run("waits")
    child = child_of(tmp_path)
    process.kill()
    process.wait(60)
    until(lambda: not is_alive(child))
    assert not released(tmp_path), "nobody was left to release it; its lease runs out"


def test_a_signal_that_the_caller_ignores_stays_ignored(run: Run, tmp_path: Path) -> None:
    process = run("waits", before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    child = child_of(tmp_path)
    for each in (child, process.pid):
        os.kill(each, signal.SIGHUP)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_signal_before_the_command_has_begun_stops_it(run: Run, tmp_path: Path) -> None:
    process = run(
        "waits", before="import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.kill(os.getpid(), 15)"
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.decode().startswith("stopped: ")
    assert not (tmp_path / "out" / "child").exists()


def test_a_reader_that_goes_away_changes_no_exit_code(run: Run, tmp_path: Path) -> None:
    process = run("prints")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 3
    assert released(tmp_path)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_a_terminal_does_not_know_are_replaced(run: Run, encoding: str) -> None:
    process = run("prints", PYTHONIOENCODING=encoding)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    text = "\u2026 \udce9 \u00b7".encode(encoding, errors="backslashreplace")
    assert output.splitlines() == [b"first", b"second", text]
    assert errors == b"third\n"


def test_streams_that_the_caller_closed_are_no_failure_and_no_file_takes_their_place(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out"), "prints"]
    done = subprocess.run(["sh", "-c", '"$@" 0<&- 1>&- 2>&-', "sh", *command], cwd=ROOT, timeout=60)
    assert done.returncode == 3
    assert released(tmp_path)
    assert all(b"second" not in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
