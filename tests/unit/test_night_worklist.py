"""The worklist of a night: every reason, each scan once, the most pressing reason first."""

import pyarrow as pa

from mribatch.commands.night_summary import changed_rows
from mribatch.commands.night_worklist import worklist

GOOD = pa.table(
    {
        "scan_uri": ["a", "b", "c", "c"],
        "scan_version": ["1", "2", "1", "1"],
        "frame": [0, 0, 0, 1],
        "container": pa.nulls(4, pa.string()),
        "status": ["ok"] * 4,
        "model_digest": ["m"] * 4,
        "predicted_class": ["glioma", "glioma", "notumor", "notumor"],
        "confidence": pa.array([0.4, 0.99, 0.9, 0.7], pa.float32()),
        "referral": ["review", "auto", None, None],
        "referral_reason": ["unsure", None, None, None],
    }
)
BEFORE = pa.table(
    {
        "scan_uri": ["a", "b", "c"],
        "scan_version": ["1", "1", "1"],
        "frame": [0, 0, 0],
        "status": ["ok", "ok", "rejected"],
        "model_digest": ["old", "m", "m"],
        "predicted_class": ["glioma", "notumor", None],
        "confidence": pa.array([0.4, 0.6, None], pa.float32()),
    }
)


def test_scans_for_review_come_first_then_changed_ones_then_the_least_sure_and_each_once() -> None:
    works = worklist(GOOD, changed_rows(GOOD, BEFORE))
    assert [(work.scan_uri, work.frame, work.why) for work in works] == [
        ("a", 0, "for review: unsure"),
        ("b", 0, "was notumor before the scan changed"),
        ("c", 1, "among the least sure"),
        ("c", 0, "among the least sure"),
    ]


def test_at_most_twenty_of_each_reason_are_listed() -> None:
    many = pa.concat_tables([GOOD.slice(0, 1).set_column(0, "scan_uri", pa.array([f"s{n}"])) for n in range(50)])
    works = worklist(many, changed_rows(many, BEFORE))
    assert [work.scan_uri for work in works] == sorted(f"s{n}" for n in range(50))[:20]


def test_a_night_without_rows_has_nothing_to_look_at() -> None:
    empty = GOOD.slice(0, 0)
    assert worklist(empty, changed_rows(empty, BEFORE)) == []
