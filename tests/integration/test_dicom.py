"""DICOM archives through whole runs on a real Ray session: what is scored, skipped, planned again, and never told."""

import io
import json
import os
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from mribatch import schema
from mribatch.commands.evaluate import evaluate
from mribatch.commands.score import Scored, score
from mribatch.models.format import Model
from mribatch.settings.evaluate import EvaluateConfig
from mribatch.settings.score import ScoreConfig
from tests.integration.test_score import ScanFolder
from tests.unit.dicom_files import (
    CANARY,
    CANARY_DATE,
    CANARY_NUMBER,
    clean,
    compressed,
    enhanced,
    picture,
    read,
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


def many(frames: int, side: int = 64) -> Dataset:
    """An enhanced object whose frames differ."""
    pixels = np.stack([np.roll(picture(side), number, axis=1) for number in range(frames)])
    return enhanced(pixels, [Dataset() for _ in range(frames)], WindowCenter=2000, WindowWidth=4000)


def test_one_picture_in_every_encoding_gets_equal_probabilities(tiny_model: Model, tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(read(clean()).pixels).save(png, "PNG")
    files: dict[str, bytes | Dataset] = {"little.dcm": clean(), "window.png": png.getvalue()}
    files["big.dcm"] = written(clean(), ExplicitVRBigEndian)
    files["frame.dcm"] = enhanced(picture()[np.newaxis], [Dataset()], WindowCenter=2000, WindowWidth=4000)
    for syntax in (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless):
        files[f"{syntax.name.replace(' ', '-').replace('/', '-')}.dcm"] = compressed(syntax)
    scored = run(tiny_model, fill(tmp_path / "scans", files), tmp_path / "out")
    assert (scored.exit_code, scored.scored, scored.planned) == (0, len(files), len(files))
    frame = rows(tmp_path / "out")
    assert np.ptp(frame["p_glioma"]) < 0.001
    assert set(frame["window"].dropna()) == {"header"}
    assert frame.loc[frame["format"] == "PNG", "reading"].isna().all()


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
    fill(scans, {"t1.dcm": clean(), "many.dcm": many(40), "fmri.dcm": clean(ImageType=FUNCTIONAL)})
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
    scans = fill(tmp_path / "scans", {f"{n}.dcm": many(n) for n in (70, 33, 32, 5)} | {"single.dcm": clean()})
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


def test_nothing_of_a_patient_is_written_anywhere_but_in_the_uri(
    tiny_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    scans = fill(
        tmp_path / "scans",
        {
            "t1.dcm": clean(),
            "fmri.dcm": clean(ImageType=FUNCTIONAL),
            "cut.dcm": written(clean())[:-2000],
            "jls.dcm": compressed(JPEGLSLossless)[:-1500],
            "rows.dcm": clean(Rows=65_000, Columns=65_000),
            "bits.dcm": clean(BitsStored=99),
            "skip.dcm": clean(SeriesDescription=f"scout {CANARY}", ProtocolName=None),
            "noname.dcm": written(clean(), has_preamble=False),
        },
    )
    scored = run(tiny_model, scans, tmp_path / "out")
    evaluated = tmp_path / "labelled"
    fill(evaluated / "glioma", {"t1.dcm": clean()})
    fill(evaluated / "notumor", {"many.dcm": many(3)})
    report = evaluate(EvaluateConfig(model=tiny_model.uri, data=str(evaluated), output=str(tmp_path / "evaluation")))
    assert report.numbers["scans"] == 4, "each frame counts with its file's label"
    texts = [scored.table(), caplog.text, *map(repr, rows(tmp_path / "out").to_dict("records"))]
    for folder in ("out", "evaluation"):
        texts += [path.read_bytes().decode("latin-1") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    logs = Path(os.path.realpath("/tmp/ray/session_latest/logs"))
    texts += [path.read_bytes().decode("latin-1") for path in logs.rglob("*") if path.is_file()]
    for canary in (CANARY, CANARY_DATE, CANARY_NUMBER):
        assert not any(canary in text for text in texts), canary
    keys = rows(tmp_path / "out").dropna(subset=["patient_key"])["patient_key"]
    assert len(set(keys)) == 1
    assert len(keys.iloc[0]) == 32
