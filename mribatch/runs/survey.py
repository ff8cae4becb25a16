"""Survey: the labelled scans that can be read, with what decoding each of them once told. What they serve is not said here."""

import logging

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from mribatch.errors import InputError
from mribatch.schema import Status

__all__ = ["readable"]

log = logging.getLogger("mribatch.survey")


def readable(rows: "ray.data.Dataset", max_reject_rate: float) -> pa.Table:
    """All decoded rows that are ok, sorted by scan_uri. Raises InputError where too large a share is not."""
    seen = pa.concat_tables(rows.iter_batches(batch_size=None, batch_format="pyarrow")).sort_by("scan_uri")
    good = seen.filter(pc.equal(seen["status"], Status.OK))
    rejected = seen.num_rows - good.num_rows
    if rejected:
        lost = seen.filter(pc.not_equal(seen["status"], Status.OK))
        failed = pc.equal(lost["status"], Status.FAILED)
        reasons = pc.if_else(failed, lost["detail"], lost["reason"]).value_counts().to_pylist()
        said = ", ".join(f"{r['counts']} {r['values']}" for r in reasons)
        log.warning("%d of %d scans are left out: %s", rejected, seen.num_rows, said)
        if rejected > max_reject_rate * seen.num_rows:
            raise InputError(f"{rejected} of {seen.num_rows} scans are unreadable ({said}), more than "
                             f"--max-reject-rate {max_reject_rate}: repair the data or raise the rate")  # fmt: skip
    return good
