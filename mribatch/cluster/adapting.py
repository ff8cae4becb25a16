"""Adapt a model on the cluster, and compare it before and after on labelled scans."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from mribatch.cluster.nodes import most_cores, predictors, working_nodes
from mribatch.cluster.streaming import decoded
from mribatch.models.adaptation import AdaptedWeights, PairedPredictor, Statistics, adapted_weights
from mribatch.models.format import Model

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["adapt_model", "paired_answers"]


def adapt_model(model: Model, pixels: NDArray[np.uint8], batch_scans: int) -> AdaptedWeights:
    """Return `adapted_weights` of a model and scans, computed by a process on the cluster, within a session."""
    _, pool = predictors(working_nodes())
    share = {"num_gpus": 1} if "num_gpus" in pool else {"num_cpus": most_cores()}
    task: Any = ray.remote(max_calls=1)(adapted_weights)
    result: AdaptedWeights = ray.get(task.options(**share).remote(model.uri, model.digest, pixels, batch_scans))
    return result


def paired_answers(table: pa.Table, model: Model, statistics: Statistics, batch_size: int) -> "Dataset":
    """Stream the rows of some scans with the classes that a model predicts `before` and `after`, within a session."""
    threads, pool = predictors(working_nodes())
    arguments: dict[str, Any] = {
        "model": model.uri,
        "digest": model.digest,
        "statistics": statistics,
        "threads": threads,
    }
    return decoded(table, model.image_spec).map_batches(
        PairedPredictor,
        fn_constructor_kwargs=arguments,
        batch_format="pyarrow",
        batch_size=batch_size,
        zero_copy_batch=True,
        **pool,
    )
