"""Measure the engine on preloaded uint8 batches, the upper bound for jobs/score.py; write one JSON file.

By hand:  python benchmarks/bare_score.py --model models/brain-mri-v2 --input SCANS --output bare.json
"""

import os
from itertools import cycle, islice
from typing import Any

import bare
import tyro

from mribatch.models import directory
from mribatch.models.predictor import load_engine
from mribatch.stores import uris

BATCHES = 4  # in memory; a single batch would stay in the processor's cache, those of the pipeline do not


def measure(config: bare.BareScoreConfig) -> dict[str, Any]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    model = directory.open_model(config.model)
    engine = load_engine(model, wanted=config.engine)
    names = sorted(entry.uri for uri in config.input for entry in uris.walk(uri))
    scans = bare.pixels(islice(cycle(names), BATCHES * config.batch_size), model.image_spec)
    batches = scans.reshape(BATCHES, config.batch_size, *scans.shape[1:])
    return bare.clocked(
        lambda number: engine(batches[number % BATCHES]),
        scans_per_call=config.batch_size,
        seconds=config.seconds,
    )


if __name__ == "__main__":
    flags = tyro.cli(bare.BareScoreConfig, description=__doc__)
    bare.write(flags.output, measure(flags))
