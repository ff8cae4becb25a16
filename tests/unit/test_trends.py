"""Lines over the nights and dots on a zoomed axis: where they are drawn, and what is not."""

import re

import pytest

from mribatch.commands.night_trends import night_names, trends
from mribatch.reports.dots import Measured, panel
from mribatch.reports.trends import Trend, lines, over_the_nights
from tests.sample_pages import DIGEST, index, nights
from tests.unit.test_page import Document


def test_a_line_spans_the_drawing_and_has_a_gap_where_nothing_was_measured() -> None:
    (line,) = lines([Trend(name="Scans", values=[10, 20, None, 15, 30])])
    assert (line.last, line.low, line.high) == ("30", "10", "30")
    assert line.strokes == ["0.0,28.0 25.0,15.0", "75.0,21.5 100.0,2.0"]
    assert line.dot == "100.0,2.0"


def test_a_line_that_never_changes_is_in_the_middle_and_one_night_has_no_line() -> None:
    (line,) = lines([Trend(name="a", values=[0.5, 0.5], is_share=True), Trend(name="b", values=[None, 1])])
    assert line.strokes == ["0.0,15.0 100.0,15.0"]
    assert line.last == "50.00%"


def test_the_numbers_of_the_nights_are_listed_the_latest_first() -> None:
    values = [Trend(name="a", values=[1, None]), Trend(name="b", values=[0.25, 0.5], is_share=True)]
    shown = over_the_nights(["Monday", "Tuesday"], values)
    assert shown["trend_head"] == ["Night", "a", "b"]
    assert shown["trend_rows"] == [["Tuesday", "–", "50.00%"], ["Monday", "1", "25.00%"]]


def test_trends_come_from_what_nights_have_stored_also_from_those_of_earlier_versions() -> None:
    old = {name: value for name, value in nights()[0].items() if name not in ("rejected", "failed", "referrals")}
    given = [old, *nights()[1:]]
    by_name = {trend.name: trend.values for trend in trends(given)}
    assert by_name["Rejected or failed"][0] is None
    assert by_name["For review"][0] is None
    assert by_name["Called glioma"][5] is None, "no scan in that night"
    assert by_name["Called glioma"][1] == pytest.approx(given[1]["by_class"]["glioma"] / given[1]["scored"])
    assert night_names(given)[:2] == ["2026-06-01 20:00", "2026-06-02 20:00"]


def test_the_index_has_a_line_for_each_run_with_links_to_its_record_and_report() -> None:
    document = Document(index())
    links = [link["href"] for link in document.all("a")]
    run = nights()[-1]["run_id"]
    assert links[:2] == [f"{run}.json", f"../_nights/{run}/nightly.html"]
    assert f"../model%3D{DIGEST}/" in links
    assert not [link for link in links if re.match("[a-z]+:|/", link)]


def test_dots_stand_on_an_axis_that_zooms_in_on_them() -> None:
    drawn = panel("Groups apart", ["x", "y", "z"], [Measured(0.97, (0.96, 0.98)), Measured(0.95, (0.9, 1.0)), None])
    assert drawn is not None
    assert [tick.name for tick in drawn.ticks] == ["92%", "94%", "96%", "98%", "100%"]
    first, second, third = drawn.dots
    assert (first.value, first.interval) == ("97.00%", "96.00% to 98.00%")
    assert [first.at, first.low, first.width] == pytest.approx([62.5, 50, 25])
    assert [second.low, second.width] == pytest.approx([0, 100])
    assert (third.value, third.interval, third.at) == ("–", "not measured", None)


def test_an_interval_far_longer_than_the_dots_differ_ends_at_the_edge() -> None:
    drawn = panel("As published", ["x"], [Measured(0.9, (0.0, 1.0))])
    assert drawn is not None
    assert drawn.ticks[0].name == "88%"
    assert (drawn.dots[0].low, drawn.dots[0].width) == (0, 100)


def test_nothing_measured_has_no_panel() -> None:
    assert panel("Other source", ["x"], [None]) is None
