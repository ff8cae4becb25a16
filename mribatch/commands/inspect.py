"""Inspect: listing → headers → what would be scored, skipped and rejected, as a table and as Parquet."""

import io
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context

import pyarrow as pa
import pyarrow.parquet

from mribatch.causes import cause
from mribatch.commands.paying import paying
from mribatch.commands.screen import Block, Shown, Table, progress
from mribatch.errors import CredentialsRefused, MribatchError
from mribatch.scans.dicom_selection import Selection
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.scans.survey import Surveyed, survey
from mribatch.schema import Reason, Status
from mribatch.settings.inspect import InspectConfig
from mribatch.sources.listing import keys_of, list_scans
from mribatch.stores import uris

__all__ = ["INSPECTED", "Inspected", "inspect"]

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
    ]
)
"""One row per file. `series` numbers the series within this table; no identifier is kept."""

_OUTCOMES = {Status.OK: "scored", Status.SKIPPED: "skipped", Status.REJECTED: "rejected", Status.FAILED: "failed"}
_SPEC = ImageSpec(side_px=1)  # only the limits count
_FEW_FILES = 200  # read faster here than processes start
_CHUNK_FILES = 64
_EXAMPLES = 3
_SHOWN = 8  # vendors, formats and the like
_MEANINGS = {
    Reason.NO_PIXELS: "reports, raw data and other files without a picture",
    Reason.NOT_MR: "not MR: CT, PET, ultrasound",
    Reason.SECONDARY_CAPTURE: "screenshots and scanned pages",
    Reason.SEGMENTATION: "labels drawn on a scan",
    Reason.LOCALIZER: "planning images",
    Reason.FUNCTIONAL: "functional MR, a time series",
    Reason.DIFFUSION: "diffusion MR",
    Reason.PERFUSION: "perfusion MR",
    Reason.MAP: "computed maps such as ADC",
    Reason.PHASE: "phase images",
    Reason.PROJECTION: "projections through a volume (MIP)",
    Reason.MOSAIC: "many slices in one picture",
    Reason.BLANK: "empty pictures",
    Reason.SERIES: "left out by --series-match or --series-skip",
    Reason.UNSUPPORTED_FORMAT: "formats that are not read",
    Reason.NOT_AN_IMAGE: "not a picture",
    Reason.TRUNCATED: "files that end too early: copy them again",
    Reason.CORRUPT: "damaged files: copy them again",
    Reason.TOO_LARGE: "more pixels, frames or bytes than allowed",
    Reason.TOO_SMALL: "smaller than any scan",
    Reason.EMPTY: "empty files",
    Reason.VANISHED: "deleted since they were listed",
    Reason.CHANGED: "replaced since they were listed",
    Reason.UNREADABLE: "could not be read from the storage",
    Reason.UNFORESEEN: "an error in this program",
}
_ORDER = (*_OUTCOMES.values(),)


@dataclass(frozen=True, kw_only=True)
class Inspected(Shown):
    """What an archive holds. files: one row per file, schema INSPECTED."""

    files: pa.Table
    listed: int
    report: str | None
    exit_code: int = 0

    def blocks(self) -> list[Block]:
        """Return how many files would be scored, skipped and rejected and why, with examples, and what they are."""
        rows = self.files.to_pylist()
        series = len({row["series"] for row in rows} - {None})
        of = "" if len(rows) == self.listed else f" of {self.listed:,}"
        return [
            f"{len(rows):,}{of} files, {_size(sum(row['size_bytes'] or 0 for row in rows))}, {series:,} DICOM series",
            Table([*_outcome_rows(rows)], ("", "files", "series", "frames", "what they are"), align="lrrrl"),
            Table([*_property_rows(rows)], ("of the files", "most frequent first"), align="ll"),
            Table([*_example_rows(rows)], ("", "examples"), align="ll"),
            f"one row per file: {self.report}" if self.report else "--output FOLDER writes one row per file as Parquet",
        ]


@paying
def inspect(config: InspectConfig) -> Inspected:
    """Read the headers of all files at config.input and say what scoring would do with each. Needs no model and no Ray.

    Raises InputError if there are no files, and StorageError.
    """
    if config.output:
        uris.check_writable(config.output)
    log.info("listing %s …", ", ".join(config.input))
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


def _surveyed(keys: Sequence[tuple[str, str]], reading: Reading, config: InspectConfig) -> list[Surveyed]:
    chunks = [keys[first : first + _CHUNK_FILES] for first in range(0, len(keys), _CHUNK_FILES)]
    look = partial(_survey_files, reading=reading, pays=config.requester_pays)
    processes = (os.cpu_count() or 1) if config.workers == "auto" else int(config.workers)
    done: list[Surveyed] = []
    with progress("reading", len(keys), "files") as bar:
        for files in map(look, chunks) if len(keys) <= _FEW_FILES else _spread(look, chunks, processes):
            done += files
            bar.advance(len(files))
    return done


def _spread(look: "partial[list[Surveyed]]", chunks: Sequence[object], processes: int) -> Iterator[list[Surveyed]]:
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(look, chunks)


def _survey_files(keys: Sequence[tuple[str, str]], reading: Reading, pays: bool) -> list[Surveyed]:
    uris.trust([uri for uri, _ in keys])
    with uris.paying(pays):
        return [_survey_file(uri, version, reading) for uri, version in keys]


def _survey_file(uri: str, version: str, reading: Reading) -> Surveyed:
    size = uris.size(uri, version)
    if size > _SPEC.max_bytes:
        return Surveyed(status=Status.REJECTED, reason=Reason.TOO_LARGE, detail=f"{size} bytes")
    try:
        return survey(uris.read_version(uri, version), _SPEC, reading)
    except CredentialsRefused:
        raise
    except MribatchError as err:
        return Surveyed(status=Status.FAILED, reason=Reason.UNREADABLE, detail=err.detail or type(err).__name__)
    except Exception as err:
        return Surveyed(status=Status.FAILED, reason=Reason.UNFORESEEN, detail=cause(err))


def _table(keys: Sequence[tuple[str, str]], files: Sequence[Surveyed]) -> pa.Table:
    numbers: dict[str, int] = {}
    rows = []
    for (uri, version), file in zip(keys, files, strict=True):
        number = None if file.series is None else numbers.setdefault(file.series, len(numbers) + 1)
        known = {"scan_uri": uri, "scan_version": version, "size_bytes": uris.size(uri, version)}
        rows.append(asdict(file) | known | {"outcome": _OUTCOMES[file.status], "series": number})
    return pa.Table.from_pylist(rows, schema=INSPECTED)


# The screen


def _groups(rows: Iterable[dict[str, object]]) -> list[tuple[str, str, list[dict[str, object]]]]:
    """Return outcome, reason (of what is scored, its kind or format) and rows, in the order of the screen."""
    groups: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in rows:
        name = row["kind"] or row["format"] if row["outcome"] == "scored" else row["reason"]
        groups.setdefault((str(row["outcome"]), str(name)), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (_ORDER.index(item[0][0]), -len(item[1]), item[0][1]))
    return [(outcome, name, members) for (outcome, name), members in ordered]


def _outcome_rows(rows: Sequence[dict[str, object]]) -> Iterator[tuple[str, ...]]:
    totals = Counter(row["outcome"] for row in rows)
    shown = ""
    for outcome, name, members in _groups(rows):
        if outcome != shown:
            verb = "" if outcome == "failed" else "would be "
            yield f"{verb}{outcome}", f"{totals[outcome]:,}", "", "", ""
            shown = outcome
        series = len({row["series"] for row in members} - {None})
        frames = sum(int(str(row["frames"])) for row in members) if outcome == "scored" else 0
        meaning = _MEANINGS.get(name, "") if outcome != "scored" else ""  # type: ignore[call-overload]
        yield (
            f"  {name}",
            f"{len(members):,}",
            f"{series:,}" if series else "",
            f"{frames:,}" if frames else "",
            meaning,
        )


def _property_rows(rows: Sequence[dict[str, object]]) -> Iterator[tuple[str, str]]:
    sizes = [{"size": f"{row['width_px']} x {row['height_px']}"} for row in rows if row["width_px"]]
    for name, title, source in (
        ("format", "format", rows),
        ("vendor", "scanner", rows),
        ("modality", "modality", rows),
        ("syntax", "DICOM encoding", rows),
        ("size", "pixels", sizes),
    ):
        counts = Counter(str(row[name]) for row in source if row[name] is not None)
        if counts:
            shown = ", ".join(f"{value} ({count:,})" for value, count in counts.most_common(_SHOWN))
            yield title, shown + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _example_rows(rows: Sequence[dict[str, object]]) -> Iterator[tuple[str, str]]:
    for outcome, name, members in _groups(rows):
        for number, row in enumerate(members[:: max(1, len(members) // _EXAMPLES)][:_EXAMPLES]):
            yield f"{outcome}: {name}" if number == 0 else "", str(row["scan_uri"])


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:,.3g} TB"
