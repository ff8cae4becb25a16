"""What the HTML pages share: their frame and look, and the elements they are made of. No page of its own.

All text is escaped here; what a function returns is HTML, and `Html` marks what a table shall not escape again.
"""

import base64
import html
import struct
from collections.abc import Iterable, Mapping, Sequence

from mribatch.errors import InputError

__all__ = [
    "DISCLAIMER",
    "Html",
    "decimal",
    "document",
    "facts",
    "figure",
    "percent",
    "section",
    "table",
    "text",
    "tiles",
]

DISCLAIMER = "Research and triage tool, not a medical device."
_PNG = b"\x89PNG\r\n\x1a\n"


class Html(str):
    """Text that is HTML already. Only what this package wrote may be called so, never a name or a message."""

    __slots__ = ()


def document(title: str, sections: Iterable[str], style: str = "") -> str:
    """A whole page as HTML text, to be written as UTF-8; `style` is CSS that this page has beyond the common one."""
    title = text(title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{_CSS}{style}</style>
</head>
<body>
<header><h1>{title}</h1><p class="notice">{DISCLAIMER}</p></header>
<main>
{"".join(sections)}</main>
<footer><p class="notice">{DISCLAIMER}</p></footer>
</body>
</html>
"""


def section(name: str, body: str, kind: str = "") -> str:
    """A part of the page under its heading; `beside` is the kind that shares a line with its neighbours."""
    kind = f' class="{kind}"' if kind else ""
    return f"<section{kind}>\n<h2>{text(name)}</h2>\n{body}\n</section>\n"


def tiles(items: Iterable[tuple[str, str, str]]) -> str:
    """The few numbers that matter most: name, value, note."""
    boxes = (
        f"<div><dt>{text(name)}</dt><dd><b>{text(value)}</b>{text(note)}</dd></div>" for name, value, note in items
    )
    return f'<dl class="tiles">{"".join(boxes)}</dl>'


def facts(facts: Mapping[str, object]) -> str:
    """Names and values, in the mapping's order."""
    rows = (f"<div><dt>{text(name)}</dt><dd>{text(_plain(value))}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{"".join(rows)}</dl>'


def figure(caption: str, png: bytes) -> str:
    """A picture inside the page. The caption is the text for who cannot see it.

    Raises InputError for a figure that is not PNG.
    """
    if png[:8] != _PNG or len(png) < 24:
        raise InputError(f"expected the figure {caption!r} as PNG, got other bytes: pass what reports.figures returns")
    width, height = struct.unpack(">II", png[16:24])
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = f'<img src="{source}" alt="{text(caption)}" width="{width}" height="{height}">'
    return f"<figure>{image}<figcaption>{text(caption)}</figcaption></figure>\n"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str | int]],
    foot: Sequence[Sequence[str | int]] = (),
    kind: str = "numbers",
) -> str:
    """The first cell of each row is its header, numbers are counts. A wide table scrolls by itself, with the keyboard, too."""
    columns = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    tail = f"<tfoot>{_rows(foot)}</tfoot>" if foot else ""
    whole = f"<table><thead><tr>{columns}</tr></thead>\n<tbody>{_rows(rows)}</tbody>{tail}</table>"
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{text(head[0])} table">{whole}</div>'


def text(words: str) -> str:
    """Escaped for elements and attributes; what cannot be seen (controls, bidi marks) is spelled out."""
    if isinstance(words, Html):
        return words
    return html.escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in words))


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _rows(rows: Iterable[Sequence[str | int]]) -> str:
    return "".join(
        f'<tr><th scope="row">{_cell(first)}</th>{"".join(f"<td>{_cell(cell)}</td>" for cell in rest)}</tr>\n'
        for first, *rest in rows
    )


def _cell(cell: str | int) -> str:
    return text(cell if isinstance(cell, str) else f"{cell:,}")


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "not known" if value is None else str(value)


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
