"""Score a folder with a plain loop: Pillow reads a batch on one core, OpenVINO computes it in float32 on all, pandas writes.

By hand:  python benchmarks/peers/openvino_loop.py --model models/brain-mri-v2 --data SCANS --output OUT
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer import Task, batches, columns, report, task, write
from PIL import Image

from mribatch.models import openvino_network
from mribatch.models.openvino_library import openvino


def images(scans: list[str], side_px: int) -> NDArray[np.uint8]:
    """Return the pixels of a batch, (N, side, side, 3)."""
    size, how = (side_px, side_px), Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.open(scan).convert("RGB").resize(size, how)) for scan in scans])


def network(wanted: Task) -> Any:
    """Return a function of a batch of pixels, (N, side, side, 3) uint8, to its probabilities."""
    library, _ = openvino()
    cores = os.cpu_count() or 1
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores}
    compiled = library.Core().compile_model(openvino_network.build(wanted.opened()), "CPU", settings)
    queue = library.AsyncInferQueue(compiled, cores)

    def compute(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores = np.empty((len(pixels), compiled.output(0).shape[1]), np.float32)
        queue.set_callback(lambda request, row: scores.__setitem__(row, request.get_output_tensor(0).data))
        for row in range(len(pixels)):
            queue.start_async({0: pixels[row : row + 1]}, row)
        queue.wait_all()
        return scores

    return compute


def main(wanted: Task) -> None:
    model = wanted.opened()
    labels = None if wanted.pixels else model.labels
    compute = None if wanted.pixels else network(wanted)
    tables = []
    for scans in batches(wanted.scans(), wanted.batch_size):
        pixels = images(scans, model.image_spec.side_px)
        tables.append(columns(scans, pixels if compute is None else compute(pixels), labels))
    write(tables, wanted.output)
    report("openvino", "pillow", "pandas")


if __name__ == "__main__":
    main(task(__doc__))
