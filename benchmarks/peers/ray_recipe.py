"""Score a folder as Ray's guide to batch inference does: read_images, map_batches with an actor, write_parquet.

By hand:  python benchmarks/peers/ray_recipe.py --model models/brain-mri-v2 --data SCANS --output OUT
"""

import os
from typing import Any

import ray
import ray.data
from peer import Task, columns, report, task


class Predictor:
    """Holds the network in an actor."""

    def __init__(self, wanted: Task) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from mribatch.models import networks

        self._model = wanted.opened()
        self._network = networks.load_network(self._model)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from mribatch.models.pixels import network_input

        scores = self._network.predict(network_input(batch["image"]), verbose=0)
        return columns(batch["path"], scores, self._model.labels)


def pixels(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the pixels in place of predictions."""
    return columns(batch["path"], batch["image"], None)


def main(wanted: Task) -> None:
    side_px = wanted.opened().image_spec.side_px
    ray.init(address="local", log_to_driver=False)
    scans = ray.data.read_images(wanted.data, mode="RGB", size=(side_px, side_px), include_paths=True)
    if wanted.pixels:
        rows = scans.map_batches(pixels, batch_size=wanted.batch_size)
    else:
        rows = scans.map_batches(
            Predictor,
            fn_constructor_args=(wanted,),
            batch_size=wanted.batch_size,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
    rows.write_parquet(wanted.output)
    report("ray", "tensorflow")


if __name__ == "__main__":
    main(task(__doc__))
