"""What a run asks of a cluster, by what nodes it has: predictors and training workers that fit, paths that all see. No Ray is started."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.data import ActorPoolStrategy

from mribatch.cluster import nodes
from mribatch.cluster.nodes import predictors, trainers
from mribatch.errors import ConfigError, RunFailed
from mribatch.stores import uris

Node = dict[str, Any]


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> Node:
    """A node as Ray lists it."""
    resources = {"CPU": cpus, "GPU": gpus, "memory": 1e9}
    return {
        "NodeID": f"{cpus}-{gpus}",
        "NodeManagerAddress": "10.0.0.1",
        "Alive": alive,
        "Resources": {name: amount for name, amount in resources.items() if amount},
    }


def started(pool: dict[str, Any]) -> int:
    """The predictors that a pool begins with."""
    compute: ActorPoolStrategy = pool["compute"]
    return int(compute.initial_size)


def grows(pool: dict[str, Any]) -> bool:
    return bool(pool["compute"].max_size == float("inf"))


# Who works


def test_dead_nodes_and_a_head_without_cores_do_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    works, dead, head, half = node(2), node(4, alive=False), node(0), node(0.5)
    monkeypatch.setattr(ray, "nodes", lambda: [head, works, dead, half])
    assert nodes.working_nodes() == [works]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was asked of an autoscaler, in order."""
    asked: list[int] = []
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda num_cpus: asked.append(num_cpus))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return asked


def test_nothing_is_asked_of_a_cluster_that_has_a_node(requests: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [node(2)])
    nodes.await_node(0)
    assert requests == []


def test_a_cluster_without_nodes_is_asked_for_the_first_and_waited_for(
    requests: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: Iterator[list[Node]] = iter([[node(0)], [node(0)], [node(0)], [node(0), node(2)]])
    monkeypatch.setattr(ray, "nodes", lambda: next(looks))
    nodes.await_node(60)
    assert requests == [1, 0], "what was asked for is given back: the run's own work keeps the node"


def test_a_node_that_never_joins_ends_the_run_with_what_to_look_at(
    requests: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [node(0)])
    with pytest.raises(RunFailed, match=r"within 0\.01 s: see `ray status`"):
        nodes.await_node(0.01)
    assert requests == [1, 0]


# Predictors


@pytest.mark.parametrize(
    ("nodes", "at_first"),
    [([node(16, 1)], 1), ([node(16, 4), node(64, 8)], 12), ([node(16), node(16, 1)], 1), ([node(1, 2)], 2)],
    ids=["one", "many", "beside a node without", "one core for two"],
)
def test_where_there_are_gpus_each_has_one_predictor(nodes: list[Node], at_first: int) -> None:
    threads, pool = predictors(nodes)
    assert (threads, pool["num_gpus"], started(pool)) == (None, 1, at_first)
    assert grows(pool)


def test_an_engine_for_cpus_leaves_the_gpus_alone() -> None:
    assert predictors([node(16, 1)], use_gpus=False)[0] == predictors([node(16)])[0]
    assert "num_gpus" not in predictors([node(16, 1)], use_gpus=False)[1]


@pytest.mark.parametrize("cores", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("count", [1, 3])
def test_a_small_node_has_one_predictor_with_all_its_threads(cores: int, count: int) -> None:
    threads, pool = predictors([node(cores)] * count)
    assert (threads, started(pool)) == (cores, count)
    assert grows(pool)
    assert pool["num_cpus"] > cores / 2, "two of them never stand on one node"
    assert cores - pool["num_cpus"] >= 0.75, "a decoder (0.5) and a writer (0.25) find room beside it"


def test_nodes_of_one_core_share_it_between_a_predictor_and_the_rest() -> None:
    threads, pool = predictors([node(1)] * 3)
    assert (threads, pool["num_cpus"], pool["compute"].max_size) == (1, 0.25, 3)


@pytest.mark.parametrize(
    ("cores", "at_first"), [([9], 1), ([16], 1), ([17], 2), ([64], 7), ([16, 16, 64], 9), ([96] * 10, 110)]
)
def test_a_large_node_has_a_predictor_per_8_cores_and_one_core_left_at_least(cores: list[int], at_first: int) -> None:
    threads, pool = predictors([node(count) for count in cores])
    assert (threads, pool["num_cpus"], started(pool)) == (8, 8, at_first)
    assert grows(pool)


def test_the_smallest_node_decides_so_that_a_predictor_fits_everywhere() -> None:
    threads, pool = predictors([node(4), node(32)])
    assert threads == 4
    assert pool["num_cpus"] < 4


def test_without_any_node_the_run_ends_and_can_go_on() -> None:
    for decide in (lambda: predictors([]), lambda: trainers([], "auto")):
        with pytest.raises(RunFailed, match="run the command again"):
            decide()


# Training workers


@pytest.mark.parametrize(
    ("nodes", "wanted", "number", "share"),
    [
        ([node(1)], "auto", 1, {"CPU": 0.5}),
        ([node(2)], "auto", 1, {"CPU": 1}),
        ([node(2)], 2, 2, {"CPU": 0.5}),
        ([node(16)], "auto", 1, {"CPU": 15}),
        ([node(16)] * 3, "auto", 3, {"CPU": 15}),
        ([node(16)] * 3, 6, 6, {"CPU": 7}),
        ([node(16, 1)] * 2, "auto", 2, {"CPU": 1, "GPU": 1}),
        ([node(16, 4), node(16)], 3, 3, {"CPU": 1, "GPU": 1}),
        ([node(16, 1)] * 2, 3, 3, {"CPU": 8}),
    ],
)
def test_training_has_a_worker_per_gpu_else_per_node_or_as_many_as_wanted(
    nodes: list[Node], wanted: Any, number: int, share: dict[str, float]
) -> None:
    assert trainers(nodes, wanted) == (number, share)


@pytest.mark.parametrize("cores", [[4, 4, 15], [2, 2, 2, 64], [1, 16], [3, 5, 7, 11], [8] * 5])
@pytest.mark.parametrize("wanted", ["auto", 2, 5])
def test_all_training_workers_find_a_node_also_where_nodes_differ(cores: list[int], wanted: Any) -> None:
    number, share = trainers([node(count) for count in cores], wanted)
    assert sum(int(count // share["CPU"]) for count in cores) >= number, "else the training would never start"
    assert sum(cores) - number * share["CPU"] >= 1, "and a core is left for decoding"


def test_more_training_workers_than_there_is_room_for_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="--workers 8 need 4 CPUs and one for decoding, the cluster has 4"):
        trainers([node(2), node(2)], 8)


# Paths


def answering(*missing: str) -> Callable[[], list[str]]:
    return lambda: list(missing)


@pytest.fixture
def scan(tmp_path: Path) -> dict[str, str | None]:
    """A file and its version."""
    (tmp_path / "scan.png").write_bytes(b"a scan")
    return {entry.uri: entry.version for entry in uris.walk(str(tmp_path))}


def test_files_are_seen_by_name_and_by_version(tmp_path: Path, scan: dict[str, str | None]) -> None:
    (place,) = scan
    assert nodes._unseen(scan) == nodes._unseen({place: None}) == []
    assert nodes._unseen({place: "6-1"}) == [place], "another file of this name, on a disk of the node's own"
    assert nodes._unseen({f"{tmp_path}/absent": None}) == [f"{tmp_path}/absent"]


def test_a_node_that_sees_all_files_may_work(scan: dict[str, str | None]) -> None:
    nodes._check_answer("10.0.0.2", scan, answering())


def test_a_file_that_a_node_does_not_see_is_refused_with_both_names(scan: dict[str, str | None]) -> None:
    (place,) = scan
    with pytest.raises(ConfigError, match=rf"10\.0\.0\.2 does not see {place} .* s3://"):
        nodes._check_answer("10.0.0.2", scan, answering(place))


def test_a_file_that_changed_since_it_was_listed_is_no_fault_of_the_node(scan: dict[str, str | None]) -> None:
    (place,) = scan
    Path(place).unlink()
    nodes._check_answer("10.0.0.2", scan, answering(place))


@pytest.mark.parametrize(
    "error", [ray.exceptions.GetTimeoutError("late"), ray.exceptions.RayTaskError("f", "t", OSError())]
)
def test_a_node_whose_storage_does_not_answer_is_told(scan: dict[str, str | None], error: Exception) -> None:
    def answer() -> list[str]:
        raise error

    with pytest.raises(ConfigError, match=r"10\.0\.0\.2 could not look for .*scan\.png"):
        nodes._check_answer("10.0.0.2", scan, answer)


def test_a_node_that_has_gone_needs_to_see_nothing(scan: dict[str, str | None]) -> None:
    def answer() -> list[str]:
        raise ray.exceptions.NodeDiedError("gone")

    nodes._check_answer("10.0.0.2", scan, answer)


def test_of_files_on_s3_no_node_is_asked() -> None:
    nodes.check_seen({"s3://bucket/scan.png": None, "s3://bucket/model/model.json": None})
