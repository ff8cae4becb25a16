"""The OpenVINO engine: compute a network on the cores of a CPU, one scan per core at a time.

Loads OpenVINO when it is imported, so it is imported inside functions only. It never loads Keras or TensorFlow.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import ConfigError
from mribatch.models import openvino_network
from mribatch.models.engine import Outputs
from mribatch.models.format import Model
from mribatch.models.openvino_library import core, openvino
from mribatch.models.openvino_network import OUTPUTS
from mribatch.statistics.referral import Features

__all__ = ["OpenVINOEngine"]

ov, _ = openvino()


class OpenVINOEngine:
    """A network as an `Engine`, in the precision of the model.

    Raises ModelError if the weights do not fit the network, ConfigError for bf16 on a CPU without it.

    threads: cores to compute with; None takes all of the machine. with_layers: give the layers that referral looks at.
    A scan's outputs do not depend on the other scans of its batch.
    """

    def __init__(self, model: Model, threads: int | None = None, with_layers: bool = False) -> None:
        threads, self._with_layers = threads or os.cpu_count() or 1, with_layers
        if model.precision == "bf16":
            _check_bf16(model, core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        is_quantized = model.precision == "int8"  # the rest of its operations are computed in f32
        graph = openvino_network.stored(model) if is_quantized else openvino_network.build(model)
        settings = {
            # by itself, OpenVINO computes in bf16 where the CPU has it
            "INFERENCE_PRECISION_HINT": "bf16" if model.precision == "bf16" else "f32",
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # several predictors would be pinned to the same cores
        }
        compiled = core().compile_model(graph, "CPU", settings)
        self._sizes = [compiled.output(number).shape[1] for number in range(len(OUTPUTS))]
        self._queue = ov.AsyncInferQueue(compiled, threads)

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        results = [np.empty((len(pixels), size), np.float32) for size in self._sizes]

        def keep(request: Any, row: int) -> None:
            for number, result in enumerate(results):
                result[row] = request.get_output_tensor(number).data

        self._queue.set_callback(keep)
        for row in range(len(pixels)):
            self._queue.start_async({0: np.ascontiguousarray(pixels[row : row + 1])}, row)
        self._queue.wait_all()
        probabilities, logits, features, *layers = results
        return Outputs(probabilities, logits, features, Features(*layers) if self._with_layers else None)


def _check_bf16(model: Model, capabilities: Sequence[str]) -> None:
    """Raise ConfigError unless the CPU computes in bf16: OpenVINO would compute in f32 without a word."""
    if "BF16" not in capabilities:
        raise ConfigError(
            f"model {model.digest} has bf16 precision, and this CPU does not compute in bf16 (it has "
            f"{', '.join(sorted(capabilities))}): use a CPU with AVX-512 BF16 or AMX, or the model that it was exported from"
        )
