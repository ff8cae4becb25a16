"""Score a folder as the Keras guides do: image_dataset_from_directory, model.predict, pandas.

By hand:  python benchmarks/peers/keras_loader.py --model models/brain-mri-v2 --data SCANS --output OUT
"""

import os
import time
from typing import Any

import numpy as np
from peer import Task, columns, report, task, write


def main(wanted: Task) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    from mribatch.models import networks
    from mribatch.models.pixels import network_input

    model = wanted.opened()
    side_px = model.image_spec.side_px
    scans = keras.utils.image_dataset_from_directory(
        wanted.data,
        labels=None,
        image_size=(side_px, side_px),
        interpolation="bicubic",
        batch_size=wanted.batch_size,
        shuffle=False,
        verbose=False,
    )
    if wanted.pixels:
        pixels = np.concatenate([batch.numpy() for batch in scans])
        write([columns(scans.file_paths, pixels, None)], wanted.output)
    else:
        moments: list[float] = []  # of the end of each batch; `predict` returns the rows of all of them at its end

        class Clock(keras.callbacks.Callback):  # type: ignore[misc]  # Keras gives it no type
            def on_predict_batch_end(self, *_: Any, **__: Any) -> None:
                moments.append(time.time())

        network = networks.load_network(model)
        scores = network.predict(scans.map(network_input), callbacks=[Clock()], verbose=0)
        rows = columns(scans.file_paths, scores, model.labels)
        rows["scored_at"] = [moments[row // wanted.batch_size] for row in range(len(scores))]
        write([rows], wanted.output)
    report("keras", "tensorflow", "pandas")


if __name__ == "__main__":
    main(task(__doc__))
