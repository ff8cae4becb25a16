"""What the screen says of a scoring run."""

from types import SimpleNamespace
from typing import Any

from mribatch import schema
from mribatch.commands.score import Scored
from mribatch.commands.scored import sum_up
from mribatch.predictions.ledger import Plan, Receipt
from mribatch.settings.score import ScoreConfig

FACTS: dict[str, Any] = {
    "run_id": "run",
    "output": "/out",
    "digest": "0123456789ab",
    "listed": 9,
    "done": 1,
    "planned": 8,
    "scored": 2,
    "by_class": {"glioma": 2},
    "rejected": {"corrupt": 1},
    "left": 0,
    "parts": ("part",),
    "seconds": 2.0,
    "max_reject_rate": 0.05,
}


def test_each_cause_of_failed_scans_is_counted_with_up_to_three_of_them() -> None:
    failures = {"permission denied": ("/a",), "access denied (AccessDenied)": tuple(f"s3://b/{n}" for n in range(4))}
    lines = Scored(**FACTS, failed=5, failures=failures).table().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("failed, to be retried"))
    assert [line.split() for line in lines[at : at + 3]] == [
        ["failed,", "to", "be", "retried", "5"],
        ["access", "denied", "(AccessDenied)", "4"],
        ["permission", "denied", "1"],
    ]
    assert "failed: access denied (AccessDenied): s3://b/0, s3://b/1, s3://b/2 …" in lines
    assert "failed: permission denied: /a" in lines


def test_a_run_without_failed_scans_names_no_cause() -> None:
    assert Scored(**FACTS, failed=0, failures={}).table().count("failed") == 1


def test_a_run_that_ends_with_3_says_why() -> None:
    scored = Scored(**FACTS, failed=0, failures={})
    assert scored.exit_code == 3
    assert "warning: 1 of 8 scans could not be scored, more than --max-reject-rate 0.05 allows" in scored.table()
    assert "warning" not in Scored(**FACTS | {"max_reject_rate": 0.2}, failed=0, failures={}).table()


def test_scans_for_review_are_counted_by_reason_for_a_model_that_refers() -> None:
    plain = Scored(**FACTS, failed=0, failures={})
    assert "for review" not in plain.table()
    lines = Scored(**FACTS, failed=0, failures={}, referred={"foreign": 1, "unsure": 2}).table().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("for review"))
    assert [line.split() for line in lines[at : at + 3]] == [["for", "review", "3"], ["foreign", "1"], ["unsure", "2"]]


def test_an_archive_of_which_members_failed_in_two_writes_has_failed_once() -> None:
    facts: dict[str, Any] = {"rejected": {}, "left": [], "by_class": {}, "by_node": {}, "peak_bytes": {}}
    receipts = [Receipt(part=None, rows=0, failed=[("/a.zip", "permission denied")], **facts) for _ in range(2)]
    fence: Any = SimpleNamespace(run_id="run", output="/out", digest="0123456789ab")
    plan = Plan(listed=1, done=0, todo=schema.PLAN.empty_table(), parts=frozenset())
    scored = sum_up(ScoreConfig(model="m", input=("/",), output="/out"), plan, receipts, fence, 1.0, None)
    assert (scored.failed, scored.failures) == (1, {"permission denied": ("/a.zip",)})
