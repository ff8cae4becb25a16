"""Column names, Arrow schemas, statuses and reason codes, once. No behaviour beyond building a schema."""

from collections.abc import Sequence
from enum import StrEnum

import pyarrow as pa

__all__ = [
    "KEY",
    "PLAN",
    "SCHEMA_VERSION",
    "SEEN",
    "SKIPS",
    "WORK",
    "Reason",
    "Status",
    "decoded_fields",
    "prediction_schema",
    "probability_column",
]

SCHEMA_VERSION = "1"

KEY = ("scan_uri", "scan_version", "frame")
"""What names a prediction under one model."""

PLAN = pa.schema([pa.field("scan_uri", pa.string(), False), pa.field("scan_version", pa.string(), False)])
"""A listing, and what is left of it to do: one row per scan."""

WORK = pa.schema(
    [
        pa.field("decoder_peak_bytes", pa.int64()),  # the most memory that the process that decoded it has had
        pa.field("predictor_peak_bytes", pa.int64()),
        pa.field("node", pa.string()),  # where it was scored
    ]
)
"""What a row tells of the work on it on its way to the sink, which sums it up for the run's record."""

SEEN = pa.schema([*PLAN, pa.field("seen_at", pa.timestamp("us", tz="UTC"), False)])
"""The version in which each scan was listed last, and by the night of which moment: one row per scan."""


class Status(StrEnum):
    OK = "ok"
    REJECTED = "rejected"  # the scan's own fault: a row without predictions, final for this version
    SKIPPED = "skipped"  # whole and readable, but not what the model is for: a row without predictions
    FAILED = "failed"  # the storage's or the machine's fault: no row, planned again by the next run
    LEFT = "left"  # the run's time was over before its turn: no row, planned again by the next run


class Reason(StrEnum):
    """Why a scan has no prediction. The first group rejects it, UNREADABLE and UNFORESEEN fail it, SKIPS skip it."""

    EMPTY = "empty"  # zero bytes
    NOT_AN_IMAGE = "not_an_image"  # the bytes are of no image format
    UNSUPPORTED_FORMAT = "unsupported_format"  # an image or document format that is not read
    TRUNCATED = "truncated"  # the image ends before its data does
    CORRUPT = "corrupt"  # the header is readable, the data is not
    TOO_LARGE = "too_large"  # more pixels, or more bytes, than allowed
    TOO_SMALL = "too_small"  # a side shorter than any scan's
    MULTIPLE_FRAMES = "multiple_frames"  # an animation or a stack, not one scan
    VANISHED = "vanished"  # deleted between listing and reading
    CHANGED = "changed"  # replaced between listing and reading
    CRASHED_DECODER = "crashed_decoder"  # each process that decoded or scored it died
    TIMED_OUT = "timed_out"  # it was being decoded or scored for too long, each time
    UNREADABLE = "unreadable"  # the storage gave no bytes after all retries
    UNFORESEEN = "unforeseen"  # an error of this program while it worked on the scan
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


def probability_column(label: str) -> str:
    return f"p_{label}"


def decoded_fields(side_px: int) -> list[pa.Field]:
    """What decoding adds to a row. `pixels` holds side × side × 3 uint8, row-major RGB; null unless ok."""
    return [
        pa.field("frame", pa.int32(), False),
        pa.field("content_sha256", pa.string()),
        pa.field("status", pa.string(), False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("format", pa.string()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("pixels_sha256", pa.string()),
        pa.field("pixels", pa.binary(side_px * side_px * 3)),
        WORK.field("decoder_peak_bytes"),
    ]


def prediction_schema(labels: Sequence[str]) -> pa.Schema:
    """The schema of a part, `p_<label>` in the model's label order."""
    return pa.schema(
        [
            *PLAN,
            pa.field("frame", pa.int32(), False),
            pa.field("content_sha256", pa.string()),
            pa.field("status", pa.string(), False),
            pa.field("reason", pa.string()),
            pa.field("detail", pa.string()),
            pa.field("format", pa.string()),
            pa.field("width_px", pa.int32()),
            pa.field("height_px", pa.int32()),
            pa.field("predicted_class", pa.string()),
            pa.field("confidence", pa.float32()),
            *(pa.field(probability_column(label), pa.float32()) for label in labels),
            pa.field("model_digest", pa.string(), False),
            pa.field("run_id", pa.string(), False),
            pa.field("scored_at", pa.timestamp("us", tz="UTC"), False),
        ],
        metadata={"mribatch.schema": SCHEMA_VERSION},
    )
