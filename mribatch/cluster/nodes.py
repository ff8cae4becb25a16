"""Find the nodes that take work, check that they see the same files, and size the actors that fit on them."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mribatch.errors import ConfigError, RunFailed, StorageError
from mribatch.stores import uris

__all__ = [
    "addresses",
    "await_node",
    "check_seen",
    "most_cores",
    "predictors",
    "trainers",
    "working_cores",
    "working_nodes",
]

log = logging.getLogger("mribatch.cluster")

_JOIN_S = 900.0  # a cloud starts a machine within minutes, or reports that it has none
_LOOK_S = 120.0
_CORES_PER_PREDICTOR = 8  # more threads in one process speed up a frozen Xception little


def working_nodes() -> list[dict[str, Any]]:
    """Return the living nodes that take work; the head may not be among them."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


def addresses() -> dict[str, str]:
    """Return the address of every node that this cluster has or had, by its ID."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}


def await_node(seconds: float = _JOIN_S) -> None:
    """Wait until a node takes work. A cluster that starts nodes on demand is asked for the first. Raises RunFailed."""
    end = time.monotonic() + seconds
    if working_nodes():
        return
    log.info("waiting for the cluster to start a node …")
    from ray.autoscaler.sdk import request_resources  # takes a moment to import

    request_resources(num_cpus=1)
    try:
        while not working_nodes():
            if time.monotonic() > end:
                raise RunFailed(
                    f"no node with a CPU joined the cluster within {seconds:g} s: see `ray status`, then run the command again"
                )
            time.sleep(1)
    finally:
        request_resources(num_cpus=0)


def check_seen(files: Mapping[str, str | None]) -> None:
    """Check that every working node sees the same files as the driver: URIs with their versions, or None for any.

    S3 is the same for all nodes and is not checked. Raises ConfigError.
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
    """Raise ConfigError if the node at an address does not see the files that this one sees, or cannot look."""
    try:
        missing = answer()
    except (ray.exceptions.RayTaskError, ray.exceptions.GetTimeoutError) as err:
        raise ConfigError(
            f"node {address} could not look for {next(iter(files))} ({type(err).__name__}): check that the storage can be "
            "reached from there"
        ) from err
    except ray.exceptions.RayError:
        return  # the node left the cluster
    missing = sorted(set(missing) - set(_unseen(files)))  # a file may have changed since it was listed
    if missing:
        raise ConfigError(
            f"node {address} does not see {missing[0]} as this one does: on a cluster use s3://… or a path on storage that "
            "all nodes share"
        )


def _ask(node_id: str, files: Mapping[str, str | None]) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_unseen)
    return task.options(scheduling_strategy=strategy).remote(files)


def _unseen(files: Mapping[str, str | None]) -> list[str]:
    return [uri for uri, version in files.items() if not _is_seen(uri, version)]


def _is_seen(uri: str, version: str | None) -> bool:
    """Say whether a file exists in this version. A file that cannot be looked at counts as missing."""
    try:
        return any(version in (None, entry.version) for entry in uris.find([uri]))
    except StorageError:
        return False


def predictors(nodes: Sequence[Mapping[str, Any]], *, use_gpus: bool = True) -> tuple[int | None, dict[str, Any]]:
    """Return the threads of each predictor, and the arguments of Ray Data's `map_batches` for a pool of them.

    One predictor per GPU, else one per 8 cores of each node, leaving cores for decoding and writing. The pool grows with
    the cluster. use_gpus: False leaves GPUs unused. Raises RunFailed for no nodes.
    """
    cores, gpus = _cores(nodes), _gpus(nodes)
    if gpus and use_gpus:
        return None, {"compute": _pool(gpus), "num_gpus": 1}
    smallest = min(cores)
    if smallest == 1:
        return 1, {"compute": _pool(None, most=len(nodes)), "num_cpus": 0.25}
    if smallest <= _CORES_PER_PREDICTOR:
        share = min(max(smallest - 1, 0.75 * smallest), smallest - 0.75)  # over half a node, so one per node
        return smallest, {
            "compute": _pool(len(nodes)),
            "num_cpus": share,
        }  # its threads use cores that others leave idle
    fit = sum((count - 1) // _CORES_PER_PREDICTOR for count in cores)
    return _CORES_PER_PREDICTOR, {"compute": _pool(fit), "num_cpus": _CORES_PER_PREDICTOR}


def trainers(nodes: Sequence[Mapping[str, Any]], wanted: Literal["auto"] | int) -> tuple[int, dict[str, float]]:
    """Return the number of training workers, and the resources that each takes.

    The number is `wanted`, else one per GPU, else one per node. Each takes a GPU, or as many cores as let all workers be
    placed while one core per node is left for decoding. Raises ConfigError, RunFailed.
    """
    cores, gpus = _cores(nodes), _gpus(nodes)
    number = wanted if wanted != "auto" else (gpus or len(nodes))
    use_gpu = gpus >= number
    most = 1 if use_gpu else (sum(cores) - len(nodes)) // number
    share = next((share for share in range(most, 0, -1) if sum(count // share for count in cores) >= number), 0.5)
    if number * share > max(sum(cores) - 1, 0.5):
        who, remedy = f"--workers {number}", "lower --workers or add nodes"
        if wanted == "auto":
            who, remedy = f"{number} training workers, one per GPU or node,", "add CPUs to the nodes"
        raise ConfigError(
            f"{who} need {number * share:g} CPUs and one for decoding, the cluster has {sum(cores)}: {remedy}"
        )
    return number, {"CPU": share} | ({"GPU": 1} if use_gpu else {})


def working_cores() -> int:
    """Return the cores of all working nodes together. Raises RunFailed for no nodes."""
    return sum(_cores(working_nodes()))


def most_cores() -> int:
    """Return the cores of the largest working node."""
    return max(_cores(working_nodes()))


def _cores(nodes: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the cores of each node. Raises RunFailed for no nodes."""
    if not nodes:
        raise RunFailed("all nodes left the cluster: run the command again to resume")
    return [int(node["Resources"]["CPU"]) for node in nodes]


def _gpus(nodes: Sequence[Mapping[str, Any]]) -> int:
    return int(sum(node["Resources"].get("GPU", 0) for node in nodes))


def _pool(at_first: int | None, most: int | None = None) -> Any:
    """Return a pool that starts with what fits now, by default one, and grows with the cluster up to `most`."""
    from ray.data import ActorPoolStrategy

    return ActorPoolStrategy(min_size=1, max_size=most, initial_size=at_first)
