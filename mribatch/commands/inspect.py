"""Inspect: listing → headers → what would be scored, skipped and rejected, as a table and as Parquet."""

import io
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context

import pyarrow as pa
import pyarrow.parquet

from mribatch.causes import cause
from mribatch.commands.inspected import Inspected
from mribatch.commands.paying import paying
from mribatch.commands.screen import progress
from mribatch.errors import CredentialsRefused, MribatchError, RunFailed
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.scans.survey import Surveyed, survey
from mribatch.schema import Reason, Status
from mribatch.settings.inspect import InspectConfig
from mribatch.sources.listing import keys_of, list_scans
from mribatch.stores import uris

__all__ = ["INSPECTED", "inspect"]

log = logging.getLogger("mribatch.inspect")

INSPECTED = pa.schema(
    [
        pa.field("scan_uri", pa.string(), False),
        pa.field("scan_version", pa.string(), False),
        pa.field("size_bytes", pa.int64()),
        pa.field("outcome", pa.string(), False),
        *(pa.field(name, pa.string()) for name in ("reason", "detail", "format", "kind", "modality", "vendor")),
        pa.field("syntax", pa.string()),
        pa.field("frames", pa.int32()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("series", pa.int32()),
        pa.field("container", pa.string()),
        pa.field("study", pa.int32()),
    ]
)
"""One row per file, or per member of an archive. `series` and `study` number the series and studies of DICOM files within
this table; no identifier is kept."""

_OUTCOMES = {Status.OK: "scored", Status.SKIPPED: "skipped", Status.REJECTED: "rejected", Status.FAILED: "failed"}
_SPEC = ImageSpec(side_px=1)  # only the limits count
_FEW_FILES = 200  # read faster here than processes start
_CHUNK_FILES = 64


@paying
def inspect(config: InspectConfig) -> Inspected:
    """Read the headers of all files at config.input and say what scoring would do with each. Needs no model and no Ray.

    Raises InputError if there are no files, and StorageError.
    """
    if config.output:
        uris.check_writable(config.output)
    listing = list_scans(config.input, config.exclude)
    step = 1 if config.limit is None else max(1, -(-listing.num_rows // config.limit))
    chosen = keys_of(listing)[::step]
    selection = Selection(
        select=config.select,
        series_match=config.series_match,
        series_skip=config.series_skip,
        max_frames=config.max_frames,
    )
    log.info("reading headers …")
    files = _table(chosen, _surveyed(chosen, Reading(selection=selection), config))
    report = None
    if config.output:
        report, buffer = uris.join(config.output, "inspection.parquet"), io.BytesIO()
        pyarrow.parquet.write_table(files, buffer, compression="zstd")
        uris.put(report, buffer.getvalue())
    return Inspected(files=files, listed=listing.num_rows, report=report)


def _surveyed(keys: Sequence[tuple[str, str]], reading: Reading, config: InspectConfig) -> list[list[Surveyed]]:
    chunks = [keys[first : first + _CHUNK_FILES] for first in range(0, len(keys), _CHUNK_FILES)]
    look = partial(_survey_files, reading=reading, pays=config.requester_pays)
    processes = (os.cpu_count() or 1) if config.workers == "auto" else int(config.workers)
    done: list[list[Surveyed]] = []
    with progress("reading", len(keys), "files") as bar:
        for files in map(look, chunks) if len(keys) <= _FEW_FILES else _spread(look, chunks, processes):
            done += files
            bar.advance(len(files))
    return done


def _spread(
    look: "partial[list[list[Surveyed]]]", chunks: Sequence[object], processes: int
) -> Iterator[list[list[Surveyed]]]:
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(look, chunks)
        except BrokenProcessPool as err:
            raise RunFailed(
                f"one of {processes} processes that read headers died, probably for lack of memory: lower --workers"
            ) from err


def _survey_files(keys: Sequence[tuple[str, str]], reading: Reading, pays: bool) -> list[list[Surveyed]]:
    uris.trust([uri for uri, _ in keys])
    with uris.paying(pays):
        return [_survey_file(uri, version, reading) for uri, version in keys]


def _survey_file(uri: str, version: str, reading: Reading) -> list[Surveyed]:
    size = uris.size(uri, version)
    if size > _SPEC.max_bytes:
        return [Surveyed(status=Status.REJECTED, reason=Reason.TOO_LARGE, detail=f"{size} bytes")]
    try:
        return list(survey(uris.read_version(uri, version), _SPEC, reading))
    except CredentialsRefused:
        raise
    except MribatchError as err:
        return [Surveyed(status=Status.FAILED, reason=Reason.UNREADABLE, detail=err.detail or type(err).__name__)]
    except Exception as err:
        return [Surveyed(status=Status.FAILED, reason=Reason.UNFORESEEN, detail=cause(err))]


def _table(keys: Sequence[tuple[str, str]], files: Sequence[Sequence[Surveyed]]) -> pa.Table:
    series: dict[str, int] = {}
    studies: dict[str, int] = {}
    rows = []
    for (uri, version), scans in zip(keys, files, strict=True):
        for scan in scans:
            numbers = {"series": _number(scan.series, series), "study": _number(scan.study, studies)}
            known = {"scan_version": version, "outcome": _OUTCOMES[scan.status]}
            rows.append(asdict(scan) | known | numbers | _place(uri, version, scan))
    return pa.Table.from_pylist(rows, schema=INSPECTED)


def _number(key: str | None, numbers: dict[str, int]) -> int | None:
    return None if key is None else numbers.setdefault(key, len(numbers) + 1)


def _place(uri: str, version: str, scan: Surveyed) -> dict[str, str | int | None]:
    """Return where a scan is and how large, by itself or in an archive."""
    if scan.name is None:
        return {"scan_uri": uri, "size_bytes": uris.size(uri, version)}
    return {"scan_uri": f"{uri}!{scan.name}", "size_bytes": scan.size_bytes, "container": uri}
