"""Nights as real processes, killed at any moment or two at a time: the next night completes what is missing."""

import json
import random
import time
from pathlib import Path

import pytest

from mribatch.models.format import Model
from tests.faults import standard
from tests.faults.conftest import Archives, Start, Tell
from tests.faults.processes import new_parts, parts, score_flags, until

pytestmark = pytest.mark.slow

SCANS, KILLS = 480, 5


def test_a_night_killed_at_random_moments_is_completed_by_the_next_one(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output, rng = archive(SCANS), tmp_path / "out", random.Random(5)
    flags = score_flags(tiny_model.uri, source.folder, output)
    for _ in range(KILLS):
        before = set(parts(output))
        job = start("nightly", *flags)
        until(new_parts(job, output, before, 1))
        time.sleep(rng.uniform(0, 0.5))
        job.kill_driver()
        assert before <= set(parts(output)), "committed work was lost"
    last = start("nightly", *flags)
    assert last.end() == 0, last.log.read_text()
    standard.check(str(output), source.uris, str(source.undisturbed))
    (report,) = output.glob("_nights/*/nightly.json")
    tally = json.loads(report.read_text())["tally"]
    assert sum(tally["scored"].values()) == SCANS, "the report counts what killed nights scored, too"
    done = standard.records(str(output))[-1]["plan"]["done"]
    tell(
        "SIGKILL of a night, then the next night", f"{KILLS} random moments", f"{SCANS} rows; {done} were there before"
    )


def test_of_two_nights_on_one_output_one_scores_and_the_other_exits_with_4(
    tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(SCANS), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    first, second = start("nightly", *flags), start("nightly", *flags)
    assert sorted((first.end(), second.end())) == [0, 4], first.log.read_text() + second.log.read_text()
    standard.check(str(output), source.uris, str(source.undisturbed))
    tell("two nights on one output", "at once", "one exits with code 0, the other with 4")
