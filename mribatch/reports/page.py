"""An evaluation becomes one HTML page that needs nothing else: no script, no request, no template engine."""

import base64
import html
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from mribatch.errors import InputError

__all__ = ["DISCLAIMER", "Counts", "Evaluation", "Mistake", "evaluation_page"]

DISCLAIMER = "Research and triage tool, not a medical device."
_PNG = b"\x89PNG\r\n\x1a\n"


class Counts(TypedDict):
    """What became of the scans; `rejected` counts them by reason code."""

    scans: int
    ok: int
    rejected: Mapping[str, int]
    failed: int


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A scan whose predicted class is not its true one; confidence is the probability of the predicted one."""

    scan_uri: str
    truth: str
    predicted: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the page shows, in its order.

    model: facts by name (name, digest, backbone, image side …), shown as they are.
    numbers: what `metrics.measure` returned.
    figures: PNG bytes by caption, shown in the mapping's order; the caption is the text for who cannot see them.
    """

    title: str
    model: Mapping[str, object]
    counts: Counts
    numbers: Mapping[str, Any]
    mistakes: Sequence[Mistake] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)


def evaluation_page(evaluation: Evaluation) -> str:
    """The page as HTML text, to be written as UTF-8. Every text of the evaluation is escaped.

    Raises InputError for a figure that is not PNG.
    """
    title = _text(evaluation.title)
    figures = [_figure(caption, png) for caption, png in evaluation.figures.items()]
    sections = (
        _section("Result", _headline(evaluation.numbers)),
        _section("Classes", _classes(evaluation.numbers)),
        _section("Confusion matrix", _confusion(evaluation.numbers["confusion_matrix"]), beside=True),
        _section("Scans", _counts(evaluation.counts), beside=True),
        _section("Mistakes", _mistakes(evaluation.mistakes)),
        _section("Figures", "".join(figures)) if figures else "",
        _section("Model", _facts(evaluation.model)),
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{_CSS}</style>
</head>
<body>
<header><h1>{title}</h1><p class="notice">{DISCLAIMER}</p></header>
<main>
{"".join(sections)}</main>
<footer><p class="notice">{DISCLAIMER}</p></footer>
</body>
</html>
"""


def _headline(numbers: Mapping[str, Any]) -> str:
    low, high = numbers["accuracy_95"]
    tiles = (
        (
            "Accuracy",
            _percent(numbers["accuracy"]),
            f"95% interval {_percent(low)} to {_percent(high)} (Wilson)",
        ),
        ("Macro F1", _percent(numbers["macro"]["f1"]), "mean over the classes"),
        ("Macro ROC-AUC", _decimal(numbers["roc_auc_macro_ovr"]), "one class against the rest"),
        ("Loss", _decimal(numbers["loss"]), "cross-entropy, nats per scan"),
        ("Calibration error", _decimal(numbers["expected_calibration_error"]), "expected, 0 is best"),
    )
    items = (f"<div><dt>{name}</dt><dd><b>{value}</b>{note}</dd></div>" for name, value, note in tiles)
    return f'<dl class="tiles">{"".join(items)}</dl>'


def _counts(counts: Counts) -> str:
    rejected = sum(counts["rejected"].values())
    rows = [
        ("Listed", counts["scans"]),
        ("Scored", counts["ok"]),
        ("Rejected, the scan's own fault", rejected),
        *((f"– {reason}", count) for reason, count in sorted(counts["rejected"].items())),
        ("Failed, the storage's or machine's fault", counts["failed"]),
    ]
    return _table(("Outcome", "Scans"), [(name, f"{count:,}") for name, count in rows])


def _classes(numbers: Mapping[str, Any]) -> str:
    def row(name: str, values: Mapping[str, Any], support: int, area: float | None) -> tuple[str, ...]:
        ratios = (_percent(values[key]) for key in ("precision", "recall", "f1"))
        return (name, *ratios, _decimal(area), f"{support:,}")

    rows = [row(name, one, one["support"], one["roc_auc"]) for name, one in numbers["per_class"].items()]
    averages = [
        row("Macro average", numbers["macro"], numbers["scans"], numbers["roc_auc_macro_ovr"]),
        row("Weighted average", numbers["weighted"], numbers["scans"], None),
    ]
    return _table(("Class", "Precision", "Recall", "F1", "ROC-AUC", "Scans"), rows, averages)


def _confusion(matrix: Mapping[str, Any]) -> str:
    labels, counts = matrix["labels"], matrix["counts"]
    rows = [(label, *(f"{n:,}" for n in row)) for label, row in zip(labels, counts, strict=True)]
    return "<p>Rows are true classes, columns predicted ones.</p>" + _table(("True class", *labels), rows)


def _mistakes(mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return "<p>None.</p>"
    rows = [(one.scan_uri, one.truth, one.predicted, _percent(one.confidence)) for one in mistakes]
    return _table(("Scan", "True class", "Predicted class", "Confidence"), rows, kind="texts")


def _facts(facts: Mapping[str, object]) -> str:
    rows = (f"<div><dt>{_text(name)}</dt><dd>{_text(_plain(value))}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _figure(caption: str, png: bytes) -> str:
    if png[:8] != _PNG or len(png) < 24:
        raise InputError(f"expected the figure {caption!r} as PNG, got other bytes: pass what reports.figures returns")
    width, height = struct.unpack(">II", png[16:24])
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = f'<img src="{source}" alt="{_text(caption)}" width="{width}" height="{height}">'
    return f"<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>\n"


def _section(name: str, body: str, beside: bool = False) -> str:
    kind = ' class="beside"' if beside else ""
    return f"<section{kind}>\n<h2>{name}</h2>\n{body}\n</section>\n"


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    foot: Sequence[Sequence[str]] = (),
    kind: str = "numbers",
) -> str:
    """The first cell of each row is its header. A wide table scrolls by itself, with the keyboard, too."""
    columns = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
    tail = f"<tfoot>{_rows(foot)}</tfoot>" if foot else ""
    table = f"<table><thead><tr>{columns}</tr></thead>\n<tbody>{_rows(rows)}</tbody>{tail}</table>"
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{_text(head[0])} table">{table}</div>'


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join(
        f'<tr><th scope="row">{_text(first)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in rest)}</tr>\n'
        for first, *rest in rows
    )


def _text(text: str) -> str:
    """Escaped for elements and attributes; what cannot be seen (controls, bidi marks) is spelled out."""
    return html.escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "not known" if value is None else str(value)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


_CSS = """
:root { --ink: #1f2933; --muted: #5f6b76; --line: #d5dae0; --page: #fff; --card: #f5f7f9; --warn: #8a4b00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --muted: #9aa5b1; --line: #38424d; --page: #14191e; --card: #1d242b; --warn: #f0b35a }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1.25rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere }
h2 { margin: 2.25rem 0 .75rem; font-size: 1.1rem }
main { display: flex; flex-wrap: wrap; column-gap: 4rem }
section { flex: 1 1 100%; min-width: 0 }
section.beside { flex: 0 1 auto }
.notice { margin: .4rem 0 0; color: var(--warn); font-weight: 600 }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .75rem }
.tiles > div { padding: .75rem 1rem; border-radius: 6px; background: var(--card) }
.tiles b { display: block; color: var(--ink); font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums }
dl, dt, dd { margin: 0; color: var(--muted) }
.tiles dd { font-size: .8rem }
.facts > div { display: grid; grid-template-columns: 14rem 1fr; padding: .3rem 0; border-top: 1px solid var(--line) }
.facts dd { color: var(--ink); overflow-wrap: anywhere }
.numbers, .texts { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .35rem 1.25rem .35rem 0; border-top: 1px solid var(--line); text-align: left; font-weight: 400 }
thead th { border-top: 0; color: var(--muted); font-size: .85rem; white-space: nowrap }
tfoot th, tfoot td { color: var(--muted) }
.numbers td, .numbers th:not(:first-child) { padding-left: 1rem; text-align: right }
.texts tbody th { min-width: 20rem; font: .85rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace;
  word-break: break-all }
.texts :is(th, td):last-child { padding-right: 0; text-align: right }
figure { margin: 0 0 1.5rem; padding: .75rem; border: 1px solid var(--line); border-radius: 6px; background: #fff }
img { display: block; max-width: 100%; height: auto; margin: 0 auto }
figcaption { margin-top: .5rem; color: #5f6b76; font-size: .85rem }
@media (max-width: 40rem) { .facts > div { grid-template-columns: 1fr } }
@media print {
  :root { --ink: #000; --muted: #444; --line: #bbb; --page: #fff; --card: #fff; --warn: #000 }
  @page { margin: 15mm }
  main { display: block }
  body { max-width: none; padding: 0; font-size: 10pt }
  .tiles > div { border: 1px solid var(--line) }
  .numbers, .texts { overflow: visible }
  img { max-height: 235mm; width: auto }
  h2 { break-after: avoid }
  figure, tr, .tiles { break-inside: avoid }
}
"""
