"""Explain: chosen scans → class activation maps → overlays, a table of their peaks, and a page."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet

from mribatch.commands.overlays import MapSettings, Wanted, explained
from mribatch.commands.paying import paying
from mribatch.commands.screen import Block, Shown, Table
from mribatch.errors import InputError
from mribatch.models import directory, lookup
from mribatch.models.format import Model
from mribatch.models.pointing import pointing_of
from mribatch.reports.explanation import WORDS, Explanation, ExplanationPage, explanation_page
from mribatch.reports.gallery import scan_name
from mribatch.reports.rendering import confidence, png
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.reading import Reading
from mribatch.schema import Status
from mribatch.settings.explain import DESCRIPTIONS, MOST_PICTURES, ExplainConfig
from mribatch.settings.suggestions import did_you_mean
from mribatch.sources.listing import keys_of, list_scans
from mribatch.stores import uris
from mribatch.version import __version__

__all__ = ["EXPLANATIONS", "Explained", "explain"]

EXPLANATIONS = pa.schema(
    [
        pa.field("scan_uri", pa.string(), False),
        pa.field("scan_version", pa.string(), False),
        pa.field("frame", pa.int32(), False),
        pa.field("status", pa.string(), False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("predicted_class", pa.string()),
        pa.field("confidence", pa.float32()),
        pa.field("verdict", pa.string()),
        pa.field("peak_x", pa.float32()),
        pa.field("peak_y", pa.float32()),
        pa.field("overlay", pa.string()),
        pa.field("method", pa.string(), False),
        pa.field("model_digest", pa.string(), False),
    ]
)
"""One row per explained frame. The peak is in shares of width and height, null where no map is shown."""


@dataclass(frozen=True, kw_only=True)
class Explained(Shown):
    """The explanations of some scans, and where the page is."""

    explanations: Sequence[Explanation]
    report: str
    exit_code: int = 0

    def blocks(self) -> list[Block]:
        """Return one row per frame, and the place of the page."""
        head = ("scan", "predicted", "confidence", "peak x, y", "")
        return [Table([*map(_screen_row, self.explanations)], head, align="llrrl"), "", f"report  {self.report}"]


def _screen_row(explanation: Explanation) -> tuple[str, ...]:
    name = scan_name(explanation.scan_uri, explanation.frame)
    if explanation.confidence is None:
        return name, "", "", "", f"{explanation.status}: {explanation.reason}"
    peak = "{:.2f}, {:.2f}".format(*explanation.peak) if explanation.peak else ""
    note = "" if explanation.overlay is not None else f"no map: {WORDS[explanation.verdict]}"
    return name, str(explanation.predicted_class), confidence(explanation.confidence), peak, note


@paying
def explain(config: ExplainConfig) -> Explained:
    """Explain the chosen scans and write explanations.html, explanations.parquet and overlay-NNNN.png to config.output.

    Needs no Ray. Raises ModelError for a model that cannot be explained, InputError for a scan that is not in the input and
    where nothing can be read, and StorageError.
    """
    config = replace(config, output=uris.absolute(config.output))
    model = directory.load_model(lookup.locate(config.model))
    uris.check_writable(config.output)
    chosen = _chosen(keys_of(list_scans(config.input, config.exclude)), config)
    reading = Reading(selection=Selection(window=config.window))
    settings = MapSettings(method=config.method, show_unproven=config.show_unproven, reading=reading)
    explanations = explained(model, chosen, settings)
    if all(explanation.picture is None for explanation in explanations):
        raise InputError(_nothing(config, explanations))
    return Explained(explanations=explanations, report=_write(config, model, explanations))


def _chosen(keys: Sequence[tuple[str, str]], config: ExplainConfig) -> Wanted:
    """Return the scans to explain: those that --scan names, or some from the whole listing."""
    if not config.scan:
        step = max(1, -(-len(keys) // config.limit))
        return dict.fromkeys(keys[::step], config.frames)
    named = {key: config.frames for name in config.scan for key in _named(name, keys)}
    if len(named) * max(1, len(set(config.frames))) > MOST_PICTURES:
        raise InputError(
            f"--scan names {len(named):,} scans, more than the {MOST_PICTURES} pictures that fit on one page: give more of "
            "their URIs"
        )
    return named


def _named(name: str, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the scans with this URI, or whose URI ends with these names. Raises InputError if there are none."""
    exact = uris.absolute(name)
    named = [key for key in keys if key[0] == exact or key[0].endswith(f"/{name}")]
    if not named:
        suggestion = did_you_mean(name, (key[0].rpartition("/")[2] for key in keys))
        raise InputError(
            f"--scan {name} is none of the {len(keys):,} scans of --input{suggestion or ': give a URI, or the end of one'}"
        )
    return named


def _nothing(config: ExplainConfig, explanations: Sequence[Explanation]) -> str:
    reasons = sorted({str(explanation.reason) for explanation in explanations})
    if not reasons:
        return f"no scan has a frame {' or '.join(map(str, config.frames))}: count --frames from 0, or leave it out"
    return f"none of the {len(explanations)} chosen scans can be explained ({', '.join(reasons)}): choose others with --scan"


def _write(config: ExplainConfig, model: Model, explanations: Sequence[Explanation]) -> str:
    """Write the overlays, the table and the page, and return the page's URI."""
    rows = []
    for number, explanation in enumerate(explanations, 1):
        name = None
        if explanation.overlay is not None:
            name = f"overlay-{number:04d}.png"
            uris.put(uris.join(config.output, name), png(explanation.overlay))
        rows.append(_row(explanation, name) | {"method": config.method, "model_digest": model.digest})
    data = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=EXPLANATIONS), data)
    uris.put(uris.join(config.output, "explanations.parquet"), data.getvalue())
    report = uris.join(config.output, "explanations.html")
    uris.put(report, explanation_page(_page(config, model, explanations)).encode())
    return report


def _row(explanation: Explanation, overlay: str | None) -> dict[str, object]:
    x, y = explanation.peak or (None, None)
    names = set(EXPLANATIONS.names) & explanation.__dataclass_fields__.keys()
    known = {name: getattr(explanation, name) for name in names}
    is_read = explanation.status == Status.OK
    return known | {
        "verdict": str(explanation.verdict) if is_read else None,
        "peak_x": x,
        "peak_y": y,
        "overlay": overlay,
    }


def _page(config: ExplainConfig, model: Model, explanations: Sequence[Explanation]) -> ExplanationPage:
    return ExplanationPage(
        title=f"Explanations of model {model.digest}",
        facts={
            "model": config.model,
            "digest": model.digest,
            "kind": model.kind,
            "method": f"{config.method}: {DESCRIPTIONS[config.method]}",
            "scans": config.input,
            "command": config.command("jobs/explain.py"),
            "mribatch": __version__,
        },
        labels=model.labels,
        pointing=pointing_of(model, config.method),
        explanations=explanations,
        files={"explanations.parquet": "a row for each frame; the overlays stand beside it as PNG"},
    )
