"""Define the column names, Arrow schemas, statuses and reason codes of the package."""

from collections.abc import Sequence
from enum import StrEnum

import pyarrow as pa

__all__ = [
    "KEY",
    "LAST_LISTED",
    "PLAN",
    "REFERRAL",
    "SCHEMA_VERSION",
    "SKIPS",
    "WORK",
    "Reason",
    "Referral",
    "Status",
    "decoded_fields",
    "prediction_schema",
    "probability_column",
    "upgraded",
]

SCHEMA_VERSION = "3"  # 1: the first; 2: the columns of frames and of DICOM; 3: those of referral and of archives

KEY = ("scan_uri", "scan_version", "frame")
"""The columns that identify a prediction of one model."""

PLAN = pa.schema([pa.field("scan_uri", pa.string(), False), pa.field("scan_version", pa.string(), False)])
"""One row per scan: a listing of the input, or the scans still to be scored."""

WORK = pa.schema(
    [
        pa.field("decoder_peak_bytes", pa.int64()),  # peak memory of the process that decoded it
        pa.field("predictor_peak_bytes", pa.int64()),
        pa.field("node", pa.string()),  # where it was scored
    ]
)
"""Bookkeeping columns added while scoring. The sink aggregates them for the run record and drops them."""

LAST_LISTED = pa.schema([*PLAN, pa.field("seen_at", pa.timestamp("us", tz="UTC"), False)])
"""One row per scan: its version when a nightly run last listed it, and the start time of that run."""


REFERRAL = pa.schema(
    [
        pa.field("uncertainty", pa.float32()),  # 1 - confidence
        pa.field("ood_score", pa.float32()),  # above 1: not like the training scans
        pa.field("referral", pa.string()),  # a Referral
        pa.field("referral_reason", pa.string()),  # null for auto
    ]
)
"""Columns that say whether a person should look at a scan; null for a model that was not calibrated."""


class Referral(StrEnum):
    AUTO = "auto"  # no score is above its threshold
    REVIEW = "review"


class Status(StrEnum):
    OK = "ok"
    REJECTED = "rejected"  # unusable scan: a row without predictions, final for this version
    SKIPPED = "skipped"  # intact and readable, but not what the model is for: a row without predictions
    FAILED = "failed"  # storage or machine failure: no row, so the next run plans it again
    LEFT = "left"  # not reached before the deadline: no row, so the next run plans it again


class Reason(StrEnum):
    """Why a scan has no prediction. UNREADABLE and UNFORESEEN fail it, SKIPS skip it, all others reject it."""

    EMPTY = "empty"  # zero bytes
    NOT_AN_IMAGE = "not_an_image"  # not the bytes of any image format
    UNSUPPORTED_FORMAT = "unsupported_format"  # an image or document format that is not supported
    TRUNCATED = "truncated"  # the file ends before the image data is complete
    CORRUPT = "corrupt"  # the header is readable, but the data is not
    TOO_LARGE = "too_large"  # more pixels, or more bytes, than allowed
    TOO_SMALL = "too_small"  # a side is shorter than that of any real scan
    MULTIPLE_FRAMES = "multiple_frames"  # an animation or a stack rather than a single image
    VANISHED = "vanished"  # deleted between listing and reading
    CHANGED = "changed"  # replaced between listing and reading
    CRASHED_DECODER = "crashed_decoder"  # every process that tried to decode or score it died
    TIMED_OUT = "timed_out"  # every attempt to decode or score it took too long
    UNREADABLE = "unreadable"  # the storage returned no data after all retries
    UNFORESEEN = "unforeseen"  # an error in this program while it processed the scan
    NO_PIXELS = "no_pixels"  # a report, raw data, a presentation state, a DICOMDIR
    NOT_MR = "not_mr"  # another modality
    SECONDARY_CAPTURE = "secondary_capture"  # a screen or a page saved as a picture
    SEGMENTATION = "segmentation"  # labels
    LOCALIZER = "localizer"  # a planning image
    FUNCTIONAL = "functional"  # a time series of functional MR
    DIFFUSION = "diffusion"  # diffusion weighted
    PERFUSION = "perfusion"  # a perfusion time series, or arterial spin labelling
    MAP = "map"  # computed numbers: ADC, FA, CBF, a field map
    PHASE = "phase"  # phase, not magnitude
    PROJECTION = "projection"  # a projection through a volume: MIP
    MOSAIC = "mosaic"  # many slices side by side in one picture
    BLANK = "blank"  # a constant frame
    SERIES = "series"  # left out by the patterns of the series to score or to skip
    ENCRYPTED = "encrypted"  # a member of an archive that needs a password


SKIPS = frozenset(
    {
        Reason.NO_PIXELS,
        Reason.NOT_MR,
        Reason.SECONDARY_CAPTURE,
        Reason.SEGMENTATION,
        Reason.LOCALIZER,
        Reason.FUNCTIONAL,
        Reason.DIFFUSION,
        Reason.PERFUSION,
        Reason.MAP,
        Reason.PHASE,
        Reason.PROJECTION,
        Reason.MOSAIC,
        Reason.BLANK,
        Reason.SERIES,
    }
)
"""The reasons of skipped scans; all others reject or fail one."""


_DICOM = [
    pa.field("reading", pa.string()),  # a digest of the settings that the result depends on; null if on none
    pa.field("kind", pa.string()),
    pa.field("modality", pa.string()),
    pa.field("plane", pa.string()),
    pa.field("slice_mm", pa.float64()),
    pa.field("window", pa.string()),
    pa.field("instance_key", pa.string()),
    pa.field("series_key", pa.string()),
    pa.field("study_key", pa.string()),
    pa.field("patient_key", pa.string()),
]

_ARCHIVE = [  # null unless the scan is a member of an archive; then scan_uri is container!member's name
    pa.field("container", pa.string()),  # the URI of the archive, which is the file that a plan has
    pa.field("member", pa.int32()),  # its number in the archive, from 0
    pa.field("members", pa.int32()),  # of the archive
]

_DECODED = [
    pa.field("frame", pa.int32(), False),
    pa.field("frames", pa.int32()),  # of the file; null in rows of schema version 1, whose files have one
    pa.field("content_sha256", pa.string()),
    pa.field("status", pa.string(), False),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
    pa.field("format", pa.string()),
    pa.field("width_px", pa.int32()),
    pa.field("height_px", pa.int32()),
    *_DICOM,
    *_ARCHIVE,
]


def probability_column(label: str) -> str:
    return f"p_{label}"


def decoded_fields(side_px: int) -> list[pa.Field]:
    """Return the columns that decoding adds to a row.

    `pixels` holds side × side × 3 uint8 in row-major RGB order; it is null unless the status is ok.
    """
    return [
        *_DECODED,
        pa.field("pixels_sha256", pa.string()),
        pa.field("pixels", pa.binary(side_px * side_px * 3)),
        WORK.field("decoder_peak_bytes"),
    ]


def prediction_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the schema of a Parquet part, with the `p_<label>` columns in the model's label order."""
    return pa.schema(
        [
            *PLAN,
            *_DECODED,
            pa.field("predicted_class", pa.string()),
            pa.field("confidence", pa.float32()),
            *(pa.field(probability_column(label), pa.float32()) for label in labels),
            *REFERRAL,
            pa.field("model_digest", pa.string(), False),
            pa.field("run_id", pa.string(), False),
            pa.field("scored_at", pa.timestamp("us", tz="UTC"), False),
        ],
        metadata={"mribatch.schema": SCHEMA_VERSION},
    )


def upgraded(table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Return rows of a part with all columns of `prediction_schema`, or some of them.

    Those that an older version lacks are null. Raises KeyError for a column that no part may lack.
    """
    prefix = probability_column("")
    labels = [name.removeprefix(prefix) for name in table.column_names if name.startswith(prefix)]
    target = prediction_schema(labels)
    fields = [target.field(name) for name in (target.names if columns is None else columns)]
    lacking = [field.name for field in fields if not field.nullable and field.name not in table.column_names]
    if lacking:
        raise KeyError(*lacking)
    values = [
        table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in fields
    ]
    return pa.table(values, schema=pa.schema(fields, target.metadata))
