"""Quantize a network on the cluster, and compare it with its copy in another precision."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from mribatch.cluster.nodes import most_cores, predictors, working_nodes
from mribatch.cluster.streaming import decoded
from mribatch.models.exporting import Copy, CopyPredictor, Rates, measured_rates
from mribatch.models.format import Model
from mribatch.models.quantization import quantized_files

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["compared_answers", "export_copy", "rates_of"]


def export_copy(model: Model, precision: str, pixels: NDArray[np.uint8]) -> Copy:
    """Return a network's copy in another precision, within a session. pixels: scans to calibrate int8 on."""
    files = {} if precision == "bf16" else _alone(quantized_files, model.uri, model.digest, pixels)
    return Copy(model=model.uri, digest=model.digest, precision=precision, files=files)


def rates_of(copy: Copy, pixels: NDArray[np.uint8]) -> Rates:
    """Return `measured_rates`, measured by a process that has all cores of a node to itself, within a session."""
    rates: Rates = _alone(measured_rates, copy, pixels)
    return rates


def compared_answers(table: pa.Table, model: Model, copy: Copy, batch_size: int) -> "Dataset":
    """Stream the rows of some scans with the answers of a network and of its copy, within a session."""
    threads, pool = predictors(working_nodes(), use_gpus=False)
    return decoded(table, model.image_spec).map_batches(
        CopyPredictor,
        fn_constructor_kwargs={"copy": copy, "threads": threads},
        batch_format="pyarrow",
        batch_size=batch_size,
        zero_copy_batch=True,
        **pool,
    )


def _alone(function: Any, *arguments: Any) -> Any:
    """Return what a function returns in a process of its own that takes all cores of a node."""
    task: Any = ray.remote(max_calls=1, num_cpus=most_cores())(function)
    return ray.get(task.remote(*arguments))
