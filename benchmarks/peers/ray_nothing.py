"""Run a job of Ray Data that reads the same files and computes nothing: what Ray itself takes, the floor for every job on it.

By hand:  python benchmarks/peers/ray_nothing.py --model models/brain-mri-v2 --data SCANS --output OUT
"""

from typing import Any

import numpy as np
import ray
import ray.data
from peer import Task, columns, report, task


class Nothing:
    """Stands in for a predictor: an actor that returns zeros."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return columns(batch["path"], np.zeros((len(batch["path"]), len(self._labels)), np.float32), self._labels)


def main(wanted: Task) -> None:
    ray.init(address="local", log_to_driver=False)
    ray.data.read_binary_files(wanted.data, include_paths=True).map_batches(
        Nothing,
        fn_constructor_args=(wanted.opened().labels,),
        batch_size=wanted.batch_size,
        compute=ray.data.ActorPoolStrategy(size=1),
    ).write_parquet(wanted.output)
    report("ray")


if __name__ == "__main__":
    main(task(__doc__))
