"""What a run asks of the cluster: nodes that work, paths that all of them see, actors that fit. No job's own logic."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import ray
from ray.autoscaler.sdk import request_resources
from ray.data import ActorPoolStrategy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mribatch.errors import ConfigError, RunFailed, StorageError
from mribatch.stores import uris

__all__ = ["addresses", "await_node", "check_seen", "most_cores", "predictors", "trainers", "working_nodes"]

log = logging.getLogger("mribatch.cluster")

_JOIN_S = 900.0  # clouds start a machine in minutes; one that has none to give says so by then
_LOOK_S = 120.0
_CORES_PER_PREDICTOR = 8  # beyond, a frozen Xception gains little from more threads in one process


def working_nodes() -> list[dict[str, Any]]:
    """The living nodes that take work; a head may take none."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


def addresses() -> dict[str, str]:
    """The address of every node that this cluster has had, by its ID."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}


def await_node(seconds: float = _JOIN_S) -> None:
    """Return when a node takes work; asks a cluster that starts its nodes on demand for the first. Raises RunFailed."""
    end = time.monotonic() + seconds
    if working_nodes():
        return
    log.info("waiting for the cluster to start a node")
    request_resources(num_cpus=1)
    try:
        while not working_nodes():
            if time.monotonic() > end:
                raise RunFailed(f"no node with a CPU joined the cluster within {seconds:g} s: see `ray status`, "
                                "and run the command again")  # fmt: skip
            time.sleep(1)
    finally:
        request_resources(num_cpus=0)


def check_seen(files: Mapping[str, str | None]) -> None:
    """Check that every node that works sees some files, given with their versions or None, as the driver does.

    Files on S3 are seen by all. Raises ConfigError.
    """
    local = {uri: version for uri, version in files.items() if not uris.is_s3(uri)}
    if not local:
        return
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in working_nodes() if node["NodeID"] != here]
    asked = [(node["NodeManagerAddress"], _ask(node["NodeID"], local)) for node in others]
    for address, answer in asked:
        _check_answer(address, local, partial(ray.get, answer, timeout=_LOOK_S))


def _check_answer(address: str, files: Mapping[str, str | None], answer: Callable[[], list[str]]) -> None:
    """Raises ConfigError where the node at an address does not see the files that this one sees, or cannot look."""
    try:
        missing = answer()
    except (ray.exceptions.RayTaskError, ray.exceptions.GetTimeoutError) as err:
        raise ConfigError(f"the node {address} could not look for {next(iter(files))} ({type(err).__name__}): check that "
                          "the storage answers there") from err  # fmt: skip
    except ray.exceptions.RayError:
        return  # the node has gone, and needs to see nothing
    missing = sorted(set(missing) - set(_unseen(files)))  # one may have changed since it was listed
    if missing:
        raise ConfigError(f"the node {address} does not see {missing[0]} as this one does: on a cluster give s3://…, or a "
                          "path on storage that all nodes share")  # fmt: skip


def _ask(node_id: str, files: Mapping[str, str | None]) -> Any:
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_unseen)
    return task.options(scheduling_strategy=there).remote(files)


def _unseen(files: Mapping[str, str | None]) -> list[str]:
    return [uri for uri, version in files.items() if not _is_seen(uri, version)]


def _is_seen(uri: str, version: str | None) -> bool:
    """Whether a file is there, in this version. One that cannot be looked at is not seen."""
    try:
        return any(version in (None, entry.version) for entry in uris.find([uri]))
    except StorageError:
        return False


def predictors(nodes: Sequence[Mapping[str, Any]]) -> tuple[int | None, dict[str, Any]]:
    """Predictors for the nodes that work and for what joins: one per GPU, else one per 8 cores of each node, with some left
    for decoding and writing. The threads of each, and what Ray Data is to be told. Raises RunFailed for no nodes."""
    cores, gpus = _cores(nodes), _gpus(nodes)
    if gpus:
        return None, {"compute": _pool(gpus), "num_gpus": 1}
    smallest = min(cores)
    if smallest == 1:
        return 1, {"compute": ActorPoolStrategy(min_size=1, max_size=len(nodes)), "num_cpus": 0.25}
    if smallest <= _CORES_PER_PREDICTOR:
        share = min(max(smallest - 1, 0.75 * smallest), smallest - 0.75)  # above half a node, so one on each
        return smallest, {"compute": _pool(len(nodes)), "num_cpus": share}  # its threads take what others leave idle
    fit = sum((count - 1) // _CORES_PER_PREDICTOR for count in cores)
    return _CORES_PER_PREDICTOR, {"compute": _pool(fit), "num_cpus": _CORES_PER_PREDICTOR}


def trainers(nodes: Sequence[Mapping[str, Any]], wanted: Literal["auto"] | int) -> tuple[int, dict[str, float]]:
    """Training workers for the nodes that work: as many as wanted or there are GPUs, else nodes. What each takes: a GPU, or
    as many cores as let all of them find a node, with one core per node left for decoding. Raises ConfigError, RunFailed."""
    cores, gpus = _cores(nodes), _gpus(nodes)
    number = wanted if wanted != "auto" else (gpus or len(nodes))
    use_gpu = gpus >= number
    most = 1 if use_gpu else (sum(cores) - len(nodes)) // number
    share = next((share for share in range(most, 0, -1) if sum(count // share for count in cores) >= number), 0.5)
    if number * share > max(sum(cores) - 1, 0.5):
        who, remedy = ((f"{number} training workers, one per GPU or node,", "add CPUs to the nodes") if wanted == "auto"
                       else (f"--workers {number}", "lower --workers or add nodes"))  # fmt: skip
        raise ConfigError(
            f"{who} need {number * share:g} CPUs and one for decoding, the cluster has {sum(cores)}: {remedy}"
        )
    return number, {"CPU": share} | ({"GPU": 1} if use_gpu else {})


def most_cores() -> int:
    """The cores of the largest node that works."""
    return max(_cores(working_nodes()))


def _cores(nodes: Sequence[Mapping[str, Any]]) -> list[int]:
    """The cores of each node. Raises RunFailed for no nodes."""
    if not nodes:
        raise RunFailed("all nodes left the cluster: run the command again, it goes on where it was")
    return [int(node["Resources"]["CPU"]) for node in nodes]


def _gpus(nodes: Sequence[Mapping[str, Any]]) -> int:
    return int(sum(node["Resources"].get("GPU", 0) for node in nodes))


def _pool(at_first: int) -> ActorPoolStrategy:
    """A pool that starts with what fits now and grows with the cluster."""
    return ActorPoolStrategy(min_size=1, initial_size=at_first)
