"""Score the scans of a plan without Ray: read → decode → predict in one process, Parquet parts in this one."""

import logging
import os
import socket
import sys
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from mribatch.cluster.assembly import whole_files
from mribatch.cluster.batch_rows import progress_of
from mribatch.cluster.one_process import NODE, OneProcess, Order, ProcessLost, cores
from mribatch.cluster.supervisor import ray_folder
from mribatch.commands.scored import WrittenParts
from mribatch.models.engine import chosen, library, sees_a_gpu, takes_gpus
from mribatch.models.format import Model
from mribatch.predictions.files import file_uris
from mribatch.predictions.ledger import Plan, Receipt
from mribatch.predictions.lock import Fence
from mribatch.predictions.writing import write_part
from mribatch.scans.reading import Reading
from mribatch.settings.score import ScoreConfig
from mribatch.stores import uris

__all__ = ["MOST_FILES", "needs_no_ray", "write_parts"]

log = logging.getLogger("mribatch.score")

MOST_FILES = 1000  # by then, two cores have computed for half a minute, and Ray's start no longer counts
_MOST_S3_FILES = 100  # they are read two at a time, and each takes a moment to arrive
_MOST_BYTES = 256 << 20
_PACKED = (".zip", ".tar", ".tgz", ".gz", ".nii")  # hold many scans in a few bytes
_PACKED_WEIGHT = 8
_FEW_CORES = 2  # Ray's own dozen processes take a sixth of a core


def needs_no_ray(config: ScoreConfig, model: Model, todo: pa.Table) -> bool:
    """Return whether one process scores the scans of a plan sooner than Ray.

    It does where there is no cluster and no GPU to use, and the scans are few, or the cores are few and no scan is in S3.
    """
    if _is_ray_here() or (takes_gpus(config.engine, model) and sees_a_gpu()):
        return False
    in_s3 = sum(map(uris.is_s3, todo["scan_uri"].to_pylist()))
    return (cores() <= _FEW_CORES and not in_s3) or (
        todo.num_rows <= (_MOST_S3_FILES if in_s3 else MOST_FILES) and _weight(todo) <= _MOST_BYTES
    )


def _weight(todo: pa.Table) -> int:
    """Return the bytes of all files, those that hold many scans counted several times."""
    files = zip(*(todo[name].to_pylist() for name in ("scan_uri", "scan_version")), strict=True)
    return sum(
        (_PACKED_WEIGHT if uri.lower().endswith(_PACKED) else 1) * uris.size(uri, version) for uri, version in files
    )


def _is_ray_here() -> bool:
    """Return whether this process has joined a Ray cluster, or was given one to join. Does not import Ray."""
    ray = sys.modules.get("ray")
    has_joined = ray is not None and ray.is_initialized()
    return (
        has_joined
        or bool(os.environ.get("RAY_ADDRESS"))
        or os.path.exists(os.path.join(ray_folder(), "ray_current_cluster"))
    )


def write_parts(
    config: ScoreConfig,
    model: Model,
    plan: Plan,
    fence: Fence,
    reading: Reading,
    until: float,
    show: Callable[[int, int], object],
) -> tuple[WrittenParts, pa.Table]:
    """Score the scans of a plan in its order, as `score_parts.write_parts` does.

    Return what came of it, and the scans that are left because the process was lost: Ray can find the scan at fault.
    """
    engine = chosen(config.engine, model, on_gpu=False)
    log.info("loading the model … (%s %s)", engine, library(engine))
    process = OneProcess(
        Order(
            todo=plan.todo.take(pa.array(range(plan.todo.num_rows), pa.int64())),
            model=model.uri,
            digest=model.digest,
            spec=model.image_spec,
            engine=engine,
            reading=reading,
            batch_size=config.batch_size,
            timeout_s=config.scan_timeout_s,
            until=until,
            among=plan.witnesses,
        )
    )
    parts = _Parts(fence, model, config.part_rows)
    scored = rejected = 0
    try:
        for rows in process.batches():
            parts.add(rows)
            scored, rejected = (a + b for a, b in zip((scored, rejected), progress_of(rows), strict=True))
            show(scored, rejected)
    except ProcessLost as lost:
        log.warning("the process that scores was lost (%s): going on with Ray, which finds the scan at fault", lost)
    parts.write()
    written = WrittenParts(
        receipts=parts.receipts,
        addresses={NODE: socket.gethostname()},
        ready_at=process.ready_at,
        engine={"name": engine, "version": library(engine)},
    )
    return written, parts.without(plan.todo)


class _Parts:
    """Rows that arrive in order, written as soon as there are enough of whole files."""

    def __init__(self, fence: Fence, model: Model, part_rows: int) -> None:
        self._fence, self._labels, self._part_rows = fence, model.labels, part_rows
        self._waiting: list[pa.Table] = []
        self._due = part_rows  # rows to wait for
        self._written: list[pa.Array] = []  # URIs of files
        self.receipts: list[Receipt] = []

    def add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        if sum(rows.num_rows for rows in self._waiting) >= self._due:
            self.write()

    def write(self) -> None:
        """Write the rows of whole files. Those of a file of which some have not arrived wait, or are lost."""
        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting)
        is_whole = whole_files(rows)
        self._waiting = [rows.filter(pc.invert(is_whole))]
        self._due = max(self._part_rows, 2 * self._waiting[0].num_rows)  # an archive may have thousands of members
        rows = rows.filter(is_whole)
        if rows.num_rows:
            self.receipts.append(write_part(self._fence, self._labels, rows, rows))
            self._written += file_uris(rows).chunks

    def without(self, todo: pa.Table) -> pa.Table:
        """Return the scans of a plan that are in none of the receipts."""
        return todo.filter(pc.invert(pc.is_in(todo["scan_uri"], pa.chunked_array(self._written, pa.string()))))
