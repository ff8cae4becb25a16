"""Run a TensorFlow loop on the workers of Ray Train: nothing but a worker loads TensorFlow, and no run waits for a dashboard."""

import json
import os
import socket
from collections.abc import Callable
from typing import Any

import ray
import ray.util
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from mribatch.cluster.session import has_dashboard

__all__ = ["Trainer"]


class Trainer(DataParallelTrainer):
    """Ray Train's trainer for loops under MultiWorkerMirroredStrategy, whose workers find each other by TF_CONFIG.

    Ray's TensorflowTrainer loads TensorFlow in the driver and in Ray's controller of the training, too: seconds of a core and
    0.4 GB in each.
    """

    def __init__(self, loop: Callable[[dict[str, Any]], None], **settings: Any) -> None:
        super().__init__(loop, backend_config=_TensorFlow(), **settings)

    def _create_default_callbacks(self) -> list[Any]:
        """Leave out the actor that frees what a dead controller held, where it cannot work.

        It asks the dashboard whether the controller lives. Without one it frees nothing, and the training ends 12 s later.
        """
        callbacks: list[Any] = super()._create_default_callbacks()
        if has_dashboard():
            return callbacks
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]


class _TensorFlow(BackendConfig):
    @property
    def backend_cls(self) -> type[Backend]:
        return _Addresses


class _Addresses(Backend):
    """Tells each worker the addresses of all, in the order of their ranks."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:  # noqa: ARG002 - Ray's signature
        workers = worker_group.execute(_free_address)
        ray.get([worker_group.execute_single_async(rank, _join, workers, rank) for rank in range(len(workers))])


def _free_address() -> str:
    """Return the address of this node with a free port. By the time TensorFlow opens it, it may be taken: Ray tries again."""
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as free:
        free.bind(("", 0))
        port = int(free.getsockname()[1])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _join(workers: list[str], rank: int) -> None:
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}})
