"""`explain`: overlays lie on the scan as it is shown, and a map that does not point at lesions is not shown."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mribatch.commands import evaluate_report
from mribatch.commands.explain import EXPLANATIONS, Explained, _chosen, explain
from mribatch.errors import ConfigError, InputError
from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.models.pointing import pointing_facts
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.explain import METHODS, ExplainConfig
from mribatch.sources.listing import keys_of, list_scans
from mribatch.statistics.metrics import Scores
from mribatch.statistics.pointing import Pointing
from tests.unit.dicom_files import stack, written
from tests.unit.test_page import Document
from tests.unit.test_saliency import SIDE, brightness_network
from tests.unit.volume_files import as_zip

POINTING = {"bright": Pointing(boxes=50, right=40, centre=10), "dark": Pointing(boxes=50, right=11, centre=10)}


def save_model(folder: Path) -> Model:
    """Save a network that calls bright scans `bright` and dark ones `dark`."""
    weights = folder / "bright.weights.h5"
    brightness_network().save_weights(weights)
    known = {"labels": ["bright", "dark"], "backbone": "cnn", "image_side_px": SIDE}
    return directory.save(str(folder / "bright"), weights, known, "A test's model, {digest}.")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return a model whose maps of `bright` were measured to point, and those of `dark` not to."""
    plain = save_model(tmp_path_factory.mktemp("models"))
    pointing = pointing_facts(plain.digest, {METHODS[0]: POINTING}, "python benchmarks/pointing.py")
    return directory.redescribe(plain, plain.facts | {"pointing": pointing}, "A test's model, {digest}.")


def picture(folder: Path, name: str, *, turned: bool = False) -> None:
    """Write a dark picture, 240 × 120 as shown, with a bright square at its right; turned: stored upright with EXIF."""
    pixels = np.full((120, 240), 2, np.uint8)
    pixels[40:80, 160:200] = 255
    image = Image.fromarray(pixels)
    if turned:
        exif = Image.Exif()
        exif[0x0112] = 6  # shown turned by 90° clockwise
        image.transpose(Image.Transpose.ROTATE_90).save(folder / name, quality=95, exif=exif)
    else:
        image.save(folder / name)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    picture(folder, "a_wide.png")
    picture(folder, "b_turned.jpg", turned=True)
    Image.new("L", (100, 100), 3).save(folder / "c_dark.png")
    (folder / "d_cut.jpg").write_bytes((folder / "b_turned.jpg").read_bytes()[:-200])
    (folder / "e_stack.dcm").write_bytes(written(stack(7)))
    return folder


def explained(model: Model, archive: Path, output: Path, **settings: object) -> Explained:
    given = {"model": model.uri, "input": (str(archive),), "output": str(output), **settings}
    return explain(ExplainConfig(**given))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def result(model: Model, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Explained:
    return explained(model, archive, tmp_path_factory.mktemp("explained"))


def test_the_map_lies_on_the_scan_with_its_own_proportions_and_as_it_is_shown(result: Explained) -> None:
    for explanation in result.explanations[:2]:
        assert explanation.overlay is not None and explanation.peak is not None
        assert explanation.overlay.shape == (176, 352, 3)
        x, y = explanation.peak
        assert 160 / 240 < x < 200 / 240
        assert 40 / 120 < y < 80 / 120
        tinted = np.ptp(explanation.overlay.astype(int), axis=2) > 60
        rows, columns = np.nonzero(tinted)
        assert columns.mean() / 352 == pytest.approx(0.75, abs=0.05)
        assert rows.mean() / 176 == pytest.approx(0.5, abs=0.1)


def test_a_map_that_points_no_better_than_the_centre_is_replaced_by_a_sentence(result: Explained) -> None:
    dark = result.explanations[2]
    assert (dark.predicted_class, dark.overlay, dark.peak) == ("dark", None, None)
    assert dark.picture is not None
    words = "no map, because maps of this class are no better than the centre of the image"
    assert words in Document(Path(result.report).read_text()).text["figcaption"]
    assert "no map: no better than the centre of the image" in result.table()


def test_the_page_gives_the_rate_of_each_class_beside_that_of_the_centre(result: Explained) -> None:
    rows = Document(Path(result.report).read_text()).rows
    assert ["bright", "50", "80.00%", "66.96% to 88.76%", "20.00%", "better than the centre of the image"] in rows
    assert ["dark", "50", "22.00%", "12.75% to 35.24%", "20.00%", "no better than the centre of the image"] in rows


def test_the_table_has_a_row_per_frame_with_the_peak_of_what_is_shown(result: Explained) -> None:
    folder = Path(result.report).parent
    table = pq.read_table(folder / "explanations.parquet")
    assert table.schema.equals(EXPLANATIONS)
    wide, _, dark, cut, _ = table.to_pylist()
    assert (wide["predicted_class"], wide["verdict"], wide["width_px"]) == ("bright", "beats_centre", 240)
    assert wide["peak_x"] == pytest.approx(0.75, abs=0.08)
    assert Image.open(folder / wide["overlay"]).size == (352, 176)
    assert (dark["verdict"], dark["peak_x"], dark["overlay"]) == ("no_better", None, None)
    assert (cut["status"], cut["reason"], cut["verdict"]) == ("rejected", "truncated", None)


def test_a_scan_that_cannot_be_read_is_named_with_its_reason(result: Explained) -> None:
    assert any(row[0].endswith("d_cut.jpg") and row[1] == "rejected: truncated" for row in _rows(result))
    assert "rejected: truncated" in result.table()


def _rows(result: Explained) -> list[list[str]]:
    return Document(Path(result.report).read_text()).rows


def test_of_a_file_with_several_frames_the_middle_one_is_explained_or_those_that_are_named(
    model: Model, archive: Path, result: Explained, tmp_path: Path
) -> None:
    assert result.explanations[-1].frame == 3
    named = explained(model, archive, tmp_path, scan=("e_stack.dcm", "a_wide.png"), frames=(0, 6, 99))
    assert [(one.scan_uri.rpartition("/")[2], one.frame) for one in named.explanations] == [
        ("e_stack.dcm", 0),
        ("e_stack.dcm", 6),
        ("a_wide.png", 0),
    ]


def test_maps_are_shown_with_a_warning_if_that_is_wanted(model: Model, archive: Path, tmp_path: Path) -> None:
    (dark,) = explained(model, archive, tmp_path, scan=("c_dark.png",), show_unproven=True).explanations
    assert dark.overlay is not None

    captions = Document((tmp_path / "explanations.html").read_text()).text["figcaption"]
    assert ": maps of this class are no better than the centre of the image" in captions


def test_without_measured_rates_no_map_is_shown_and_the_page_says_so(tmp_path: Path, archive: Path) -> None:
    unmeasured = save_model(tmp_path)
    (wide,) = explained(unmeasured, archive, tmp_path / "out", scan=("a_wide.png",)).explanations
    assert wide.overlay is None
    text = Document((tmp_path / "out" / "explanations.html").read_text())
    assert "maps of this class are not measured" in text.text["figcaption"]
    assert ["bright", "0", "–", "–", "–", "not measured"] in text.rows


def test_the_worst_mistakes_of_an_evaluation_are_explained_if_maps_of_their_answers_point(
    model: Model, archive: Path, tmp_path: Path
) -> None:
    (scan,) = [key for key in keys_of(list_scans((str(archive),))) if key[0].endswith("a_wide.png")]
    rows = pa.table({"scan_uri": [scan[0]] * 2, "scan_version": [scan[1]] * 2, "frame": [0, 0]})
    scores = Scores(labels=model.labels, truth=np.array([1, 0]), probabilities=np.array([[0.9, 0.1], [0.2, 0.8]]))
    config = EvaluateConfig(model=model.uri, data=str(archive), output=str(tmp_path))
    (entry,) = evaluate_report._maps(config, model, scores, rows)
    assert entry.caption.startswith("bright (") and entry.caption.endswith(", labelled dark")
    assert [picture.caption.rpartition("/")[2] for picture in entry.pictures] == ["a_wide.png", "its map"]


def names(archive: Path, **settings: object) -> list[str]:
    """Return the names of the scans that these settings choose."""
    given = {"model": "m", "input": (str(archive),), "output": "o", **settings}
    chosen = _chosen(keys_of(list_scans((str(archive),))), ExplainConfig(**given))  # type: ignore[arg-type]
    return [uri.rpartition("/")[2] for uri, _ in chosen]


def test_a_limit_spreads_over_the_listing(archive: Path) -> None:
    assert names(archive, limit=3) == ["a_wide.png", "c_dark.png", "e_stack.dcm"]


def test_scans_are_named_by_their_uri_or_its_end_and_a_wrong_name_gets_a_suggestion(archive: Path) -> None:
    assert names(archive, scan=(str(archive / "c_dark.png"), "a_wide.png")) == ["c_dark.png", "a_wide.png"]
    for name, words in (("a_wide.pgn", r"did you mean a_wide\.png"), ("q", "give a URI, or the end of one")):
        with pytest.raises(InputError, match=f"--scan {name} is none of the 5 scans of --input: {words}"):
            names(archive, scan=(name,))


def test_if_nothing_can_be_explained_the_reason_is_given(model: Model, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of the 1 chosen scans can be explained \(truncated\)"):
        explained(model, archive, tmp_path, scan=("d_cut.jpg",))


def test_an_archive_is_not_explained_and_ends_nothing(model: Model, archive: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(archive / "a_wide.png", scans)
    (scans / "b.zip").write_bytes(as_zip({"a.png": (archive / "a_wide.png").read_bytes()}))
    wide, packed = explained(model, scans, tmp_path / "out").explanations
    assert wide.overlay is not None
    assert (packed.status, packed.reason, packed.detail) == (
        "rejected",
        "multiple_frames",
        "archives are not read here: unpack it",
    )


def test_a_name_that_too_many_scans_end_with_is_refused(tmp_path: Path) -> None:
    for number in range(501):
        (tmp_path / f"{number:03d}").mkdir()
        (tmp_path / f"{number:03d}" / "a.png").touch()
    with pytest.raises(InputError, match="--scan names 501 scans, more than the 500 pictures"):
        names(tmp_path, scan=("a.png",))


def test_a_page_of_too_many_pictures_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 500 pictures for one page, got 600"):
        ExplainConfig(model="m", input=("i",), output="o", limit=200, frames=(1, 2, 3))
