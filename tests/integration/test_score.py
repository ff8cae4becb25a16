"""`score` on a real Ray session: always one row per scan, and no scan is scored twice."""

import json
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mribatch import schema
from mribatch.commands.score import Scored, score
from mribatch.errors import OutputHeld
from mribatch.models.engine import library
from mribatch.models.format import Model
from mribatch.models.predictor import Predictor
from mribatch.predictions import ledger, lock
from mribatch.settings.score import ScoreConfig
from mribatch.stores import uris
from tests.frames import decode

pytestmark = pytest.mark.usefixtures("ray_session")

ScanFolder = Callable[..., list[str]]


def run(model: Model, scans: Path | str, output: Path | str, **settings: object) -> Scored:
    return score(ScoreConfig(model=model.uri, input=(str(scans),), output=str(output), part_rows=8, **settings))  # type: ignore[arg-type]


@pytest.fixture
def scans(tmp_path: Path, scan_folder: ScanFolder) -> Path:
    scan_folder(tmp_path / "scans", {"glioma": 20, "notumor": 20})
    return tmp_path / "scans"


@dataclass(frozen=True)
class Done:
    """40 scans and the output of a run on them. Tests must not change it."""

    scans: Path
    output: Path
    scored: Scored

    def copy(self, folder: Path) -> Path:
        shutil.copytree(self.output, folder / "copy")
        return folder / "copy"


@pytest.fixture(scope="module")
def done(
    ray_session: None,  # noqa: ARG001
    tiny_model: Model,
    tmp_path_factory: pytest.TempPathFactory,
    scan_folder: ScanFolder,
) -> Done:
    root = tmp_path_factory.mktemp("done")
    scan_folder(root / "scans", {"glioma": 20, "notumor": 20})
    return Done(root / "scans", root / "out", run(tiny_model, root / "scans", root / "out"))


def test_every_scan_gets_exactly_one_row_that_any_parquet_reader_reads(tiny_model: Model, done: Done) -> None:
    output, scored = done.output, done.scored
    assert (scored.exit_code, scored.planned, scored.listed) == (0, 40, 40)
    frame = pd.read_parquet(output)
    assert sorted(frame["scan_uri"]) == sorted(str(path) for path in done.scans.rglob("*.*"))
    assert set(frame["status"]) == {"ok"}
    columns = "count(*), count(distinct scan_uri), max(abs(p_glioma + p_notumor - 1))"
    rows, distinct, deviation = duckdb.sql(f"select {columns} from '{output}/*/*.parquet'").fetchall()[0]
    assert (rows, distinct) == (40, 40)
    assert deviation < 1e-5
    part = next(output.glob("model=*/part-*.parquet"))
    assert pq.read_schema(part).equals(schema.prediction_schema(tiny_model.labels), check_metadata=False)
    assert pq.read_schema(part).metadata[b"mribatch.schema"] == schema.SCHEMA_VERSION.encode()


def test_predictions_are_those_of_the_model_on_the_scan_itself(tiny_model: Model, done: Done) -> None:
    frame = pd.read_parquet(done.output).set_index("scan_uri")
    predictor = Predictor(tiny_model.uri)
    for uri in sorted(frame.index)[::7]:
        pixels = decode(Path(uri).read_bytes(), tiny_model.image_spec).pixels
        assert pixels is not None
        expected = predictor.probabilities(pixels[np.newaxis])[0]
        np.testing.assert_allclose(frame.loc[uri, ["p_glioma", "p_notumor"]].to_numpy(float), expected, atol=1e-5)
        assert frame.loc[uri, "predicted_class"] == tiny_model.labels[int(expected.argmax())]
        assert frame.loc[uri, "confidence"] == pytest.approx(expected.max(), abs=1e-5)


def test_a_run_keeps_its_limit_and_later_runs_score_only_what_is_new_or_changed(
    tiny_model: Model, scans: Path, tmp_path: Path, scan_folder: ScanFolder
) -> None:
    output = tmp_path / "out"
    assert run(tiny_model, scans, output, limit=10).planned == 10
    rest = run(tiny_model, scans, output)
    assert (rest.planned, rest.done) == (30, 10)
    again = run(tiny_model, scans, output)
    assert (again.planned, again.done, again.exit_code) == (0, 40, 0)
    scan_folder(scans / "new", {"glioma": 3})
    changed = next(iter(sorted(scans.glob("glioma/*"))))
    Image.new("L", (50, 40), 77).save(changed, "PNG")
    grown = run(tiny_model, scans, output)
    assert (grown.planned, grown.done) == (4, 39)
    frame = pd.read_parquet(output)
    assert len(frame) == 44
    assert len(frame[frame["scan_uri"] == str(changed)]) == 2, "a replaced scan keeps the row of its old version"


def _png_of_20000_px() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write_odd_files(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Write files of many kinds into a folder. Return the status and reason that each must get."""
    folder.mkdir(parents=True)
    grey = Image.effect_noise((64, 64), 80)
    good = folder / "good.jpg"
    grey.save(good)
    intact = good.read_bytes()
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(intact[: len(intact) // 2])
    (folder / "page.jpg").write_bytes(b"<!DOCTYPE html><html><body>not found</body></html>")
    grey.save(folder / "really_a_png.jpg", "PNG")
    Image.new("L", (1, 1)).save(folder / "tiny.png")
    (folder / "huge.png").write_bytes(_png_of_20000_px())
    frames = [Image.new("L", (64, 64), shade) for shade in (0, 128, 255)]
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    grey.convert("CMYK").save(folder / "print.jpg")
    Image.fromarray((np.arange(4096, dtype=np.uint16) * 16).reshape(64, 64)).save(folder / "deep.png")
    (folder / "notes.txt").write_text("a note about a scan\n")
    (folder / "random.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    return dict.fromkeys(("good.jpg", "really_a_png.jpg", "print.jpg", "deep.png"), ("ok", None)) | {
        "zero.jpg": ("rejected", "empty"),
        "truncated.jpg": ("rejected", "truncated"),
        "page.jpg": ("rejected", "not_an_image"),
        "tiny.png": ("rejected", "too_small"),
        "huge.png": ("rejected", "too_large"),
        "moving.png": ("rejected", "multiple_frames"),
        "moving.gif": ("rejected", "unsupported_format"),
        "notes.txt": ("rejected", "not_an_image"),
        "random.bin": ("rejected", "not_an_image"),
    }


def test_each_kind_of_odd_file_gets_one_row_with_the_right_reason(
    tiny_model: Model, scans: Path, tmp_path: Path
) -> None:
    expected = write_odd_files(scans / "bad")
    scored = run(tiny_model, scans, tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out")
    bad = frame[frame["scan_uri"].str.contains("/bad/")]
    got = {Path(r.scan_uri).name: (r.status, None if pd.isna(r.reason) else r.reason) for r in bad.itertuples()}
    assert got == expected
    assert len(frame) == 40 + len(expected)
    assert scored.exit_code == 3, "9 of 53 are more than 5%"
    assert frame.loc[frame["status"] == "rejected", ["predicted_class", "confidence", "p_glioma"]].isna().all(axis=None)
    assert replace(scored, max_reject_rate=0.5).exit_code == 0
    record = json.loads((tmp_path / "out" / "_runs" / f"{scored.run_id}.json").read_text())
    assert record["plan"] == {"listed": 53, "done": 0, "planned": 53}
    assert record["counts"] == {"ok": 44, "rejected": 9, "skipped": 0, "failed": 0, "left": 0}
    assert record["rejected_by_reason"] == dict(Counter(reason for _, reason in expected.values() if reason))
    assert sum(part["rows"] for part in record["parts"]) == 53
    assert {part["name"] for part in record["parts"]} == {p.name for p in (tmp_path / "out").glob("model=*/*")}
    assert sum(node["scans"] for node in record["nodes"]) == 53
    assert record["engine"] == {"name": "openvino", "version": library("openvino")}
    assert set(record["peak_memory_bytes"]) == {"driver", "decoder", "predictor", "writer"}


def test_a_folder_of_bad_files_only_is_scored_without_a_single_prediction(tiny_model: Model, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number in range(3):
        (tmp_path / "scans" / f"{number}.jpg").write_bytes(b"nothing")
    assert run(tiny_model, tmp_path / "scans", tmp_path / "out").exit_code == 3
    assert pd.read_parquet(tmp_path / "out")["reason"].tolist() == ["not_an_image"] * 3


def test_disk_and_s3_give_the_same_rows(tiny_model: Model, done: Done, bucket: str) -> None:
    scans = done.scans
    for path in scans.rglob("*.*"):
        uris.put(f"{bucket}/scans/{path.relative_to(scans)}", path.read_bytes())
    for name in uris.names(tiny_model.uri):
        uris.put(f"{bucket}/model/{name}", uris.read(uris.join(tiny_model.uri, name)))
    on_s3 = score(ScoreConfig(model=f"{bucket}/model", input=(f"{bucket}/scans",), output=f"{bucket}/out", part_rows=8))
    assert (on_s3.planned, on_s3.exit_code) == (40, 0)
    wanted = ["scan", "content_sha256", "status", "predicted_class", "p_glioma", "p_notumor", "model_digest"]
    ours = ledger.predictions(f"{bucket}/out", tiny_model.digest).to_pandas()
    ours["scan"] = ours["scan_uri"].str.removeprefix(f"{bucket}/scans/")
    disk = pd.read_parquet(done.output)
    disk["scan"] = disk["scan_uri"].str.removeprefix(f"{scans}/")
    left, right = (f[wanted].sort_values("scan", ignore_index=True) for f in (ours, disk))
    pd.testing.assert_frame_equal(left, right, atol=1e-6)
    again = score(ScoreConfig(model=f"{bucket}/model", input=(f"{bucket}/scans",), output=f"{bucket}/out"))
    assert again.planned == 0


def test_duplicate_rows_after_a_crash_are_removed_by_the_next_run(
    tiny_model: Model, done: Done, tmp_path: Path
) -> None:
    output = done.copy(tmp_path)
    part = next(output.glob("model=*/part-*.parquet"))
    (part.parent / f"part-zzz-{part.name.removeprefix('part-')}").write_bytes(part.read_bytes())
    (part.parent / ".part-left.parquet.1234.tmp").write_bytes(b"half")
    assert pd.read_parquet(output)["scan_uri"].duplicated().any()
    assert run(tiny_model, done.scans, output).planned == 0
    frame = pd.read_parquet(output)
    assert len(frame) == frame["scan_uri"].nunique() == 40
    assert not list(part.parent.glob(".*"))


def test_a_second_run_on_a_held_output_is_refused(tiny_model: Model, done: Done, tmp_path: Path) -> None:
    scans, output = done.scans, str(done.copy(tmp_path))
    with lock.held(output, tiny_model.digest, "first", lease_s=5.0), pytest.raises(OutputHeld, match="first"):
        run(tiny_model, scans, output, lease_s=5.0)
    assert run(tiny_model, scans, output).done == 40, "once the lock is released"


def test_a_part_written_by_a_run_that_lost_its_lock_is_removed(
    tiny_model: Model, done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, output = done.scans, tmp_path / "out"
    stray = next(done.output.glob("model=*/part-*.parquet"))
    verify = ledger.verify

    def late(*arguments: object) -> None:
        (output / stray.parent.name / f"part-sleeper-{stray.name}").write_bytes(stray.read_bytes())
        verify(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "verify", late)
    run(tiny_model, scans, output)
    frame = pd.read_parquet(output)
    assert len(frame) == frame["scan_uri"].nunique() == 40
