"""DICOM archives through whole runs on a real Ray session: what is scored, skipped, planned again, and never told."""

import io
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from mribatch import schema
from mribatch.cluster.supervisor import ray_logs
from mribatch.commands.evaluate import evaluate
from mribatch.commands.score import Scored, score
from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.scans.jpeg import jpeg_picture
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.score import ScoreConfig
from tests.canaries import FORCED, SECRETS, SERIES_SKIP, canaries
from tests.conftest import ROOT
from tests.integration.test_score import ScanFolder
from tests.unit.dicom_files import (
    SPEC,
    clean,
    compressed,
    difference,
    enhanced,
    picture,
    read,
    stack,
    twins,
    written,
)

pytestmark = pytest.mark.usefixtures("ray_session")

FUNCTIONAL = ["ORIGINAL", "PRIMARY", "FMRI", "NONE"]


def run(model: Model, scans: Path, output: Path, **settings: Any) -> Scored:
    return score(ScoreConfig(model=model.uri, input=(str(scans),), output=str(output), **({"part_rows": 8} | settings)))


def rows(output: Path) -> pd.DataFrame:
    """All rows by a reader that knows nothing of this package."""
    return duckdb.sql(f"select * from read_parquet('{output}/model=*/*.parquet', union_by_name = true)").df()


def fill(folder: Path, files: dict[str, bytes | Dataset]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else written(content))
    return folder


def test_one_picture_in_every_encoding_gets_equal_probabilities(tiny_model: Model, tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(read(clean()).pixels).save(png, "PNG")
    files: dict[str, bytes | Dataset] = {"little.dcm": clean(), "window.png": png.getvalue()}
    files["big.dcm"] = written(clean(), ExplicitVRBigEndian)
    files["frame.dcm"] = enhanced(picture()[np.newaxis], [Dataset()], WindowCenter=2000, WindowWidth=4000)
    for syntax in (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless):
        files[f"{syntax.name.replace(' ', '-').replace('/', '-')}.dcm"] = compressed(syntax)
    lossy = {"lossy-8.dcm": compressed(JPEGBaseline8Bit), "lossy-12.dcm": compressed(JPEGExtended12Bit)}
    assert all(difference(read(data).pixels, read(clean()).pixels) <= 6 for data in lossy.values())
    jpeg = io.BytesIO()
    Image.fromarray(read(clean()).pixels).save(jpeg, "JPEG", quality=98)
    scans = fill(tmp_path / "scans", files | lossy | {"lossy-window.jpg": jpeg.getvalue()})
    scored = run(tiny_model, scans, tmp_path / "out")
    assert (scored.exit_code, scored.scored, scored.planned) == (0, len(files) + 3, len(files) + 3)
    frame = rows(tmp_path / "out")
    is_lossy = frame["scan_uri"].str.contains("/lossy-")
    assert np.ptp(frame.loc[~is_lossy, "p_glioma"]) < 0.001
    assert np.ptp(frame["p_glioma"]) < 0.02
    assert set(frame["window"].dropna()) == {"header"}
    assert frame.loc[frame["format"].isin(["PNG", "JPEG"]), "reading"].isna().all()


def grey_pixels(data: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG, (rows, columns); None where it has colour."""
    pixels = jpeg_picture(data, SPEC).pixels
    if pixels.ndim == 2:
        return pixels
    return pixels[:, :, 0] if (pixels == pixels[:, :, :1]).all() else None


def check_twins(model: Model, jpegs: list[Path], work: Path) -> None:
    """Score JPEGs and their twins, and check that each twin has the class and the probabilities of its JPEG."""
    for number, jpeg in enumerate(jpegs):
        data = jpeg.read_bytes()
        pixels = grey_pixels(data)
        assert pixels is not None
        files: dict[str, bytes | Dataset] = {f"{way}.dcm": dataset for way, dataset in twins(pixels).items()}
        fill(work / "scans" / f"{number:02d}", files | {"scan.jpg": data})
    assert run(model, work / "scans", work / "out", part_rows=256, batch_size=32).exit_code == 0
    frame = rows(work / "out")
    frame["scan"] = frame["scan_uri"].str.split("/").str[-2]
    assert len(frame) == 6 * len(jpegs), "four ways, one of them in two frames, and the JPEG"
    assert set(frame["window"].dropna()) == {"header"}
    assert (frame.groupby("scan")["predicted_class"].nunique() == 1).all()
    probabilities = [name for name in frame.columns if name.startswith("p_")]
    assert (frame.groupby("scan")[probabilities].agg(np.ptp) < 1e-4).all(axis=None)


def test_80_scans_get_the_answers_of_their_jpegs_in_whatever_way_their_pixels_are_stored(
    tiny_model: Model, tmp_path: Path, scan_folder: ScanFolder
) -> None:
    scans = scan_folder(tmp_path / "labelled", {"glioma": 80, "notumor": 80})
    check_twins(tiny_model, [Path(uri) for uri in scans if uri.endswith(".jpg")], tmp_path)


@pytest.mark.slow
def test_80_public_scans_get_the_answers_of_their_jpegs_by_the_shipped_model(tmp_path: Path, shared: Path) -> None:
    chosen = []
    for folder in sorted((shared / "data/brain-tumor-mri/Testing").iterdir()):
        scans = (scan for scan in sorted(folder.iterdir()) if grey_pixels(scan.read_bytes()) is not None)
        chosen += list(islice(scans, 20))
    assert len(chosen) == 80
    check_twins(directory.load_model(str(ROOT / "models" / "brain-mri-v2")), chosen, tmp_path)


def as_today(output: Path) -> None:
    """Rewrite an output as the version before DICOM left it: without its columns, and DICOM files rejected."""
    added = {field.name for field in schema.prediction_schema(())} - set(OLD_COLUMNS)
    for path in output.glob("model=*/part-*.parquet"):
        table = pq.read_table(path)
        old = []
        for row in table.to_pylist():
            if row["format"] == "DICOM":
                nulls = {name: None for name in row if name.startswith("p_")}
                row |= nulls | {"status": "rejected", "reason": "unsupported_format", "predicted_class": None}
                row |= {"detail": "DICOM files are not supported", "format": None, "confidence": None}
            if not row["frame"]:
                old.append({name: value for name, value in row.items() if name not in added})
        names = [name for name in table.column_names if name not in added]
        target = pa.schema([table.schema.field(name) for name in names], {"mribatch.schema": "1"})
        path.unlink()
        name = f"{path.name.rpartition('-')[0]}-{len(old)}.parquet"
        pq.write_table(pa.Table.from_pylist(old, schema=target), path.parent / name)


OLD_COLUMNS = (
    *("scan_uri", "scan_version", "frame", "content_sha256", "status", "reason", "detail", "format", "width_px"),
    *("height_px", "predicted_class", "confidence", "model_digest", "run_id", "scored_at"),
)


def test_an_output_of_an_older_version_is_caught_up_and_then_done_and_another_selection_scores_the_skipped(
    tiny_model: Model, tmp_path: Path, scan_folder: ScanFolder
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "out"
    scan_folder(scans, {"glioma": 3})
    fill(scans, {"t1.dcm": clean(), "many.dcm": stack(40), "fmri.dcm": clean(ImageType=FUNCTIONAL)})
    run(tiny_model, scans, output)
    as_today(output)

    caught_up = run(tiny_model, scans, output)
    assert (caught_up.done, caught_up.planned, caught_up.scored) == (3, 3, 2)
    assert (caught_up.skipped, caught_up.rejected, caught_up.exit_code) == ({"functional": 1}, {}, 0)
    frame = rows(output)
    assert len(frame) == 3 + 1 + 40 + 1
    assert not frame.duplicated(["scan_uri", "frame"]).any()
    skipped = frame[frame["status"] == "skipped"].iloc[0]
    assert (skipped["frame"], skipped["frames"], skipped["kind"]) == (0, 1, "functional")
    assert skipped[["predicted_class", "confidence", "p_glioma", "width_px"]].isna().all()

    assert run(tiny_model, scans, output).planned == 0
    wider = run(tiny_model, scans, output, select="mr")
    assert (wider.planned, wider.scored, wider.done) == (1, 1, 5)
    frame = rows(output)
    assert not frame.duplicated(["scan_uri", "frame"]).any()
    assert set(frame["status"]) == {"ok"}
    assert run(tiny_model, scans, output, select="mr").planned == 0
    assert run(tiny_model, scans, output).planned == 0, "what is scored stays scored"
    other = run(tiny_model, scans, output, window="computed")
    assert (other.planned, other.done) == (3, 3), "another window is another reading of DICOM, not of pictures"
    frame = rows(output)
    assert not frame.duplicated(["scan_uri", "frame"]).any()
    assert set(frame["window"].dropna()) == {"computed"}


def test_the_frames_of_a_scan_are_in_one_part_each_once(tiny_model: Model, tmp_path: Path) -> None:
    scans = fill(tmp_path / "scans", {f"{n}.dcm": stack(n) for n in (70, 33, 32, 5)} | {"single.dcm": clean()})
    scored = run(tiny_model, scans, tmp_path / "out", batch_size=8)
    assert (scored.scored, sum(scored.by_class.values())) == (5, 141)
    places: dict[str, set[str]] = {}
    for path in (tmp_path / "out").glob("model=*/part-*.parquet"):
        for uri in pq.read_table(path)["scan_uri"].to_pylist():
            places.setdefault(uri, set()).add(path.name)
    assert {len(parts) for parts in places.values()} == {1}
    frame = rows(tmp_path / "out")
    for uri, own in frame.groupby("scan_uri"):
        assert sorted(own["frame"]) == list(range(len(own))), uri
        assert set(own["frames"]) == {len(own)}
    record = json.loads(next((tmp_path / "out" / "_runs").glob("*.json")).read_text())
    assert record["counts"]["ok"] == 5


def test_skipped_scans_count_in_no_rate(tiny_model: Model, tmp_path: Path) -> None:
    files: dict[str, bytes | Dataset] = {f"{n}.dcm": clean(ImageType=FUNCTIONAL) for n in range(19)}
    scans = fill(tmp_path / "scans", files | {"t1.dcm": clean()})
    scored = run(tiny_model, scans, tmp_path / "out")
    assert (scored.exit_code, scored.skipped) == (0, {"functional": 19})
    assert "skipped" in scored.table()
    (scans / "cut.dcm").write_bytes(written(clean())[:-2000])
    assert run(tiny_model, scans, tmp_path / "out").exit_code == 3, "one of one new scan is rejected"


def test_nothing_of_a_patient_is_written_anywhere_whatever_becomes_of_the_file(
    tiny_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    scans = fill(tmp_path / "scans", dict(canaries()))
    scored = run(tiny_model, scans, tmp_path / "out", series_skip=SERIES_SKIP, part_rows=64)
    frame = rows(tmp_path / "out")
    assert set(frame["reason"].dropna()) == FORCED
    evaluated = tmp_path / "labelled"
    fill(evaluated / "glioma", {"t1.dcm": clean()})
    fill(evaluated / "notumor", {"many.dcm": stack(3)})
    report = evaluate(EvaluateConfig(model=tiny_model.uri, data=str(evaluated), output=str(tmp_path / "evaluation")))
    assert report.numbers["scans"] == 4, "each frame counts with its file's label"
    texts = [scored.table(), caplog.text, *map(repr, frame.to_dict("records"))]
    for folder in (tmp_path / "out", tmp_path / "evaluation", Path(os.path.realpath(ray_logs()))):
        texts += [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
    secret = (Path(os.environ["XDG_CONFIG_HOME"]) / "mribatch" / "identifier-key").read_text().strip()
    for canary in (*SECRETS, secret):
        assert not any(canary in text for text in texts), canary
    keys = frame[frame["scan_uri"].str.endswith("/clean.dcm")]["patient_key"]
    assert [len(key) for key in keys] == [32]
