"""What the clock of a night promises. No Ray is started."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import h5py
import numpy as np
import pytest

from mribatch.commands.nightly import Done, Forecast, expected_seconds, next_time, night_end, nightly
from mribatch.errors import ConfigError, StorageFull
from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.settings.score import NightlyConfig
from mribatch.sources.listing import keys_of, list_scans
from tests.conftest import write_scans
from tests.unit.test_history import part

PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        (datetime(2025, 1, 10, 22, tzinfo=PARIS), 8),
        (datetime(2025, 1, 10, 5, tzinfo=PARIS), 1),
        (datetime(2025, 1, 10, 6, tzinfo=PARIS), 24),  # the moment itself has passed
        (datetime(2025, 3, 29, 22, tzinfo=PARIS), 7),  # the clocks go forward
        (datetime(2025, 10, 25, 22, tzinfo=PARIS), 9),  # and back
    ],
)
def test_the_deadline_is_the_next_time_the_clock_shows_it(now: datetime, hours: int) -> None:
    moment = next_time("06:00", "Europe/Paris", now)
    assert moment.astimezone(PARIS).strftime("%H:%M") == "06:00"
    assert moment - now.astimezone(ZoneInfo("UTC")) == timedelta(hours=hours)


def test_a_time_that_the_clock_skips_is_the_hour_after() -> None:
    now = datetime(2025, 3, 30, 1, tzinfo=PARIS)
    assert next_time("02:30", "Europe/Paris", now).astimezone(PARIS).strftime("%H:%M") == "03:30"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "deadline", "now", "then"),
    [
        # Paris sets its clocks back at 01:00 UTC: 02:30 comes at 00:30 and again at 01:30 UTC.
        ("Europe/Paris", "02:30", "2025-10-25T20:00", "2025-10-26T00:30"),
        ("Europe/Paris", "02:30", "2025-10-26T00:30", "2025-10-26T01:30"),
        ("Europe/Paris", "02:30", "2025-10-26T00:45", "2025-10-26T01:30"),
        ("Europe/Paris", "02:30", "2025-10-26T01:15", "2025-10-26T01:30"),
        ("Europe/Paris", "02:30", "2025-10-26T01:30", "2025-10-27T01:30"),
        ("Europe/Paris", "03:00", "2025-10-26T00:59", "2025-10-26T02:00"),
        # It sets them forward at 01:00 UTC: from 02:00 to 03:00.
        ("Europe/Paris", "02:00", "2025-03-29T22:00", "2025-03-30T01:00"),
        ("Europe/Paris", "02:30", "2025-03-30T01:00", "2025-03-30T01:30"),
        ("Europe/Paris", "02:30", "2025-03-30T01:30", "2025-03-31T00:30"),
        ("Europe/Paris", "01:59", "2025-03-29T22:00", "2025-03-30T00:59"),
        # Lord Howe moves by half an hour, Cairo at midnight.
        ("Australia/Lord_Howe", "01:45", "2025-04-05T14:50", "2025-04-05T15:15"),
        ("Africa/Cairo", "00:30", "2025-04-24T21:00", "2025-04-24T22:30"),
        ("Africa/Cairo", "23:30", "2025-10-30T20:40", "2025-10-30T21:30"),
    ],
)
def test_where_the_clock_is_changed_the_deadline_is_the_next_such_moment(
    zone: str, deadline: str, now: str, then: str
) -> None:
    assert next_time(deadline, zone, utc(now)) == utc(then)


def test_a_deadline_lies_ahead_and_shows_its_time_at_every_minute_of_a_year_of_changes() -> None:
    zone = ZoneInfo("America/New_York")
    for begin in ("2025-03-09T04:00", "2025-11-02T04:00"):
        for minute in range(0, 5 * 60, 7):
            now = utc(begin) + timedelta(minutes=minute)
            moment = next_time("01:30", "America/New_York", now)
            assert now < moment <= now + timedelta(hours=25)
            assert moment.astimezone(zone).strftime("%H:%M") == "01:30"
            between = [now + timedelta(minutes=m) for m in range(1, int((moment - now).total_seconds() // 60))]
            assert not any(f"{one.astimezone(zone):%H:%M}" == "01:30" for one in between), (
                "an earlier one is passed over"
            )


@pytest.mark.parametrize(
    ("flags", "hours"),
    [
        ({"deadline": "06:00"}, 23),  # what a night that was caught up at 07:00 had
        ({"deadline": "06:00", "max_hours": 8.0}, 8),
        ({"deadline": "08:30", "max_hours": 8.0}, 1.5),
        ({"max_hours": 0.25}, 0.25),
        ({}, None),
    ],
)
def test_a_night_ends_at_its_deadline_or_after_its_greatest_length(flags: dict[str, Any], hours: float | None) -> None:
    config = NightlyConfig(model="m", input=("i",), output="o", **flags)
    started = utc("2025-01-10T07:00")
    assert night_end(config, started) == (None if hours is None else started + timedelta(hours=hours))


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf"), 90_000])
def test_a_length_that_cannot_be_meant_is_refused(hours: float) -> None:
    with pytest.raises(ConfigError, match=r"--max-hours must be (above 0 and at most|a finite number)"):
        NightlyConfig(model="m", input=("i",), output="o", max_hours=hours)


def test_another_time_zone_has_another_night() -> None:
    now = datetime(2025, 1, 10, 22, tzinfo=PARIS)
    assert next_time("06:00", "America/New_York", now) - now.astimezone(ZoneInfo("UTC")) == timedelta(hours=14)


def record(digest: str, scans: int, seconds: float) -> dict[str, Any]:
    return {
        "model_digest": digest,
        "seconds": seconds,
        "counts": {"ok": scans - 1, "rejected": 1, "failed": 5, "left": 7},
    }


@pytest.mark.parametrize(
    ("records", "seconds", "words"),
    [
        ([], None, "no run has scored anything in this output yet"),
        ([record("ours", 1000, 100)], 100, "one earlier run of this model"),
        ([record("ours", 1000, 100), record("theirs", 1000, 1)], 100, "one earlier run of this model"),
        ([record("theirs", 1000, 50), record("third", 1000, 50)], 50, "2 earlier runs of other models"),
        # Nights of few scans are little more than their start: they do not decide.
        ([*(record("ours", 5, 30) for _ in range(20)), record("ours", 10_000, 1000)], 100, "21 earlier runs"),
    ],
)
def test_the_duration_is_that_of_earlier_runs_of_the_model(
    records: list[dict[str, Any]], seconds: float | None, words: str
) -> None:
    expected, basis = expected_seconds(1000, records, "ours")
    assert expected == (None if seconds is None else pytest.approx(seconds))
    assert words in basis


def test_a_night_without_work_takes_no_time_whoever_scored() -> None:
    assert expected_seconds(0, [], "ours") == (0.0, "nothing is due")


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "unknown, why"), (20.4, "20 s, why"), (600, "10 min, why"), (9000, "2.5 h, why")]
)
def test_a_forecast_names_its_duration_in_a_unit_that_can_be_read(seconds: float | None, words: str) -> None:
    table = Forecast(listed=9, planned={"new": 2}, seconds=seconds, basis="why").table()
    assert f"duration  {words}\n" in table


def save_network(folder: Path) -> Model:
    """Save a model directory that can be opened, but computes nothing: its weights are no network's."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "any.h5", "w") as file:
        file.create_dataset("weights", data=np.zeros(3, np.float32))
    facts = {"labels": ["glioma", "notumor"], "backbone": "cnn", "image_side_px": 32}
    return directory.save(str(folder), folder / "any.h5", facts, "A test's model, {digest}.")


def test_scans_of_an_interrupted_run_wait_for_a_night_whose_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_network(tmp_path / "model")
    write_scans(tmp_path / "scans", {"glioma": 2})
    scans = [f"{uri}@{version}" for uri, version in keys_of(list_scans([str(tmp_path / "scans")]))]
    part(tmp_path / "out", model.digest, scans, name="20250101T000000Z-abc123-0f0f")
    config = NightlyConfig(model=model.uri, input=(str(tmp_path / "scans"),), output=str(tmp_path / "out"))

    def full(*_: object) -> str:
        raise StorageFull("no space left")

    with monkeypatch.context() as patch, pytest.raises(StorageFull):
        patch.setattr("mribatch.commands.nightly.night_page", full)
        nightly(config)
    for expected in (2, 0):
        done = nightly(config)
        assert isinstance(done, Done)
        assert done.night.tally.planned.get("interrupted", 0) == expected
