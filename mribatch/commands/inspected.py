"""What `inspect` returns: one row per file, and the tables that sum them up for the screen."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mribatch.commands.screen import Block, Shown, Table
from mribatch.predictions.series import MEMBERSHIP, with_series
from mribatch.scans.formats import NIFTI
from mribatch.schema import Reason, Status

__all__ = ["Inspected"]

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
    Reason.ENCRYPTED: "members of archives that need a password",
    Reason.UNSUPPORTED_FORMAT: "formats that are not read",
    Reason.NOT_AN_IMAGE: "not a picture",
    Reason.TRUNCATED: "files that end too early: copy them again",
    Reason.CORRUPT: "damaged files: copy them again",
    Reason.MULTIPLE_FRAMES: "animations and stacks of pictures",
    Reason.TOO_LARGE: "more pixels, frames or bytes than allowed",
    Reason.TOO_SMALL: "smaller than any scan",
    Reason.EMPTY: "empty files",
    Reason.VANISHED: "deleted since they were listed",
    Reason.CHANGED: "replaced since they were listed",
    Reason.UNREADABLE: "could not be read from the storage",
    Reason.UNFORESEEN: "an error in this program",
}
_ORDER = ("scored", "skipped", "rejected", "failed")


@dataclass(frozen=True, kw_only=True)
class Inspected(Shown):
    """What an archive holds. files: one row per file or member, schema INSPECTED."""

    files: pa.Table
    listed: int
    report: str | None
    exit_code: int = 0

    def blocks(self) -> list[Block]:
        """Return how many files would be scored, skipped and rejected and why, with examples, and what they are."""
        rows = self.files.to_pylist()
        packed = {row["container"] for row in rows} - {None}
        members = sum(row["container"] is not None for row in rows)
        files = len(rows) - members + len(packed)
        of = "" if files == self.listed else f" of {self.listed:,}"
        archives = f" ({len(packed):,} of them archives of {members:,})" if packed else ""
        size = _size(sum(row["size_bytes"] or 0 for row in rows))
        return [
            f"{files:,}{of} files{archives}, {size}, {_grouped(self.files)}",
            Table([*_outcome_rows(rows)], ("", "files", "series", "frames", "what they are"), align="lrrrl"),
            Table([*_property_rows(rows)], ("of the files", "most frequent first"), align="ll"),
            Table([*_example_rows(rows)], ("", "examples"), align="ll"),
            f"one row per file: {self.report}" if self.report else "--output FOLDER writes one row per file as Parquet",
        ]


def _grouped(files: pa.Table) -> str:
    """Return the numbers of series and studies, as the night's page and `studies` count them, and of NIfTI volumes."""
    named = with_series(_membership(files))
    series, studies = (pc.count_distinct(named[name]).as_py() for name in ("series_key", "study_key"))
    volumes = pc.sum(pc.equal(files["format"], NIFTI)).as_py() or 0
    return f"{series:,} series, {studies:,} studies" + (f", {volumes:,} NIfTI volumes" if volumes else "")


def _membership(files: pa.Table) -> pa.Table:
    """Return the columns MEMBERSHIP of files: what scoring would write."""
    columns = {name: files[name] for name in ("scan_uri", "container", "frames", "format")}
    columns["status"] = pc.if_else(pc.equal(files["outcome"], "scored"), Status.OK, files["outcome"])
    columns |= {f"{name}_key": files[name].cast(pa.string()) for name in ("series", "study")}
    return pa.table(columns | {"patient_key": pa.nulls(files.num_rows, pa.string())}).select(MEMBERSHIP)


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
        series = len({row["series"] for row in members} - {None}) + sum(row["format"] == NIFTI for row in members)
        frames = sum(int(str(row["frames"])) for row in members) if outcome == "scored" else 0
        meaning = "" if outcome == "scored" else _MEANINGS[Reason(name)]
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


def _size(size_bytes: int) -> str:
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    size, units = size_bytes / 1000, ["kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:  # which would read 1e+03
        size, units = size / 1000, units[1:]
    return f"{size:,.0f} {units[0]}" if size >= 99.5 else f"{size:.3g} {units[0]}"
