"""The lock: one holder at a time, whichever run dies, sleeps or comes at the same moment."""

import itertools
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import pytest

from mribatch.errors import ConfigError, MribatchError, OutputHeld, RunFailed, StorageMissing, StorageUnavailable
from mribatch.predictions import lock
from mribatch.stores import uris

DIGEST = "0123456789ab"


class Clock:
    """A clock that moves only during sleep, with an action to run meanwhile."""

    def __init__(self, *meanwhile: Callable[[], None]) -> None:
        self.now, self._meanwhile = 0.0, list(meanwhile)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self._meanwhile:
            self._meanwhile.pop(0)()


def hold(
    output: Path | str, run_id: str, clock: Clock | None = None, lease_s: float = 30.0
) -> AbstractContextManager[lock.Fence]:
    """Hold a lock under a test clock. A lease of 30 s, so that no holder renews it during a test."""
    clock = clock or Clock()
    return lock.held(str(output), DIGEST, run_id, lease_s=lease_s, clock=clock, sleep=clock.sleep)


def say(output: Path | str, generation: int, beat: int, run_id: str = "dead", *, released: bool = False) -> None:
    """Write what a holder in another process would."""
    facts = {"run_id": run_id, "host": "elsewhere", "pid": 1, "beat": beat, "released": released}
    uris.put(f"{output}/_runs/{DIGEST}.lock-{generation}", json.dumps(facts).encode())


def generations(output: Path) -> list[str]:
    return sorted(os.listdir(output / "_runs"))


def facts_of(output: Path, generation: int) -> dict[str, object]:
    facts: dict[str, object] = json.loads((output / "_runs" / f"{DIGEST}.lock-{generation}").read_bytes())
    return facts


# One run after the other


def test_the_first_run_holds_generation_1_and_says_who_it_is(tmp_path: Path) -> None:
    with hold(tmp_path, "one") as fence:
        fence.check()
        assert generations(tmp_path) == [f"{DIGEST}.lock-1"]
        facts = facts_of(tmp_path, 1)
        assert set(facts) == {"run_id", "host", "pid", "beat", "released"}
        assert (facts["run_id"], facts["beat"], facts["released"]) == ("one", 0, False)
    assert facts_of(tmp_path, 1)["released"] is True


def test_a_released_lock_is_taken_over_without_waiting(tmp_path: Path) -> None:
    clock = Clock()
    for turn in range(1, 4):
        with hold(tmp_path, f"run {turn}", clock) as fence:
            assert fence.generation == turn
    assert clock.now == 0


def test_a_run_that_fails_releases_its_lock(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bug"), hold(tmp_path, "one"):
        raise ValueError("bug")
    assert facts_of(tmp_path, 1)["released"] is True


def test_old_generations_go_and_the_highest_always_stays(tmp_path: Path) -> None:
    for turn in range(5):
        with hold(tmp_path, f"run {turn}"):
            assert f"{DIGEST}.lock-{turn + 1}" in generations(tmp_path)
    assert generations(tmp_path) == [f"{DIGEST}.lock-4", f"{DIGEST}.lock-5"]


def test_what_a_killed_holder_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    say(tmp_path, 9, 0, released=True)
    (tmp_path / "_runs" / f".{DIGEST}.lock-9.1234.tmp").write_bytes(b"")
    (tmp_path / "_runs" / ".another.lock-9.1234.tmp").write_bytes(b"")
    with hold(tmp_path, "next"):
        assert generations(tmp_path) == [".another.lock-9.1234.tmp", f"{DIGEST}.lock-10", f"{DIGEST}.lock-9"]


def test_two_models_may_write_to_one_output(tmp_path: Path) -> None:
    with hold(tmp_path, "one") as first, lock.held(str(tmp_path), "ba9876543210", "two", lease_s=30) as second:
        first.check()
        second.check()


def test_files_beside_the_locks_are_no_locks(tmp_path: Path) -> None:
    (tmp_path / "_runs").mkdir()
    for name in ("lock-²", "lock-", "lock-x", "lock-1.json", "other"):
        (tmp_path / "_runs" / f"{DIGEST}.{name}").write_bytes(b"")
    with hold(tmp_path, "one") as fence:
        assert fence.generation == 1


def test_an_output_that_is_a_file_ends_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with (
        pytest.raises(StorageMissing, match=f"expected a folder at {tmp_path}/out") as caught,
        hold(tmp_path / "out", "one"),
    ):
        pass
    assert caught.value.exit_code == 2


def test_storage_that_cannot_hold_a_lock_is_refused_before_a_holder_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: str) -> None:
        raise ConfigError(f"no lock in {folder}")

    say(tmp_path, 1, 7)
    clock = Clock()
    monkeypatch.setattr(uris, "check_exclusive", refuse)
    with pytest.raises(ConfigError, match=f"no lock in {tmp_path}/_runs"), hold(tmp_path, "two", clock):
        pass
    assert clock.now == 0
    assert generations(tmp_path) == [f"{DIGEST}.lock-1"]


# A living holder


def test_a_holder_that_counts_turns_others_away_with_exit_code_4_and_its_name(tmp_path: Path) -> None:
    say(tmp_path, 1, 7, "nightly")
    clock = Clock(lambda: None, lambda: say(tmp_path, 1, 8, "nightly"))
    with pytest.raises(OutputHeld, match="run nightly on elsewhere") as caught, hold(tmp_path, "two", clock):
        pass
    assert caught.value.exit_code == 4
    assert clock.now < 30
    assert generations(tmp_path) == [f"{DIGEST}.lock-1"]


def test_a_holder_really_counts_while_it_holds(tmp_path: Path) -> None:
    with hold(tmp_path, "one", lease_s=0.2) as fence:
        while facts_of(tmp_path, 1)["beat"] in (0, 1):
            time.sleep(0.01)
        fence.check()


def test_a_holder_whose_storage_hiccups_counts_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put, failures = uris.put, iter([True, False])

    def flaky(uri: str, data: bytes) -> None:
        if next(failures, False):
            raise StorageUnavailable("no answer")
        put(uri, data)

    with hold(tmp_path, "one", lease_s=0.2):
        monkeypatch.setattr(uris, "put", flaky)
        while facts_of(tmp_path, 1)["beat"] == 0:
            time.sleep(0.01)
    assert "could not be renewed" in caplog.text


def test_a_holder_that_lets_go_while_it_is_watched_is_followed(tmp_path: Path) -> None:
    say(tmp_path, 1, 7)
    clock = Clock(lambda: say(tmp_path, 1, -1, released=True))
    with hold(tmp_path, "two", clock) as fence:
        assert fence.generation == 2
    assert clock.now < 30


# A dead holder


def test_a_dead_holder_is_taken_over_after_one_lease_and_not_before(tmp_path: Path) -> None:
    say(tmp_path, 3, 7)
    clock = Clock()
    with hold(tmp_path, "next", clock) as fence:
        assert fence.generation == 4
        assert 30 <= clock.now < 36


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"null", b"{}"])
def test_a_holder_that_died_before_it_wrote_is_taken_over_too(tmp_path: Path, content: bytes) -> None:
    uris.put(f"{tmp_path}/_runs/{DIGEST}.lock-1", content)
    clock = Clock()
    with hold(tmp_path, "next", clock) as fence:
        assert fence.generation == 2
        assert clock.now >= 30


def test_a_holder_that_fills_its_empty_file_is_alive(tmp_path: Path) -> None:
    uris.put(f"{tmp_path}/_runs/{DIGEST}.lock-1", b"")
    clock = Clock(lambda: None, lambda: say(tmp_path, 1, 0, "slow"))
    with pytest.raises(OutputHeld, match="slow"), hold(tmp_path, "next", clock):
        pass


def test_a_taker_that_was_stopped_does_not_take_its_own_sleep_for_the_holders_death(tmp_path: Path) -> None:
    say(tmp_path, 1, 7, "alive")
    clock, looks = Clock(), iter(range(9))

    def stopped_at_its_second_look() -> float:
        if next(looks) == 1:
            clock.now += 1000
            say(tmp_path, 1, 8, "alive")
        return clock.now

    taking = lock.held(str(tmp_path), DIGEST, "next", lease_s=30, clock=stopped_at_its_second_look, sleep=clock.sleep)
    with pytest.raises(OutputHeld, match="alive"), taking:
        pass


# Many at once


@pytest.mark.parametrize("before", ["nothing", "a dead holder", "a released lock"])
def test_of_four_takers_at_once_exactly_one_gets_the_lock(tmp_path: Path, before: str) -> None:
    for turn in range(5):
        output = tmp_path / str(turn)
        if before != "nothing":
            say(output, 5, 0, released=before == "a released lock")
        assert sorted(race(str(output), winner=1 if before == "nothing" else 6)) == [False, False, False, True]


def race(output: str, *, winner: int) -> list[bool]:
    """Let four runs try for one lock at the same moment. Return those that got it, and those that hold it in the end."""
    start, end = threading.Barrier(4, timeout=60), threading.Barrier(4, timeout=60)
    beats = itertools.count(1)

    def beat() -> None:
        """Renew the winner's lease whenever another run looks again."""
        with suppress(StorageMissing):
            uris.read(f"{output}/_runs/{DIGEST}.lock-{winner}")
            say(output, winner, next(beats), "winner")

    def take(number: int) -> bool:
        clock = Clock(*[beat] * 99)
        start.wait()
        with ExitStack() as stack:
            try:
                fence = stack.enter_context(hold(output, f"taker {number}", clock))
            except OutputHeld:
                fence = None
            end.wait()
            if fence:
                fence.check()
            return fence is not None

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(take, range(4)))


def test_a_taker_that_overslept_whole_generations_gets_nothing_and_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked when there was no lock; then generation 1 was created, released and deleted."""
    create = uris.create

    def late(uri: str, data: bytes) -> bool:
        monkeypatch.setattr(uris, "create", create)
        for turn in range(3):
            with hold(tmp_path, f"run {turn}"):
                pass
        say(tmp_path, 4, 0, "holder")
        uris.delete(f"{tmp_path}/_runs/{DIGEST}.lock-2")
        return create(uri, data)

    monkeypatch.setattr(uris, "create", late)
    with pytest.raises(OutputHeld, match="run holder"), hold(tmp_path, "sleeper"):
        pass
    assert generations(tmp_path) == [f"{DIGEST}.lock-3", f"{DIGEST}.lock-4"]
    assert facts_of(tmp_path, 4)["run_id"] == "holder"


# A suspended holder


def test_a_sleeper_finds_out_before_it_writes_and_leaves_its_successor_alone(tmp_path: Path) -> None:
    with hold(tmp_path, "sleeper") as sleeper, hold(tmp_path, "successor") as successor:
        assert successor.generation == 2
        with pytest.raises(OutputHeld, match="run sleeper lost") as caught:
            sleeper.check()
        assert caught.value.exit_code == 4
        successor.check()
    facts = facts_of(tmp_path, 2)
    assert (facts["run_id"], facts["released"]) == ("successor", True)
    assert facts_of(tmp_path, 1)["released"] is False


def test_a_sleeper_that_lets_go_first_does_not_release_its_successor(tmp_path: Path) -> None:
    sleeper = hold(tmp_path, "sleeper")
    sleeper.__enter__()
    with hold(tmp_path, "successor") as successor:
        sleeper.__exit__(None, None, None)
        successor.check()
        assert facts_of(tmp_path, 2)["released"] is False


def test_a_sleeper_that_stops_counting_ends_its_thread(tmp_path: Path) -> None:
    with hold(tmp_path, "sleeper", lease_s=0.2):
        (thread,) = (t for t in threading.enumerate() if t.name == "mribatch-lease")
        say(tmp_path, 2, 0, "successor")
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert facts_of(tmp_path, 2)["run_id"] == "successor"


def test_a_lock_that_somebody_removed_is_told_as_that(tmp_path: Path) -> None:
    with hold(tmp_path, "one") as fence:
        uris.delete(f"{tmp_path}/_runs/{DIGEST}.lock-1")
        with pytest.raises(RunFailed, match="was the folder cleared"):
            fence.check()
    assert generations(tmp_path) == []  # and the lock is not created again


def test_a_run_without_the_right_to_delete_can_still_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def denied(uri: str) -> None:
        raise MribatchError(f"not {uri}")

    say(tmp_path, 1, 0)
    say(tmp_path, 2, 0, released=True)
    monkeypatch.setattr(uris, "delete", denied)
    with hold(tmp_path, "next") as fence:
        fence.check()
    assert "could not be deleted" in caplog.text
