"""The OpenVINO engine: compute a network on the cores of a CPU, one scan per core at a time.

Loads OpenVINO when it is imported, so it is imported inside functions only. It never loads Keras or TensorFlow.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import ConfigError
from mribatch.models import openvino_network
from mribatch.models.engine import Outputs
from mribatch.models.format import Model
from mribatch.models.openvino_library import core
from mribatch.models.openvino_network import OUTPUTS
from mribatch.statistics.referral import Features

__all__ = ["OpenVINOEngine"]

_REQUESTS_PER_CORE = 2  # the second one waits, so that the core need not wait for Python


class OpenVINOEngine:
    """A network as an `Engine`, in the precision of the model.

    Raises ModelError if the weights do not fit the network, ConfigError for bf16 on a CPU without it.

    threads: cores to compute with; None takes all of the machine. with_layers: give the layers that referral looks at.
    A scan's outputs do not depend on the other scans of its batch. Threads may share it: the batches of two keep the cores
    at work while the results of one are made.
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
        self._count = _REQUESTS_PER_CORE * threads
        self._requests: SimpleQueue[_Request] = SimpleQueue()  # those that compute nothing
        for _ in range(self._count):
            self._requests.put(_Request(compiled.create_infer_request()))
        self._pool = ThreadPoolExecutor(self._count)

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        results = [np.empty((len(pixels), size), np.float32) for size in self._sizes]
        rows = iter(range(len(pixels)))

        def compute(_: int) -> None:
            request = self._requests.get()
            try:
                for row in rows:
                    for result, output in zip(results, request(pixels[row]), strict=True):
                        result[row] = output
            finally:
                self._requests.put(request)

        for _ in self._pool.map(compute, range(self._count)):
            pass  # raises what computing a row raises
        probabilities, logits, features, *layers = results
        return Outputs(probabilities, logits, features, Features(*layers) if self._with_layers else None)


class _Request:
    """Computes one scan at a time in memory of its own, which takes less of Python's time than to pass arrays."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._pixels = request.get_input_tensor(0).data
        self._outputs = [request.get_output_tensor(number).data for number in range(len(OUTPUTS))]

    def __call__(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return the outputs of a scan, (1, D) each. The next call overwrites them."""
        self._pixels[:] = pixels
        self._request.infer(share_outputs=True)
        return self._outputs


def _check_bf16(model: Model, capabilities: Sequence[str]) -> None:
    """Raise ConfigError unless the CPU computes in bf16: OpenVINO would compute in f32 without a word."""
    if "BF16" not in capabilities:
        raise ConfigError(
            f"model {model.digest} has bf16 precision, and this CPU does not compute in bf16 (it has "
            f"{', '.join(sorted(capabilities))}): use a CPU with AVX-512 BF16 or AMX, or the model that it was exported from"
        )
