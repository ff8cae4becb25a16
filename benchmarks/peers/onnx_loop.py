"""Score a folder with a plain loop: Pillow reads a batch on one core, ONNX Runtime computes it on all, pandas writes.

By hand:  python benchmarks/peers/onnx_loop.py --model models/brain-mri-v2 --data SCANS --output OUT

The graph is exported from TensorFlow to the folder above that of the output, unless it is there already: `side_by_side.py`
does that before it measures.
"""

import os
from pathlib import Path

import onnxruntime
from openvino_loop import images
from peer import Task, batches, columns, report, task, write


def graph(wanted: Task) -> Path:
    """Return the network as an ONNX file: (N, side, side, 3) uint8 to (N, labels) float32."""
    model = wanted.opened()
    place = Path(wanted.output).parents[1] / f"{model.digest}.onnx"
    if not place.exists():
        _export(wanted, place)
    return place


def _export(wanted: Task, place: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf
    import tf2onnx

    from mribatch.models import networks
    from mribatch.models.pixels import network_input

    model = wanted.opened()
    network, side_px = networks.load_network(model), model.image_spec.side_px
    compute = tf.function(lambda pixels: network(network_input(pixels), training=False), autograph=False)
    signature = [tf.TensorSpec((None, side_px, side_px, 3), tf.uint8, name="pixels")]
    tf2onnx.convert.from_function(compute, input_signature=signature, opset=17, output_path=str(place))


def main(wanted: Task) -> None:
    model = wanted.opened()
    session = onnxruntime.InferenceSession(graph(wanted), providers=["CPUExecutionProvider"])
    labels = None if wanted.pixels else model.labels
    tables = []
    for scans in batches(wanted.scans(), wanted.batch_size):
        pixels = images(scans, model.image_spec.side_px)
        values = pixels if labels is None else session.run(None, {"pixels": pixels})[0]
        tables.append(columns(scans, values, labels))
    write(tables, wanted.output)
    report("onnxruntime", "pillow", "pandas")


if __name__ == "__main__":
    main(task(__doc__))
