"""Figures: complete PNG files, equal for equal input, that show the scores."""

import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mribatch.errors import InputError
from mribatch.reports import figures
from mribatch.reports.figures import ScanEntry
from mribatch.statistics.metrics import Scores

pytestmark = pytest.mark.filterwarnings("error")

LABELS = ("glioma", "meningioma", "notumor")
ORANGE, RED = (0xD5, 0x5E, 0x00), (0xC8, 0x10, 0x2E)
NAMES = ("loss", "accuracy", "precision", "recall")


def scores(truth: list[int], probabilities: list[list[float]], labels: tuple[str, ...] = LABELS) -> Scores:
    return Scores(labels=labels, truth=np.array(truth), probabilities=np.array(probabilities))


SURE = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
RIGHT = scores([0, 1, 2], SURE)
WRONG = scores([0, 0, 1, 1, 1, 2], [SURE[k] for k in (0, 1, 1, 2, 2, 2)])


def history(val_loss: list[float | None], epochs: int | None = None) -> pa.Table:
    epochs = epochs or len(val_loss)
    columns: dict[str, Any] = {"epoch": range(1, epochs + 1), "val_loss": val_loss, "loss": [0.5] * epochs}
    for name in NAMES[1:]:
        columns |= {name: [0.9] * epochs, f"val_{name}": [0.01 * epoch for epoch in range(epochs)]}
    return pa.table(columns)


def entry(truth: str | None, predicted: int, side: tuple[int, int] = (20, 20)) -> ScanEntry:
    return ScanEntry(image=np.full((*side, 3), 90, np.uint8), truth=truth, probabilities=tuple(SURE[predicted]))


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def has(png: bytes, colour: tuple[int, int, int]) -> bool:
    return bool((pixels(png) == colour).all(axis=-1).any())


def drawn(function: Callable[..., bytes], *args: Any) -> Any:
    """Return the matplotlib figure and its title, before they are encoded."""
    return function.__wrapped__(*args)  # type: ignore[attr-defined]


DRAWINGS = [
    (figures.training_curves, (history([0.5, 0.4, 0.45]),)),
    (figures.confusion_matrix, (WRONG,)),
    (figures.roc_curves, (WRONG,)),
    (figures.reliability, (WRONG,)),
    (figures.scan_page, ([entry("glioma", 0), entry("glioma", 2)], LABELS)),
]


@pytest.mark.parametrize(("draw", "args"), DRAWINGS)
def test_the_same_input_gives_the_same_bytes_whatever_the_users_style(
    draw: Callable[..., bytes], args: tuple[Any, ...]
) -> None:
    first = draw(*args)
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 20, "axes.facecolor": "black"}):
        assert draw(*args) == first
        assert matplotlib.rcParams["font.size"] == 30
    assert Image.open(io.BytesIO(first)).info.keys() <= {"dpi"}  # no versions, no dates
    height, width, _ = pixels(first).shape
    assert 300 < width < 1400
    assert 300 < height < 1400


def test_drawing_never_loads_pyplot() -> None:
    code = (
        "import sys, numpy as np\n"
        "from mribatch.reports import figures\nfrom mribatch.statistics import metrics\n"
        "s = metrics.Scores(labels=('a', 'b'), truth=np.array([0, 1]), probabilities=np.eye(2))\n"
        "figures.confusion_matrix(s); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_curves_mark_the_epoch_of_lowest_validation_loss() -> None:
    figure, title = drawn(figures.training_curves, history([0.5, 0.4, 0.45, 0.6]))
    assert title == "Lowest validation loss: 0.4000, after epoch 2 of 4"
    assert [axes.get_title("left") or axes.get_title() for axes in figure.axes] == [n.capitalize() for n in NAMES]
    for axes in figure.axes:
        training, validation, best = axes.lines
        assert (training.get_label(), validation.get_label()) == ("training", "validation")
        assert best.get_xdata() == [2]
        assert best.get_ydata() == [validation.get_ydata()[1]]


def test_training_curves_mark_the_epoch_that_was_kept_and_not_the_best_one() -> None:
    figure, title = drawn(figures.training_curves, history([0.5, 0.4, 0.45, 0.6]), 4)
    assert title == (
        "The weights of epoch 4 of 4 were kept, with a validation loss of 0.6000\n"
        "Lowest validation loss: 0.4000, after epoch 2"
    )
    for axes in figure.axes:
        _, validation, ring = axes.lines
        assert ring.get_label() == "epoch of the kept weights"
        assert (ring.get_xdata(), ring.get_ydata()) == ([4], [validation.get_ydata()[3]])
    _, title = drawn(figures.training_curves, history([0.5, 0.4]), 2)
    assert title == "The weights of epoch 2 of 2 were kept\nLowest validation loss: 0.4000, after epoch 2"
    _, title = drawn(figures.training_curves, history([None, float("nan")]), 2)
    assert title == "The weights of epoch 2 of 2 were kept"
    with pytest.raises(InputError, match="epoch 3"):
        figures.training_curves(history([0.5, 0.4]), 3)


def test_one_epoch_and_missing_validation_are_drawn_too() -> None:
    assert pixels(figures.training_curves(history([0.5]))).size
    figure, title = drawn(figures.training_curves, history([None, float("nan")]))
    assert title == "Trained to epoch 2; no validation loss"
    assert len(figure.axes[0].lines) == 2


def test_a_history_without_epochs_or_columns_is_refused() -> None:
    with pytest.raises(InputError, match="got 0"):
        figures.training_curves(history([0.5]).slice(0, 0))
    with pytest.raises(InputError, match="val_recall"):
        figures.training_curves(history([0.5]).drop_columns(["val_recall"]))


def test_confusion_cells_show_counts_and_the_share_of_the_true_class() -> None:
    figure, title = drawn(figures.confusion_matrix, WRONG)
    cells = [text.get_text() for text in figure.axes[0].texts]
    assert cells == ["1\n50.0%", "1\n50.0%", "0", "0", "1\n33.3%", "2\n66.7%", "0", "0", "1\n100.0%"]
    assert title == "50.00% of 6 scans classified correctly\nMost frequent mistake: meningioma predicted as notumor (2)"
    ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert ticks == ["glioma\n2 scans", "meningioma\n3 scans", "notumor\n1 scan"]


def test_only_mistakes_are_orange() -> None:
    all_taken_for_another = scores([0, 1], [SURE[1], SURE[1]])
    assert has(figures.confusion_matrix(all_taken_for_another), ORANGE)
    assert not has(figures.confusion_matrix(RIGHT), ORANGE)
    assert drawn(figures.confusion_matrix, RIGHT)[1] == "All 3 scans classified correctly"


def test_a_class_without_scans_has_no_share_and_no_roc_curve() -> None:
    two_of_three = scores([0, 1, 1], [*SURE[:2], SURE[0]])
    cells = [text.get_text() for text in drawn(figures.confusion_matrix, two_of_three)[0].axes[0].texts]
    assert cells[6:] == ["–", "–", "–"]
    figure, title = drawn(figures.roc_curves, two_of_three)
    assert "No scans, so no curve: notumor" in title
    curves = [line.get_label() for line in figure.axes[0].lines]
    assert curves == ["glioma  0.7500", "meningioma  0.7500", "macro average  0.7500", "chance  0.5"]


def test_roc_title_names_the_hardest_class() -> None:
    assert drawn(figures.roc_curves, WRONG)[1].startswith("Hardest to distinguish from the other classes: meningioma")
    assert drawn(figures.roc_curves, RIGHT)[1] == "Every class is separated from the others without a mistake"


def test_scans_of_one_class_only_still_give_every_picture() -> None:
    single = scores([1, 1], SURE[:2])
    assert drawn(figures.roc_curves, single)[1] == "No ROC curve: all scans are of one class"
    for draw in (figures.roc_curves, figures.precision_recall_curves, figures.confusion_matrix, figures.reliability):
        assert pixels(draw(single)).size


def test_macro_curve_is_the_mean_of_the_class_curves() -> None:
    figure, _ = drawn(figures.roc_curves, WRONG)
    macro = next(line for line in figure.axes[0].lines if line.get_label().startswith("macro"))
    area = np.trapezoid(macro.get_ydata(), macro.get_xdata())
    assert area == pytest.approx(float(macro.get_label().split()[-1]), abs=2e-3)


def test_reliability_shows_accuracy_at_the_mean_confidence_of_each_bin() -> None:
    figure, title = drawn(figures.reliability, WRONG)
    curve, histogram = figure.axes
    points = next(line for line in curve.lines if line.get_label() == "scans with similar confidence")
    assert points.get_xdata() == pytest.approx([0.8])
    assert points.get_ydata() == pytest.approx([0.5])
    assert sum(bar.get_height() for bar in histogram.patches) == 6
    assert title == "Mean confidence 80.0%, accuracy 50.0%: expected calibration error 0.300"


def test_only_wrong_scans_are_framed_in_red() -> None:
    assert has(figures.scan_page([entry("glioma", 0), entry("notumor", 1)], LABELS), RED)
    assert not has(figures.scan_page([entry("glioma", 0), entry(None, 1)], LABELS), RED)


def test_scan_page_says_truth_prediction_and_every_probability() -> None:
    figure, title = drawn(figures.scan_page, [entry("glioma", 0), entry("notumor", 1), entry(None, 2)], LABELS)
    assert title == "3 scans with the model's probabilities: 1 wrong, 1 correct"
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts[::2] == [["✓ glioma", "true: glioma"], ["✗ meningioma", "true: notumor"], ["notumor", "truth unknown"]]
    assert texts[1::2] == [["80.0%", "10.0%", "10.0%"], ["10.0%", "80.0%", "10.0%"], ["10.0%", "10.0%", "80.0%"]]
    assert [tick.get_text() for tick in figure.axes[1].get_yticklabels()] == list(LABELS)


def test_scan_page_takes_scans_of_any_shape_and_at_most_24_of_them() -> None:
    figure, title = drawn(figures.scan_page, [entry("glioma", 0, (9, 40))] * 30, LABELS)
    assert len(figure.axes) == 2 * 24
    assert title.startswith("24 scans")
    with pytest.raises(InputError, match="at least one scan"):
        figures.scan_page([], LABELS)


def test_many_classes_show_the_most_probable_six() -> None:
    labels = tuple(f"class {k}" for k in range(9))
    given = (0.0, 0.3, 0.0, 0.2, 0.15, 0.0, 0.14, 0.11, 0.1)
    scan = ScanEntry(image=np.zeros((5, 5, 3), np.uint8), truth="class 1", probabilities=given)
    figure, _ = drawn(figures.scan_page, [scan], labels)
    shown = [tick.get_text() for tick in figure.axes[1].get_yticklabels()]
    assert shown == ["class 1", "class 3", "class 4", "class 6", "class 7", "class 8"]


def test_odd_class_names_are_drawn_without_warnings() -> None:
    odd = scores([0, 1, 2], SURE, ("$\\nonsense$", "脑膜瘤\n\u202egnp.", "very " * 20))
    for draw in (figures.confusion_matrix, figures.roc_curves, figures.reliability):
        assert pixels(draw(odd)).size
    ticks = [tick.get_text() for tick in drawn(figures.confusion_matrix, odd)[0].axes[0].get_xticklabels()]
    assert ticks == ["$\\nonsense$", "脑膜瘤\\n\\u202egnp.", "very very very very…"[:19] + "…"]
