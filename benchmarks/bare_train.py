"""Measure the training step on one preloaded batch, the upper bound for jobs/train.py; write one JSON file.

By hand:  python benchmarks/bare_train.py --data LABELLED --backbone-weights none --output bare.json
"""

import os
from itertools import cycle, islice
from typing import Any

import bare
import numpy as np
import tyro

from mribatch.scans.limits import ImageSpec
from mribatch.sources.labels import labelled
from mribatch.training.step import Batch, TrainingStep


def measure(config: bare.BareTrainConfig) -> dict[str, Any]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    from mribatch.models import networks

    labels, batch = _batch(config)
    keras.config.set_dtype_policy(config.precision)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        model = networks.build(config.backbone, labels, workers=replicas, seed=config.seed)
        optimizer = keras.optimizers.Adamax(config.peak_rate)
        optimizer.build(model.trainable_variables)
    step = TrainingStep(strategy, model, optimizer)
    return bare.clocked(
        lambda number: step.train(batch, side_px=config.sides[0], seed=(config.seed, 2 * number)),
        scans_per_call=config.batch_size * replicas,
        seconds=config.seconds,
    )


def _batch(config: bare.BareTrainConfig) -> tuple[int, Batch]:
    """Return the number of labels and one batch with scans of all labels."""
    rows = labelled(config.data).select(["scan_uri", "label"]).to_pylist()
    labels = sorted({row["label"] for row in rows})
    stride = max(1, len(rows) // config.batch_size)
    chosen = list(islice(cycle(rows[::stride]), config.batch_size))
    pixels = bare.pixels((row["scan_uri"] for row in chosen), ImageSpec(side_px=config.sides[0]))
    classes = np.array([labels.index(row["label"]) for row in chosen], np.int64)
    return len(labels), (pixels, classes, np.ones(len(chosen), np.float32))


if __name__ == "__main__":
    flags = tyro.cli(bare.BareTrainConfig, description=__doc__)
    bare.write(flags.output, measure(flags))
