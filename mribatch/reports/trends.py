"""Turn a series of numbers, one for each night, into a small line for a page and a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mribatch.statistics.shares import percent

__all__ = ["Line", "Trend", "lines", "over_the_nights"]

_WIDTH, _HEIGHT = 100, 30  # of the drawing, in its own units
_MARGIN = 2  # above and below, so that a line at the edge is as thick as the others


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A number of each of some nights. values: the last is tonight's; None where it was not measured.

    is_share: the values are shares, 0 to 1.
    """

    name: str
    values: Sequence[float | None]
    is_share: bool = False

    def text(self, value: float | None) -> str:
        """Format a value."""
        if value is None or self.is_share:
            return percent(value)
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


class Line(NamedTuple):
    """A trend as drawn: texts, the strokes between gaps, each a list of points as SVG has them, and the last point."""

    name: str
    last: str
    low: str
    high: str
    strokes: list[str]
    dot: str | None


def lines(trends: Sequence[Trend]) -> list[Line]:
    """Return the trends as drawn. Those with fewer than two values are left out."""
    return [_line(trend) for trend in trends if sum(value is not None for value in trend.values) > 1]


def over_the_nights(nights: Sequence[str], trends: Sequence[Trend]) -> dict[str, object]:
    """Return what the macro `over_the_nights` takes: the lines, and the head and the rows of their table."""
    head = ["Night", *(trend.name for trend in trends)]
    return {"lines": lines(trends), "trend_head": head, "trend_rows": _rows(nights, trends)}


def _rows(nights: Sequence[str], trends: Sequence[Trend]) -> list[list[str]]:
    """Return the rows of a table: each night's name and its values, the latest first."""
    rows = zip(nights, *(map(trend.text, trend.values) for trend in trends), strict=True)
    return [list(row) for row in rows][::-1]


def _line(trend: Trend) -> Line:
    known = [value for value in trend.values if value is not None]
    low, high = min(known), max(known)
    point = _scale(len(trend.values), low, high)
    points = [None if value is None else point(night, value) for night, value in enumerate(trend.values)]
    strokes = [" ".join(stroke) for stroke in _strokes(points)]
    return Line(trend.name, trend.text(trend.values[-1]), trend.text(low), trend.text(high), strokes, points[-1])


def _scale(nights: int, low: float, high: float) -> Callable[[int, float], str]:
    """Return a function from the number of a night and its value to a point. A line that never changes is in the middle."""

    def point(night: int, value: float) -> str:
        share = (value - low) / (high - low) if high > low else 0.5
        x, y = _WIDTH * night / max(nights - 1, 1), _HEIGHT - _MARGIN - share * (_HEIGHT - 2 * _MARGIN)
        return f"{x:.1f},{y:.1f}"

    return point


def _strokes(points: Sequence[str | None]) -> Iterator[list[str]]:
    """Yield the runs of points without a gap."""
    stroke: list[str] = []
    for point in points:
        if point is not None:
            stroke.append(point)
        elif stroke:
            yield stroke
            stroke = []
    if stroke:
        yield stroke
