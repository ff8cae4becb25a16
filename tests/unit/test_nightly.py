"""What the clock of a night promises. No Ray is started."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mribatch.runs.nightly import next_time

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


def test_another_time_zone_has_another_night() -> None:
    now = datetime(2025, 1, 10, 22, tzinfo=PARIS)
    assert next_time("06:00", "America/New_York", now) - now.astimezone(ZoneInfo("UTC")) == timedelta(hours=14)
