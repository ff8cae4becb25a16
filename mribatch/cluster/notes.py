"""Keep what the workers of a run share, in one actor: the log of their work, and the rows of incomplete files.

Its process imports little, so that it starts in a moment.
"""

import math
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mribatch.cluster.assembly import Assembler
from mribatch.cluster.work_log import WorkLog

__all__ = ["is_over", "ready_at", "run_notes"]


class RunNotes(WorkLog, Assembler):
    """A WorkLog and an Assembler."""

    def __init__(self, until: float) -> None:
        WorkLog.__init__(self, until)
        Assembler.__init__(self)


def run_notes(until: float = math.inf) -> Any:
    """Start RunNotes as an actor on the driver's node. The run's time is over at `until` of that node's time.monotonic."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(RunNotes)
    return actor.options(scheduling_strategy=here).remote(until)


def is_over(notes: Any) -> bool:
    """Say whether the run's time is over, by the clock of the driver's node."""
    return bool(ray.get(notes.is_over.remote()))


def ready_at(notes: Any) -> float | None:
    """Return the moment, of the driver's time.monotonic, at which the first predictor had loaded the model."""
    moment: float | None = ray.get(notes.ready_at.remote())
    return moment
