"""A cluster of three nodes on one machine: all score, lost nodes cost no scan, paths must be visible to all."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mribatch.models.format import Model
from tests.conftest import as_flags, write_scans
from tests.faults import standard
from tests.faults.conftest import Archives, Launch, Start, Tell
from tests.faults.processes import Job, command, parts, score_flags, until

FULL, TENFOLD = 1000, 10_000  # scans


class Nodes:
    """A Ray cluster: a head that scores no scans, and nodes with two cores."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.nodes = [self.add() for _ in range(count)]
        self.cluster.wait_for_nodes()

    @property
    def address(self) -> dict[str, str]:
        return {"RAY_ADDRESS": str(self.cluster.address)}

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=2, object_store_memory=200 << 20)

    def lose_one(self) -> None:
        """Remove a node as a power cut does: without notice or handover."""
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)


@pytest.fixture
def nodes() -> Iterator[Callable[[int], Nodes]]:
    made: list[Nodes] = []

    def up(count: int) -> Nodes:
        made.append(Nodes(count))
        return made[-1]

    yield up
    for cluster in made:
        cluster.cluster.shutdown()


def alone(folder: Path, source: Path) -> list[str]:
    """Return a prefix for a command: it sees `source` at `folder`, where all other processes see an empty folder."""
    unshare = ["unshare", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a folder for one process, which this user does not have")
    return [*unshare, "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(source), str(folder)]


def growth(job: Job, output: Path) -> Callable[[], bool]:
    """Return a condition for `until`: some parts were added since now, or the run has ended."""
    before = len(parts(output))
    return lambda: len(parts(output)) > before + 2 or job.process.poll() is not None


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_node_scores_and_the_record_says_how_much(
    nodes: Callable[[int], Nodes], tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output, three = archive(1311), tmp_path / "out", nodes(3)
    job = start("score", *score_flags(tiny_model.uri, source.folder, output), environment=three.address)
    assert job.end(900) == 0, job.log.read_text()
    standard.check(str(output), source.uris, str(source.undisturbed))
    (record,) = standard.records(str(output))
    shares = [node["scans"] for node in record["nodes"]]
    assert len(shares) == 3, f"a node had nothing to do: {shares}"
    assert sum(shares) == len(source.uris)
    tell("none: three nodes on one machine", f"{len(source.uris):,} scans", f"scans per node: {shares}")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_lost_nodes_cost_no_scan_when_another_joins(
    nodes: Callable[[int], Nodes], tiny_model: Model, archive: Archives, tmp_path: Path, start: Start, tell: Tell
) -> None:
    source, output, three = archive(FULL), tmp_path / "out", nodes(3)
    job = start("score", *score_flags(tiny_model.uri, source.folder, output), environment=three.address)
    until(growth(job, output))
    three.lose_one()
    until(growth(job, output))
    three.nodes.append(three.add())
    three.lose_one()
    assert job.process.poll() is None, "the run ended before both nodes were lost"
    assert job.end(900) == 0, job.log.read_text()
    standard.check(str(output), source.uris, str(source.undisturbed))
    tell("nodes lost without notice, another joins", "2 of 3 nodes", f"{FULL:,} rows, exit code 0")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_path_that_only_one_node_sees_is_refused_before_the_work_starts(
    nodes: Callable[[int], Nodes], tiny_model: Model, tmp_path: Path, launch: Launch, tell: Tell
) -> None:
    shared, hidden, source, output = (tmp_path / name for name in ("shared", "hidden", "source", "out"))
    hidden.mkdir()
    for folder in (shared, source / "scans"):
        write_scans(folder, {"glioma": 8, "notumor": 8})
    shutil.copytree(tiny_model.uri, source / "model")
    (source / "weights.h5").write_bytes((Path(tiny_model.uri) / "weights.h5").read_bytes())

    def train(**changes: object) -> list[str]:
        places: dict[str, object] = {"data": shared, "output": output, "storage": tmp_path / "store", **changes}
        return command("train", *as_flags(**places, backbone="cnn", image_side=32, epochs=1, batch_size=4))

    cases = {
        "score --model": command("score", *score_flags(str(hidden / "model"), shared, output)),
        "score --input": command("score", *score_flags(tiny_model.uri, hidden / "scans", output)),
        "score --output": command("score", *score_flags(tiny_model.uri, shared, hidden / "out")),
        "train --data": train(data=hidden / "scans"),
        "train --backbone-weights": train(backbone_weights=hidden / "weights.h5"),
        "train --start-from": train(start_from=hidden / "model"),
        "train --storage": train(storage=hidden / "store"),
    }
    two = nodes(2)
    for name, words in cases.items():
        job = launch(*alone(hidden, source), *words, environment=two.address)
        assert job.end(200) == 2, name + job.log.read_text()
        assert f"does not see {hidden}" in job.log.read_text(), name
        assert "Traceback" not in job.log.read_text(), name
    assert not (output / "model.json").exists()
    assert parts(output) + parts(source / "out") == []
    assert standard.records(str(output)) + standard.records(str(source / "out")) == []
    assert list(tmp_path.rglob(".probe-*")) == []
    outcome = "exit code 2, the node and the path named; nothing scored or trained"
    tell("a path that only one node sees", ", ".join(f"`{name}`" for name in cases), outcome)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_memory_does_not_grow_with_the_archive(archive: Archives, tell: Tell) -> None:
    """Compare the records of the two archives' undisturbed runs."""
    peaks = [standard.records(str(archive(count).undisturbed))[0]["peak_memory_bytes"] for count in (FULL, TENFOLD)]
    for role in ("driver", "decoder", "predictor", "writer"):
        few, many = (peak[role] for peak in peaks)
        growth_words = f"{role}: {few >> 20} MiB for {FULL:,} scans, {many >> 20} for {TENFOLD:,}"
        assert many < 1.25 * few + (64 << 20), growth_words
    memory = ", ".join(f"{role} {peaks[0][role] >> 20} → {peaks[1][role] >> 20}" for role in peaks[0])
    tell("none: ten times the scans", f"{FULL:,} and {TENFOLD:,}", f"peak memory in MiB: {memory}")
