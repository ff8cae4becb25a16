"""A run without Ray whose one process is lost: Ray takes over, and finds out which scan is at fault."""

import os
import signal
from pathlib import Path

import pytest

from mribatch.models.format import Model
from tests.conftest import write_scans
from tests.faults import standard
from tests.faults.conftest import Archives, Start, Tell
from tests.faults.processes import WITHOUT_RAY, paced, parts, sabotaged, score_flags, until

QUICK = 200


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ray_takes_over_where_the_process_that_scores_is_lost(
    number: signal.Signals, tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output = archive(QUICK), tmp_path / "out"
    flags = score_flags(tiny_model.uri, source.folder, output)
    job = start("score", *flags, environment=WITHOUT_RAY | paced())
    until(lambda: bool(parts(output)) or job.process.poll() is not None)
    for process in job.processes("one_process"):
        os.kill(process, number)
    assert job.end() == 0, job.log.read_text()
    assert f"(it ended by {number.name}): going on with Ray" in job.log.read_text()
    standard.check(str(output), source.uris, str(source.undisturbed))
    (record,) = standard.records(str(output))
    assert sum(node["scans"] for node in record["nodes"]) == QUICK
    assert len(record["nodes"]) == 2
    tell("the one process of a run without Ray ends", number.name, "Ray scores what is left; exit code 0")


@pytest.mark.parametrize(("name", "rejected"), [("kills-its-predictor", 1), ("gives-nan", 0)])
def test_a_scan_that_kills_or_breaks_the_process_that_scores_costs_no_other_scan(
    name: str, rejected: int, tiny_model: Model, tmp_path: Path, start: Start, tell: Tell
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    good = write_scans(scans, {"glioma": 20, "notumor": 20})
    (scans / "glioma" / f"{name}.jpg").write_bytes(Path(good[1]).read_bytes())
    job = start("score", *score_flags(tiny_model.uri, scans, output), environment=WITHOUT_RAY | sabotaged())
    assert job.end() == 0, job.log.read_text()
    scored = [row["scan_uri"] for row in standard.rows(str(output)).to_pylist() if row["status"] == "ok"]
    assert sorted(scored) == sorted(good)
    (record,) = standard.records(str(output))
    assert record["rejected_by_reason"] == {"crashed_decoder": 1} if rejected else record["counts"]["failed"] == 1
    outcome = "Ray tries it alone: `crashed_decoder`" if rejected else "Ray tries it alone: failed, with the cause"
    tell(f"a scan that {name.replace('-', ' ')} in a run without Ray", "1 of 41", outcome)
