"""The page of a night: the state comes first and in words, the numbers add up, and no text becomes markup."""

import html
import re
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from mribatch.commands.night_summary import referral_alarms
from mribatch.reports.evaluation import DISCLAIMER
from mribatch.reports.night import Change, Comparison, Night, Referred, Reject, Tally, Work, night_page
from mribatch.reports.rendering import picture, png
from mribatch.reports.trends import Trend
from mribatch.statistics.drift import drift
from tests.unit.test_page import HOSTILE, Document

pytestmark = pytest.mark.filterwarnings("error")

STARTED = datetime(2026, 6, 12, 22, 0, 4, tzinfo=ZoneInfo("Europe/Paris"))


def tally(**changes: Any) -> Tally:
    given: dict[str, Any] = {
        "listed": 12_345,
        "done_before": 11_000,
        "vanished": 4,
        "planned": {"new": 1300, "changed": 45, "backfill": 0},
        "scored": {"new": 1297, "changed": 44, "backfill": 0},
        "failed": 1,
        "left_over": 0,
    }
    return Tally(**given | changes)


def comparison(
    before: list[int], tonight: list[int], names: tuple[str, ...] = ("glioma", "notumor"), runs: int = 7
) -> Comparison:
    return Comparison(runs=runs, names=names, before=before, tonight=tonight, drift=drift(before, tonight))


def change(number: int = 0, **changes: Any) -> Change:
    given: dict[str, Any] = {
        "scan_uri": f"s3://b/scan-{number}.jpg",
        "why": "version",
        "before": "notumor",
        "before_confidence": 0.8,
        "after": "glioma",
        "after_confidence": 0.912,
    }
    return Change(**given | changes)


def reject(number: int = 0, reason: str = "truncated", detail: str | None = "ends after 3 of 9 bytes") -> Reject:
    return Reject(scan_uri=f"s3://b/bad-{number}.jpg", reason=reason, detail=detail)


def page(**changes: Any) -> str:
    return night_page(night_of(**changes))


def night_of(**changes: Any) -> Night:
    given: dict[str, Any] = {
        "title": "Night of 2026-06-12",
        "run_id": "20260612T200004Z-4f1c",
        "model": "models/brain-mri-v2",
        "model_digest": "0123456789ab",
        "started": STARTED,
        "ended": STARTED + timedelta(minutes=2, seconds=14.3),
        "deadline": STARTED + timedelta(hours=8),
        "tally": tally(),
        "classes": comparison([500, 500], [260, 240]),
        "confidence": comparison([100, 900], [400, 100], ("0 to 0.999", "0.999 to 1")),
        "changes": [change(0), change(1, why="model", before="pituitary"), change(2)],
        "rejects": [reject(0), reject(1, "empty", None), reject(2)],
        "facts": {"Output": "s3://b/out", "Input": ("s3://b/a", "s3://b/c")},
    }
    return Night(**given | changes)


def state(**changes: Any) -> str:
    """Return the first section of the page as text."""
    first = re.search(r"<main>\n<section[^>]*>(.*?)</section>", page(**changes), re.DOTALL)
    assert first
    return re.sub(r"<[^>]+>|\n", " ", first[1])


def test_page_is_self_contained_without_script_or_request() -> None:
    text = page(alarms=["Look."])
    document = Document(text)
    names = {name for name, _ in document.elements}
    assert not names & {"link", "iframe", "object", "embed", "base", "form", "a", "img"}
    assert not [key for _, attributes in document.elements for key in attributes if key in ("src", "href")]
    assert not re.search(r"url\(|@import|https?://", text)
    assert any("default-src 'none'" in meta.get("content", "") for meta in document.all("meta"))


def test_header_and_footer_say_that_it_is_not_a_medical_device() -> None:
    document = Document(page())
    assert DISCLAIMER in document.text["header"]
    assert DISCLAIMER in document.text["footer"]


def test_page_has_the_landmarks_that_screen_readers_need() -> None:
    document = Document(page())
    names = Counter(name for name, _ in document.elements)
    assert [names[tag] for tag in ("title", "h1", "header", "main", "footer")] == [1] * 5
    assert all(heading["scope"] in ("row", "col") for heading in document.all("th"))
    regions = [attributes["aria-label"] for attributes in document.all("div") if attributes.get("role") == "region"]
    assert len(regions) == len(set(regions)) == len(document.all("table"))
    order = ["Result", "Why scans were planned", "Archive", "Drift", "Class changes", "Rejected scans", "Run"]
    assert re.findall("<h2>(.*?)</h2>", page())[1:] == order


def test_page_is_made_for_light_dark_and_paper() -> None:
    style = Document(page()).text["style"]
    assert style.count("prefers-color-scheme: dark") == 1
    assert style.count("@media print") == 1


def test_a_night_without_alarms_says_so_first() -> None:
    assert "No alarms" in state()
    assert "1,341 scans scored, 3 rejected, 1 failed, none left over." in state()
    assert "ALARM" not in page()


def test_a_night_with_nothing_to_score_has_no_alarms() -> None:
    nothing = {"new": 0, "changed": 0, "backfill": 0}
    words = state(tally=tally(planned=nothing, scored=nothing, failed=0), rejects=())
    assert "No alarms" in words
    assert "There was nothing to score." in words


def test_a_night_stopped_by_the_deadline_says_how_many_scans_are_left() -> None:
    assert "Stopped by the deadline" in state(tally=tally(left_over=7001))
    assert "7,001 scans left over" in state(tally=tally(left_over=7001))
    assert "1 scan left over" in state(tally=tally(left_over=1))
    assert "No alarms" not in page(tally=tally(left_over=1))


def test_an_alarm_says_all_its_reasons_first_and_the_deadline_too() -> None:
    words = state(alarms=["9% were rejected.", "The class mix is another one."], tally=tally(left_over=12))
    assert "ALARM" in words
    for reason in ("9% were rejected.", "The class mix is another one.", "12 scans left over"):
        assert reason in words
    assert "No alarms" not in words


def test_an_alarm_says_what_to_do() -> None:
    assert "What to do Look at the source." in " ".join(state(alarms=["a"], advice=["Look at the source."]).split())
    assert "What to do" not in state(alarms=["a"])


def test_the_worklist_shows_each_scan_with_its_picture_and_why_it_is_on_it() -> None:
    works = [
        Work(scan_uri="s3://b/a.dcm", scan_version="1", frame=frame, why="why", predicted_class="x", confidence=1.0)
        for frame in (0, 3)
    ]
    small = picture("", png(np.zeros((4, 4), np.uint8)))
    document = Document(night_page(night_of(worklist=works), {("s3://b/a.dcm", 3): small}))
    assert ["s3://b/a.dcm", "why", "x", "> 99.9%"] in document.rows
    assert ["s3://b/a.dcm, frame 3", "why", "x", "> 99.9%"] in document.rows
    assert len(document.all("img")) == 1
    assert "Worklist" not in Document(page()).text["h2"]


def test_two_nights_have_lines_and_one_has_none() -> None:
    given = {"nights": ["Monday", "Tuesday"], "trends": [Trend(name="Scans scored", values=[3, 1341])]}
    document = Document(page(**given))
    assert "Over the nights" in document.text["h2"]
    assert document.all("svg")[0]["aria-label"] == "Scans scored: 3 to 1,341, last 1,341"
    assert ["Tuesday", "1,341"] in document.rows
    assert "Over the nights" not in Document(page()).text["h2"]


def test_tiles_show_the_outcome_of_the_scans_and_the_speed() -> None:
    text = Document(page(tally=tally(left_over=5))).text["dl"]
    for tile in ("Scored1,341of 1,345 planned", "Rejected3", "Failed1", "Left over5", "Duration2 min 14 s"):
        assert tile in text
    assert "Scans per second10.0" in text  # 1,344 in 134.3 s


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 min 0 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 min"), (100_000, "27 h 46 min")]
)
def test_durations_are_read_at_a_glance(seconds: float, words: str) -> None:
    text = Document(page(ended=STARTED + timedelta(seconds=seconds))).text["dl"]
    assert f"Duration{words}" in text
    assert ("Scans per second–" in text) is (seconds == 0)


def test_scans_are_counted_by_the_reason_for_scoring() -> None:
    rows = Document(page()).rows
    for row in (
        ["New", "1,300", "1,297"],
        ["Changed since last scored", "45", "44"],
        ["Backfill (unchanged since last scored)", "0", "0"],
        ["Total", "1,345", "1,341"],
        ["Listed", "12,345"],
        ["Already processed by this model", "11,000"],
        ["Missing since the previous night", "4"],
    ):
        assert row in rows


def test_a_reason_that_the_page_does_not_know_is_shown_as_it_is() -> None:
    assert ["manual", "2", "1"] in Document(page(tally=tally(planned={"manual": 2}, scored={"manual": 1}))).rows


def test_drift_is_shown_as_shares_in_numbers_with_its_verdict_in_words() -> None:
    text = page()
    document = Document(text)
    assert "New and changed scans, compared with the last 7 runs." in document.text["p"]
    assert ["glioma", "", "50.00% (500)", "52.00% (260)"] in document.rows
    assert ["0.999 to 1", "", "90.00% (900)", "20.00% (100)"] in document.rows
    verdict = "No drift beyond chance: population stability index (PSI) 0.002; chance alone stays below 0.032"
    assert verdict in document.text["p"]
    assert "Major drift: population stability index (PSI) 2.4" in document.text["p"]


def test_bars_are_as_wide_as_the_shares_and_hidden_from_screen_readers() -> None:
    bars = [attributes for attributes in Document(page()).all("span") if "style" in attributes]
    assert [bar["style"] for bar in bars[:4]] == [f"width: {width}%" for width in ("96.15", "100.00", "96.15", "92.31")]
    assert all(bar["aria-hidden"] == "true" for bar in bars)


@pytest.mark.parametrize(
    ("before", "tonight", "words"),
    [
        ([2500, 2500, 2500, 2500], [165, 335, 165, 335], "Moderate drift"),
        ([250_000, 250_000], [240_000, 260_000], "Beyond chance, but negligible"),
        ([50, 50], [0, 5], "No drift beyond chance"),
    ],
)
def test_each_verdict_has_its_words(before: list[int], tonight: list[int], words: str) -> None:
    names = ("a", "b", "c", "d")[: len(before)]
    assert words in Document(page(classes=comparison(before, tonight, names))).text["b"]


def test_the_first_night_has_nothing_to_compare_with_and_shows_its_own_shares() -> None:
    document = Document(page(classes=comparison([0, 0], [3, 1], runs=0)))
    assert "There is no earlier run to compare with." in document.text["p"]
    assert "No verdict: one side has no scans." in document.text["p"]
    assert ["glioma", "", "–", "75.00% (3)"] in document.rows
    assert "compared with the last run." in page(classes=comparison([1, 1], [3, 1], runs=1))


def test_class_changes_are_counted_by_cause_and_classes_and_listed() -> None:
    document = Document(page())
    assert "3 scans changed class: 1 because the model changed; 2 because the scan changed." in document.text["p"]
    assert ["Previous class", "glioma"] in document.rows
    assert ["notumor", "2"] in document.rows
    assert ["pituitary", "1"] in document.rows
    assert ["s3://b/scan-0.jpg", "the scan", "notumor 80.0%", "glioma 91.2%"] in document.rows


def test_rejects_are_counted_by_reason_most_frequent_first_and_listed() -> None:
    rows = Document(page()).rows
    start = rows.index(["Rejection reason", "Scans"])
    assert rows[start + 1 : start + 4] == [["truncated", "2"], ["empty", "1"], ["Total", "3"]]
    assert ["s3://b/bad-0.jpg", "truncated", "ends after 3 of 9 bytes"] in rows
    assert ["s3://b/bad-1.jpg", "empty", ""] in rows


def test_failed_scans_are_listed_by_cause_in_tables_with_names_of_their_own() -> None:
    document = Document(page(failures={"storage <down>": ["s3://b/1.jpg"], "out of memory": ["s3://b/2.jpg"] * 201}))
    assert "Failed scans" in document.text["h2"]
    assert "out of memorystorage <down>" in document.text["h3"], "in the order of the causes' names"
    assert ["s3://b/1.jpg"] in document.rows
    assert document.rows.count(["s3://b/2.jpg"]) == 200
    assert "Showing the first 200 of 201. The run's record holds all of them." in document.text["p"]
    regions = [attributes["aria-label"] for attributes in document.all("div") if attributes.get("role") == "region"]
    assert len(regions) == len(set(regions))
    assert "Failed scans" not in Document(page()).text["h2"]


def test_long_lists_show_their_first_two_hundred_and_say_how_many_there_are() -> None:
    document = Document(page(changes=[change(n) for n in range(1234)], rejects=[reject(n) for n in range(5678)]))
    listed = [row[0] for row in document.rows if row[0].startswith("s3://b/")]
    assert listed == [f"s3://b/scan-{n}.jpg" for n in range(200)] + [f"s3://b/bad-{n}.jpg" for n in range(200)]
    assert "Showing the first 200 of 1,234." in document.text["p"]
    assert "Showing the first 200 of 5,678." in document.text["p"]
    assert ["notumor", "1,234"] in document.rows
    assert ["truncated", "5,678"] in document.rows


def test_two_hundred_are_listed_without_a_note() -> None:
    assert "the first" not in page(changes=[change(n) for n in range(200)])


def test_without_changes_or_rejects_the_page_says_so() -> None:
    assert Document(page(changes=(), rejects=())).text["p"].count("None.") == 2


def test_facts_name_the_model_the_run_and_its_times_with_their_zone() -> None:
    text = Document(page()).text["dl"]
    for fact in (
        "Modelmodels/brain-mri-v2",
        "Model digest0123456789ab",
        "Run20260612T200004Z-4f1c",
        "Started2026-06-12 22:00:04 CEST",
        "Ended2026-06-12 22:02:18 CEST",
        "Deadline2026-06-13 06:00:04 CEST",
        "Time zoneEurope/Paris",
        "Inputs3://b/a, s3://b/c",
    ):
        assert fact in text
    assert "Deadlinenone" in Document(page(deadline=None)).text["dl"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_as_they_are_and_never_become_markup(name: str) -> None:
    hostile = {
        "title": name,
        "run_id": name,
        "model": name,
        "model_digest": name,
        "alarms": [name],
        "tally": tally(planned={name: 1}, scored={name: 1}),
        "classes": comparison([1, 1], [1, 1], (name, "b")),
        "changes": [change(scan_uri=name, before=name, after=name)],
        "rejects": [Reject(scan_uri=name, reason=name, detail=name)],
        "facts": {name: name},
    }
    document = Document(page(**hostile))
    plain = Document(page(alarms=["a"]))
    assert {tag for tag, _ in document.elements} == {tag for tag, _ in plain.elements}
    assert not [key for _, attributes in document.elements for key in attributes if key.startswith("on")]
    assert document.text["title"] == document.text["h1"] == name
    assert name in document.text["li"]
    for row in (
        [name, "1", "1"],
        [name, "", "50.00% (1)", "50.00% (1)"],
        [name, "the scan", f"{name} 80.0%", f"{name} 91.2%"],
        [name, name, name],
    ):
        assert row in document.rows


def test_the_same_night_gives_the_same_page() -> None:
    assert page() == page()


def test_failed_scans_are_listed_by_cause_and_the_first_200_of_each() -> None:
    text = page(
        failures={"access denied": [f"s3://b/{n}.png" for n in range(201)], "out of memory": ["/scans/<a>.png"]}
    )
    assert "Failed scans" in text
    assert text.index("<h3>access denied</h3>") < text.index("s3://b/199.png") < text.index("<h3>out of memory</h3>")
    assert "s3://b/200.png" not in text
    assert "Showing the first 200 of 201. The run's record holds all of them." in html.unescape(text)
    assert "/scans/&lt;a&gt;.png" in text
    assert "Failed scans" not in page()


def test_skipped_scans_are_counted_by_reason_and_named_in_the_first_line() -> None:
    text = page(skips={"functional": 1200, "localizer": 34})
    assert "Skipped scans" in text
    assert "1,234 skipped" in text
    assert text.index("functional") < text.index("localizer")
    assert "Skipped scans" not in page()


REFERRALS = ("auto", "foreign", "unlike_training", "unsure")


def test_the_scans_for_review_are_listed_with_their_reasons() -> None:
    referred = [
        Referred(scan_uri="s3://b/ct.jpg", referral_reason="foreign", predicted_class="notumor", confidence=0.99)
    ]
    text = page(referrals=comparison([900, 10, 40, 50], [90, 1, 4, 5], REFERRALS), referred=referred)
    assert "Scans for review" in text
    assert "s3://b/ct.jpg" in text
    assert "Scans for review" not in page(), "a model without referral"


@pytest.mark.parametrize(
    ("tonight", "alarms"),
    [
        ([600, 300, 50, 50], 1),
        ([940, 20, 20, 20], 0),  # as before
        ([1000, 0, 0, 0], 0),  # fewer
        ([3, 1, 0, 0], 0),  # chance
    ],
)
def test_a_night_alarms_when_the_share_for_review_rises_beyond_chance(tonight: list[int], alarms: int) -> None:
    assert len([*referral_alarms(comparison([9400, 200, 200, 200], tonight, REFERRALS))]) == alarms


def test_the_page_says_how_many_series_and_studies_the_scans_belong_to() -> None:
    assert "Tonight's scans belong to 1,200 series of 300 studies." in html.unescape(page(series=1200, studies=300))
    assert "studies" not in page()
