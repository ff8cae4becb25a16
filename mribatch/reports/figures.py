"""Draw scores and histories as PNG pictures, one function for each kind, and return their bytes.

Equal input gives equal bytes: all figures have one style and matplotlib's own fonts, and contain no dates or versions.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import pyarrow as pa
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from sklearn import metrics as sk

from mribatch.errors import InputError
from mribatch.reports.rendering import confidence
from mribatch.statistics import breakdown, metrics
from mribatch.statistics.metrics import Scores
from mribatch.statistics.shares import percent

__all__ = [
    "ScanEntry",
    "accuracy_dots",
    "confusion_matrix",
    "precision_recall_curves",
    "reliability",
    "roc_curves",
    "scan_page",
    "training_curves",
]

BLUE, ORANGE, RED, INK, MUTED, PALE = "#0072B2", "#D55E00", "#C8102E", "#1F2933", "#5F6B76", "#EEF1F4"
CLASS_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", MUTED)  # Okabe & Ito 2008
LINES = ("-", "--", ":", "-.")  # with the colours, 28 classes can be told apart
STYLE = {
    "savefig.dpi": 110,  # a figure 9.6 inches wide fills the page's column, so its text is readable at 100%
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.15,
    "figure.constrained_layout.use": True,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$x$"
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#D5DAE0",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": PALE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
}
PAGE_SCANS, PAGE_COLUMNS, PAGE_BARS = 24, 6, 6  # with more, scans would be too small at 100%

_P = ParamSpec("_P")


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanEntry:
    """A scan of `scan_page`. image: (h, w, 3) uint8 RGB; truth: None if unknown; probabilities: one per label."""

    image: NDArray[np.uint8]
    truth: str | None
    probabilities: tuple[float, ...]


def _png(draw: Callable[_P, tuple[Figure, str]]) -> Callable[_P, bytes]:
    """Decorate a function that returns a figure and its title, so that it returns PNG bytes in the style of the reports."""

    @wraps(draw)
    def encoded(*args: _P.args, **kwargs: _P.kwargs) -> bytes:
        with style.context(["default", STYLE]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # characters without a font are drawn as boxes
            out = io.BytesIO()
            figure, title = draw(*args, **kwargs)  # inside `with`, because matplotlib reads the style at every step
            figure.suptitle(title, x=0, ha="left")
            figure.savefig(out, format="png", metadata={"Software": None})
            return out.getvalue()

    return encoded


@_png
def training_curves(history: pa.Table, kept: int | None = None) -> tuple[Figure, str]:
    """Draw loss, accuracy, precision and recall per epoch, for training and validation, with the kept epoch marked.

    history: one row per epoch, with the columns `epoch` (from 1), the four, and the four with `val_`. kept: the epoch
    whose weights became the model; if None (unknown), the epoch of lowest `val_loss` is marked. Raises InputError for an
    empty history, a missing column or an epoch that is not in the history.
    """
    epochs, losses = _column(history, "epoch"), _column(history, "val_loss")
    best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else None
    marked = best if kept is None else _row_of(epochs, kept)
    figure = Figure(figsize=(9.6, 6.4))
    names = ("loss", "accuracy", "precision", "recall")
    for axes, name in zip(figure.subplots(2, 2).flat, names, strict=True):
        validation = _column(history, f"val_{name}")
        axes.plot(epochs, _column(history, name), "s--", ms=3, color=MUTED, label="training")
        axes.plot(epochs, validation, "o-", ms=3, color=BLUE, label="validation")
        if marked is not None:
            label = "best epoch (lowest validation loss)" if kept is None else "epoch of the kept weights"
            ring = {"ms": 9, "mfc": "none", "mew": 2, "label": label}
            axes.plot(epochs[marked], validation[marked], "o", color=ORANGE, **ring)
        axes.set(title=name.capitalize(), ylabel="share of scans", xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.axes[0].set(ylabel="cross-entropy (nats)")
    figure.axes[0].yaxis.set_major_formatter("{x:.4g}")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, _curves_title(epochs, losses, best, None if kept is None else marked)


@_png
def confusion_matrix(scores: Scores) -> tuple[Figure, str]:
    """Draw the number of scans, and their share of the true class, by true and predicted class; mistakes are orange."""
    counts, labels = scores.confusion, [_short(label) for label in scores.labels]
    of_class = counts.sum(axis=1)
    share = counts / np.maximum(of_class, 1)[:, None]
    depth = np.sqrt(share)  # so that one mistake in a hundred is visible
    pale, blue, orange = to_rgba_array([PALE, BLUE, ORANGE])
    full = np.where(np.eye(len(labels), dtype=bool)[..., None], blue, orange)
    side = min(max(0.95 * len(labels), 3.4), 13)
    figure = Figure(figsize=(side + 2.4, side + 1.6))
    axes = figure.subplots()
    axes.pcolormesh(pale + depth[..., None] * (full - pale), edgecolors="white", lw=3)
    size = min(9.5, 10 * side / len(labels))
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count:,}\n{share[row, column]:.1%}" if count else "0" if of_class[row] else "–"
        ink = "white" if depth[row, column] > 0.75 else INK
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, size=size)
    rows = [f"{name}\n{_many(n, 'scan')}" for name, n in zip(labels, of_class, strict=True)]
    axes.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=0 if len(labels) < 7 else 90)
    axes.set_yticks(np.arange(len(labels)) + 0.5, rows)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted class", ylabel="true class", aspect="equal", ylim=(len(labels), 0))
    return figure, _confusion_title(scores)


@_png
def accuracy_dots(
    names: Sequence[str], accuracies: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> tuple[Figure, str]:
    """Draw accuracies as dots with their 95% intervals, in the given order, on an axis that need not begin at 0."""
    if not names:
        raise InputError("expected at least one model to draw, got none")
    figure = Figure(figsize=(9.6, 0.42 * len(names) + 1.4))
    axes = figure.subplots()
    places = np.arange(len(names))[::-1]
    axes.hlines(places, *np.transpose(intervals), color=MUTED, lw=2)
    axes.plot(accuracies, places, "o", color=BLUE, ms=8)
    for place, accuracy in zip(places, accuracies, strict=True):
        axes.text(accuracy, place + 0.2, percent(accuracy), ha="center", va="bottom", size=8)
    axes.set_yticks(places, [_short(name, 40) for name in names])
    axes.set(xlabel="accuracy (share of test scans) with 95% interval", ylim=(-0.6, len(names) - 0.2))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    best = int(np.argmax(accuracies))
    return figure, f"{_short(names[best], 40)} classifies {percent(accuracies[best])} of the test scans correctly"


@_png
def roc_curves(scores: Scores) -> tuple[Figure, str]:
    """Draw one-vs-rest ROC curves with their areas and the macro average, complete and enlarged.

    The macro curve is the mean of the classes' true positive rates at each false positive rate. Classes without scans
    have no curve; the title names them.
    """
    per_class = metrics.measure(scores)["per_class"]
    areas = {label: row["roc_auc"] for label, row in per_class.items() if row["roc_auc"] is not None}
    curves = {
        label: sk.roc_curve(scores.truth == k, scores.probabilities[:, k])[:2] for label, k in _drawn(scores, areas)
    }
    figure, panels = _panels(areas)
    _draw_curves(panels, scores.labels, curves, areas)
    grid = np.linspace(0, 1, 2001)
    for axes in panels:
        if curves:
            mean = np.mean([np.interp(grid, *curve) for curve in curves.values()], axis=0)
            axes.plot(
                [0, *grid], [0, *mean], color=INK, lw=1, label=f"macro average  {np.mean(list(areas.values())):.4f}"
            )
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":", label="chance  0.5")
        axes.set(xlabel="false positive rate (1 − specificity)", xlim=(-0.01, 1), ylim=(0, 1.01))
    panels[0].set(title="All thresholds", ylabel="true positive rate (sensitivity)")
    panels[0].legend(loc="lower right", title="area under the curve", ncols=1 + len(areas) // 13)
    if len(panels) > 1:
        panels[1].set(title="Upper left corner, enlarged", xlim=(-0.001, 0.1), ylim=(0.9, 1.001))
    return figure, _roc_title(scores.labels, areas)


@_png
def precision_recall_curves(scores: Scores) -> tuple[Figure, str]:
    """Draw the precision of each class against its recall, one class against the rest, complete and enlarged.

    Classes without scans have no curve; the title names them.
    """
    points = breakdown.operating_points(scores)
    areas = {label: row["average_precision"] for label, row in points.items() if row["average_precision"] is not None}
    curves = {}
    for label, k in _drawn(scores, areas):
        precision, recall, _ = sk.precision_recall_curve(scores.truth == k, scores.probabilities[:, k])
        curves[label] = recall, precision
    figure, panels = _panels(areas)
    _draw_curves(panels, scores.labels, curves, areas)
    for axes in panels:
        axes.set(xlabel="recall (sensitivity)", xlim=(0, 1.01), ylim=(0, 1.01))
    panels[0].set(title="All thresholds", ylabel="precision (positive predictive value)")
    if areas:
        panels[0].legend(loc="lower left", title="average precision", ncols=1 + len(areas) // 13)
    if len(panels) > 1:
        panels[1].set(title="Upper right corner, enlarged", xlim=(0.9, 1.001), ylim=(0.9, 1.001))
    return figure, _precision_title(scores.labels, areas)


@_png
def reliability(scores: Scores) -> tuple[Figure, str]:
    """Draw accuracy against confidence per bin with 95% Wilson intervals, and the number of scans per bin."""
    bins = metrics.calibration_bins(scores.confidence, scores.correct)
    used, width = bins.scans > 0, 1 / len(bins.scans)
    x, y, scans = bins.confidence[used], bins.accuracy[used], bins.scans[used]
    ends = [metrics.wilson_interval(round(share * n), int(n)) for share, n in zip(y, scans, strict=True)]
    figure = Figure(figsize=(7, 7))
    curve, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--", label="perfect calibration")
    curve.vlines(x, *np.transpose(ends), color=BLUE, lw=1.2, alpha=0.6, label="95% interval (Wilson)")
    curve.plot(x, y, "o-", color=BLUE, label="scans with similar confidence")
    curve.set(ylabel="accuracy (share of scans)", xlim=(0, 1.01), ylim=(0, 1.02))
    curve.legend(loc="upper left")
    histogram.bar((np.arange(len(used)) + 0.5) * width, bins.scans, width * 0.92, color=BLUE)
    histogram.set(yscale="log", ylim=(0.7, None), ylabel="scans (log scale)")
    histogram.set_xlabel("confidence (probability of the predicted class)")
    histogram.yaxis.set_major_formatter("{x:,.0f}")
    for axis in (curve.xaxis, curve.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    error = metrics.expected_calibration_error(scores.confidence, scores.correct)
    means = f"Mean confidence {scores.confidence.mean():.1%}, accuracy {scores.correct.mean():.1%}"
    return figure, f"{means}: expected calibration error {error:.3f}"


@_png
def scan_page(entries: Sequence[ScanEntry], labels: Sequence[str]) -> tuple[Figure, str]:
    """Draw scans with bars for their probabilities, wrong answers framed in red; the first 24 in the given order.

    With more than six classes, each scan shows the six most probable ones. Raises InputError without any scan.
    """
    if not entries:
        raise InputError("expected at least one scan for the page, got none")
    entries, bars = entries[:PAGE_SCANS], 0.16 * min(len(labels), PAGE_BARS)
    predicted = [labels[int(np.argmax(entry.probabilities))] for entry in entries]
    cell = 2.35 + bars  # inches: two lines of text, the scan, its bars, a gap
    size = (11.6, -(-len(entries) // PAGE_COLUMNS) * cell + 0.45)
    figure = Figure(figsize=size)
    figure.set_layout_engine("none")  # the boxes below are in inches
    for place, entry in enumerate(entries):
        left, top = place % PAGE_COLUMNS * 1.93, size[1] - 0.6 - place // PAGE_COLUMNS * cell
        boxes = ((left, top - 2.1, 1.72, 1.72), (left + 0.74, top - 2.16 - bars, 0.58, bars))
        scan, chart = (figure.add_axes(tuple(np.array(box) / (*size, *size))) for box in boxes)
        colour = RED if entry.truth not in (None, predicted[place]) else BLUE
        _draw_scan(scan, entry, predicted[place], colour)
        _draw_bars(chart, entry, labels, colour)
    known = [entry.truth == name for entry, name in zip(entries, predicted, strict=True) if entry.truth is not None]
    counts = f": {known.count(False)} wrong, {known.count(True)} correct" if known else ""
    return figure, f"{_many(len(entries), 'scan')} with the model's probabilities{counts}"


def _draw_scan(axes: Axes, entry: ScanEntry, predicted: str, colour: str) -> None:
    wrong, known = colour == RED, entry.truth is not None
    axes.imshow(entry.image, aspect="equal")
    axes.set(facecolor="black", xticks=[], yticks=[], adjustable="datalim")
    axes.grid(False)
    axes.spines[:].set(visible=True, color=RED if wrong else "black", linewidth=3 if wrong else 1)
    mark = "✗ " if wrong else "✓ " if known else ""
    truth = f"true: {_short(entry.truth)}" if entry.truth is not None else "truth unknown"
    for height, text, weight in ((1.13, mark + _short(predicted, 17), "bold"), (1.035, truth, "normal")):
        axes.text(0, height, text, weight=weight, color=RED if wrong else INK, transform=axes.transAxes)


def _draw_bars(axes: Axes, entry: ScanEntry, labels: Sequence[str], colour: str) -> None:
    ranked = sorted(range(len(labels)), key=lambda k: -entry.probabilities[k])
    shown = sorted(ranked[:PAGE_BARS])
    rows, values = range(len(shown)), [entry.probabilities[k] for k in shown]
    axes.barh(rows, 1, color=PALE, height=0.62)
    axes.barh(rows, values, color=[colour if k == ranked[0] else MUTED for k in shown], height=0.62)
    for row, value in zip(rows, values, strict=True):
        axes.text(1.06, row, confidence(value), size=7, va="center")
    axes.set(xlim=(0, 1), ylim=(len(shown) - 0.5, -0.5), xticks=[])
    axes.set_yticks(rows, [_short(labels[k], 12) for k in shown], size=7)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _column(history: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column as (epochs,) float64, with NaN for null."""
    if not len(history) or name not in history.column_names:
        raise InputError(f"expected a history of epochs with {name!r}, got {len(history)} × {history.column_names}")
    return np.asarray(history.column(name).to_numpy(), np.float64)


def _row_of(epochs: NDArray[np.float64], epoch: int) -> int:
    rows = np.flatnonzero(epochs == epoch)
    if not rows.size:
        raise InputError(f"expected a history with epoch {epoch}, got {len(epochs)} epochs up to {epochs[-1]:.0f}")
    return int(rows[0])


def _curves_title(epochs: NDArray[np.float64], losses: NDArray[np.float64], best: int | None, kept: int | None) -> str:
    lowest = "" if best is None else f"Lowest validation loss: {losses[best]:.4f}, after epoch {epochs[best]:.0f}"
    if kept is None:
        return f"{lowest} of {epochs[-1]:.0f}" if lowest else f"Trained to epoch {epochs[-1]:.0f}; no validation loss"
    title = f"The weights of epoch {epochs[kept]:.0f} of {epochs[-1]:.0f} were kept"
    if kept != best and np.isfinite(losses[kept]):
        title += f", with a validation loss of {losses[kept]:.4f}"
    return f"{title}\n{lowest}" if lowest else title


def _confusion_title(scores: Scores) -> str:
    missed = scores.confusion * (1 - np.eye(len(scores.labels), dtype=np.int64))
    if not missed.any():
        return f"All {_many(len(scores.truth), 'scan')} classified correctly"
    true, predicted = (_short(scores.labels[int(k)]) for k in np.unravel_index(missed.argmax(), missed.shape))
    correct = f"{scores.correct.mean():.2%} of {_many(len(scores.truth), 'scan')} classified correctly"
    return f"{correct}\nMost frequent mistake: {true} predicted as {predicted} ({missed.max():,})"


def _drawn(scores: Scores, areas: Mapping[str, float]) -> list[tuple[str, int]]:
    """Return the labels that have a curve, with their numbers."""
    return [(label, k) for k, label in enumerate(scores.labels) if label in areas]


def _panels(areas: Mapping[str, float]) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel, and a second one to enlarge the corner if a curve may reach it."""
    figure = Figure(figsize=(9.6, 5.4))
    enlarge = max(areas.values(), default=0) > 0.95
    return figure, list(figure.subplots(1, 1 + enlarge, squeeze=False).flat)


def _draw_curves(
    panels: Sequence[Axes],
    labels: Sequence[str],
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    areas: Mapping[str, float],
) -> None:
    for label, (x, y) in curves.items():
        k = labels.index(label)
        look: dict[str, Any] = {"color": CLASS_COLOURS[k % 7], "ls": LINES[k // 7 % 4], "lw": 1.8}
        for axes in panels:
            axes.plot(x, y, label=f"{_short(label)}  {areas[label]:.4f}", **look)


def _roc_title(labels: Sequence[str], areas: Mapping[str, float]) -> str:
    if not areas:
        return "No ROC curve: all scans are of one class"
    hardest = min(areas, key=areas.__getitem__)
    title = f"Hardest to distinguish from the other classes: {_short(hardest)}, area {areas[hardest]:.4f}"
    if areas[hardest] == 1:
        title = "Every class is separated from the others without a mistake"
    return title + _without_curve(labels, areas)


def _precision_title(labels: Sequence[str], areas: Mapping[str, float]) -> str:
    if not areas:
        return "No precision-recall curve: all scans are of one class"
    hardest = min(areas, key=areas.__getitem__)
    return f"Lowest average precision: {_short(hardest)}, {areas[hardest]:.4f}{_without_curve(labels, areas)}"


def _without_curve(labels: Sequence[str], areas: Mapping[str, float]) -> str:
    left_out = ", ".join(_short(label) for label in labels if label not in areas)
    return f"\nNo scans, so no curve: {left_out}" if left_out else ""


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _short(label: str, most: int = 20) -> str:
    """Return a label of at most `most` characters, with unprintable ones as escapes."""
    label = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in label)
    return label if len(label) <= most else label[: most - 1] + "…"
