"""Lay out shares with their intervals as dots on a zoomed axis, in percent of its width."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from mribatch.reports.rendering import interval
from mribatch.statistics.shares import percent

__all__ = ["Dot", "Measured", "Panel", "Tick", "panel"]

_STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
_MOST_STEPS = 5  # so that the numbers below the axis stand apart on a phone
_AROUND = 1.0  # of the range of the shares, on both sides: an interval that is longer ends at the edge
_LEAST = 0.02  # the least that is shown on both sides


class Measured(NamedTuple):
    """A share, 0 to 1, with its 95% interval."""

    share: float
    interval: tuple[float, float]


class Dot(NamedTuple):
    """A row of a panel. at: of the dot; low, width: of its interval; all in percent of the axis. None: not measured."""

    name: str
    value: str
    interval: str
    at: float | None
    low: float
    width: float


class Tick(NamedTuple):
    """A number below the axis."""

    name: str
    at: float


class Panel(NamedTuple):
    """Dots on a common axis."""

    title: str
    dots: list[Dot]
    ticks: list[Tick]


def panel(title: str, names: Sequence[str], values: Sequence[Measured | None]) -> Panel | None:
    """Return a panel with a row for each name, in this order; None if nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high, step = _axis(known)
    count = round((high - low) / step)
    ticks = [Tick(f"{100 * (low + k * step):.4g}%", 100 * k / count) for k in range(count + 1)]
    rows = zip(names, values, strict=True)
    return Panel(title, [_dot(name, value, low, high) for name, value in rows], ticks)


def _axis(values: Sequence[Measured]) -> tuple[float, float, float]:
    """Return both ends of the axis and the distance of its ticks."""
    shares = [value.share for value in values]
    around = max(_AROUND * (max(shares) - min(shares)), _LEAST)
    low = max(0.0, min(shares) - around, min(value.interval[0] for value in values))
    high = min(1.0, max(shares) + around, max(value.interval[1] for value in values))
    step = next((step for step in _STEPS if (high - low) / step <= _MOST_STEPS), _STEPS[-1])
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, max(last, first + 1) * step, step


def _dot(name: str, value: Measured | None, low: float, high: float) -> Dot:
    if value is None:
        return Dot(name, "–", "not measured", None, 0, 0)
    places = (value.interval[0], value.share, value.interval[1])
    begin, at, end = (100 * (min(max(place, low), high) - low) / (high - low) for place in places)
    return Dot(name, percent(value.share), interval(value.interval), at, begin, end - begin)
