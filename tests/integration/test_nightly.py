"""`nightly` on a growing archive: it scores exactly what is due, completes stopped nights, and alarms when it should."""

import json
import os
import random
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import mribatch
from mribatch.commands import nightly as module
from mribatch.commands.compact import compact
from mribatch.commands.nightly import Done, Forecast, nightly
from mribatch.commands.read_predictions import read_predictions
from mribatch.commands.score import score
from mribatch.errors import OutputHeld, StorageFull
from mribatch.models import directory
from mribatch.predictions import ledger, lock
from mribatch.settings.score import CompactConfig, NightlyConfig, ScoreConfig
from mribatch.stores import uris
from tests.conftest import ROOT, make_model, write_scans

pytestmark = pytest.mark.usefixtures("ray_session")

Scans = set[str]


@dataclass
class Place:
    """A root folder with an archive, two models with CURRENT, and an output."""

    root: Path

    @property
    def scans(self) -> Path:
        return self.root / "scans"

    @property
    def output(self) -> str:
        return str(self.root / "out")

    def current(self, name: str) -> None:
        (self.root / "models" / "CURRENT").write_text(f"{name}\n")

    def add(self, label: str, count: int) -> list[str]:
        return write_scans(self.scans, {label: count})

    def night(self, **changes: Any) -> Done:
        done = self.run(**changes)
        assert isinstance(done, Done)
        return done

    def run(self, **changes: Any) -> Done | Forecast:
        flags = {"model": str(self.root / "models"), "input": (str(self.scans),), "output": self.output}
        return nightly(NightlyConfig(**{**flags, "max_drift": 100.0, **changes}))

    def rows_of(self, done: Done) -> list[str]:
        table = ledger.predictions(self.output, done.scored.digest, ["scan_uri", "run_id"])
        return sorted(table.filter(pc.equal(table["run_id"], done.scored.run_id))["scan_uri"].to_pylist())


@pytest.fixture
def place(tmp_path: Path, models: Path) -> Place:
    shutil.copytree(models, tmp_path / "models")
    place = Place(tmp_path)
    place.current("first")
    return place


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nights") / "models"
    folder.mkdir()
    seeds = {"first": 3, "second": 0}  # random weights, but `first` tells dark scans from bright ones
    for name, seed in seeds.items():
        make_model(folder / name, seed=seed)
    return folder


def replace(uri: str, by: str) -> None:
    data = Path(by).read_bytes()
    Path(uri).write_bytes(data + b"replaced")  # another size, so another version


def test_five_nights_score_exactly_what_is_new_changed_or_not_scored_by_the_new_model(place: Place) -> None:
    nights: list[tuple[Any, ...]] = []

    def check(what: str, expected: list[str], done: Done, skipped: int, **planned: int) -> None:
        assert place.rows_of(done) == sorted(expected), what
        assert dict(done.night.tally.planned) == {"new": 0, "changed": 0, "backfill": 0, **planned}
        assert done.scored.done == skipped
        tally = done.night.tally
        counts = (*tally.planned.values(), len(place.rows_of(done)), skipped, tally.vanished)
        nights.append((len(nights) + 1, what, *counts))

    first = place.add("glioma", 12)
    check("12 scans", first, place.night(), 0, new=12)

    more = place.add("notumor", 6)
    broken = place.scans / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no more")
    done = place.night()
    check("6 scans added, and a corrupted one", [*more, str(broken)], done, 12, new=7)
    assert sum(done.scored.rejected.values()) == 1

    replace(first[0], by=more[0])
    Path(first[1]).unlink()
    late = place.add("late", 2)
    done = place.night()
    check("2 scans added, 1 replaced, 1 deleted", [first[0], *late], done, 17, new=2, changed=1)
    assert done.night.tally.vanished == 1

    place.current("second")
    listed = [uri for uri in [*first, *more, *late, str(broken)] if uri != first[1]]
    newest = place.add("newest", 1)
    done = place.night(limit=5)
    oldest = first[2:6]
    check("1 scan added, new model, limit of 5", [*newest, *oldest], done, 0, new=1, backfill=4)
    assert f"{len(listed) - 4} scans, for the next run" in Path(done.report).read_text()
    assert re.search(rf"left for the next run +{len(listed) - 4}\n", done.table())
    done = place.night()
    check(
        "none; the backfill continues", [uri for uri in listed if uri not in oldest], done, 5, backfill=len(listed) - 4
    )

    check("none", [], place.night(), len(listed) + 1)
    place.current("first")
    check("back to the first model", newest, place.night(), len(listed), backfill=1)
    _write_table(nights)


HEAD = """# What each night scored

Written by `make nights`, from the test that checks every scan of these nights.

| night | changes since the night before | new | changed | backfill | scored | skipped | vanished |
|---|---|---|---|---|---|---|---|
"""


def _write_table(nights: list[tuple[Any, ...]]) -> None:
    """Write docs/nights.md if NIGHTS_TABLE names that file."""
    if os.environ.get("NIGHTS_TABLE"):
        rows = "".join(f"| {' | '.join(map(str, night))} |\n" for night in nights)
        Path(os.environ["NIGHTS_TABLE"]).write_text(HEAD + rows)


def test_a_night_stopped_by_its_deadline_is_completed_by_the_next_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = place.add("glioma", 24)
    monkeypatch.setattr(module, "next_time", lambda *_: datetime.now(UTC))
    stopped = place.night(deadline="06:00")
    assert (stopped.scored.left, place.rows_of(stopped), stopped.exit_code) == (24, [], 0)
    assert stopped.night.tally.left_over == 24
    assert "24 scans left over" in Path(stopped.report).read_text()
    monkeypatch.setattr(module, "next_time", lambda *_: datetime.now(UTC) + timedelta(days=1))
    done = place.night(deadline="06:00", timezone="Europe/Paris")
    assert place.rows_of(done) == scans
    assert done.night.deadline is not None


def test_a_night_that_ends_before_its_report_is_reported_by_the_next_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise StorageFull("no space left")

    place.add("glioma", 3)
    with monkeypatch.context() as patch, pytest.raises(StorageFull):
        patch.setattr("mribatch.commands.nightly.night_page", full)
        place.night()
    assert place.night().night.tally.planned["interrupted"] == 3
    assert "interrupted" not in place.night().night.tally.planned


def test_the_second_of_two_overlapping_nights_is_refused(place: Place) -> None:
    place.add("glioma", 2)
    digest = directory.load_model(str(place.root / "models")).digest
    with lock.held(place.output, digest, "the-other", lease_s=2), pytest.raises(OutputHeld, match="the-other"):
        place.night()


def test_an_ordinary_night_raises_no_alarm_and_one_with_shifted_scans_does(place: Place) -> None:
    place.add("glioma", 60)
    for _ in range(2):
        assert place.night(max_drift=0.25, limit=30).night.alarms == ()
    for path in write_scans(place.root / "source", {"glioma": 30}):
        _darken(path, place.scans / f"dark_{Path(path).name}")
    for number in range(8):
        (place.scans / f"{number}.jpg").write_bytes(b"no scan")
    shifted = place.night(max_drift=0.25, max_reject_rate=0.125)
    assert shifted.exit_code == 5
    rejects, mix = shifted.night.alarms
    assert "8 of 38" in rejects
    assert "more than 12.5%" in rejects
    assert "class mix" in mix


@pytest.mark.slow
def test_ten_ordinary_nights_of_any_size_raise_no_alarm(place: Place) -> None:
    rng, pool = random.Random(8), write_scans(place.root / "pool", {"glioma": 150, "notumor": 150})
    place.add("glioma", 40)
    place.add("notumor", 40)
    assert place.night(max_drift=0.25).exit_code == 0
    for night in range(10):
        tonight = rng.sample(pool, rng.randint(10, 60))
        for number, uri in enumerate(tonight):
            folder = place.scans / f"night-{night}"
            folder.mkdir(exist_ok=True)
            shutil.copy(uri, folder / f"{number}{Path(uri).suffix}")
        done = place.night(max_drift=0.25)
        assert len(place.rows_of(done)) == len(tonight)
        assert (done.exit_code, list(done.night.alarms)) == (0, []), f"night {night} with {len(tonight)} scans"


def _darken(source: str, target: Path) -> None:
    from PIL import Image

    Image.open(source).point(lambda value: value // 6).save(target)


@dataclass
class ThreeNights:
    """An archive after three nights: a scan was replaced and one deleted before the second, a new model used in the third."""

    place: Place
    scans: list[str]
    last: Done


@pytest.fixture(scope="module")
def three_nights(ray_session: None, models: Path, tmp_path_factory: pytest.TempPathFactory) -> ThreeNights:  # noqa: ARG001
    place = Place(tmp_path_factory.mktemp("three"))
    shutil.copytree(models, place.root / "models")
    place.current("first")
    scans = place.add("glioma", 12)
    place.night(part_rows=1, batch_size=1)
    replace(scans[0], by=scans[1])
    Path(scans[2]).unlink()
    (place.scans / "empty.jpg").write_bytes(b"")
    place.night()
    place.current("second")
    return ThreeNights(place, scans, place.night(report=str(place.root / "report")))


def test_the_report_of_a_night_says_what_happened(three_nights: ThreeNights) -> None:
    place = three_nights.place
    report = json.loads((place.root / "report" / "nightly.json").read_text())
    assert report["tally"]["planned"] == {"new": 0, "changed": 0, "backfill": 12}
    assert [reject["reason"] for reject in report["rejects"]] == ["empty"]

    def classes(model: str) -> dict[str, str]:
        rows = read_predictions(place.output, model=str(place.root / "models" / model))
        return dict(zip(rows["scan_uri"].to_pylist(), rows["predicted_class"].to_pylist(), strict=True))

    first, second = classes("first"), classes("second")
    assert {change["scan_uri"] for change in report["changes"]} == {uri for uri in second if first[uri] != second[uri]}
    assert {change["why"] for change in report["changes"]} <= {"model"}
    page = (place.root / "report" / "nightly.html").read_text()
    assert "empty" in page
    listed = [work["scan_uri"] for work in report["worklist"]]
    assert sorted(listed) == sorted(uri for uri, name in second.items() if name), (
        "a short night lists each of its scans once"
    )
    assert page.count('<img src="data:image/png') == len(listed), "a picture of each scan of the worklist"
    assert [trend["name"] for trend in report["trends"]][:2] == ["Scans scored", "Scans per second"]
    assert len(report["nights"]) == 3
    index = (Path(place.output) / "_runs" / "index.html").read_text()
    assert index.count(">night</a>") == 2, "the third night has its report elsewhere"
    assert index.count('.json">') == 3
    assert three_nights.last.report.endswith("nightly.html")


def test_read_predictions_returns_the_newest_row_of_each_scan_as_does_the_query_in_the_manual(
    three_nights: ThreeNights,
) -> None:
    place, deleted = three_nights.place, three_nights.scans[2]
    newest = mribatch.read_predictions(place.output)
    first, second = (directory.load_model(str(place.root / "models" / name)).digest for name in ("first", "second"))
    digests = dict(zip(newest["scan_uri"].to_pylist(), newest["model_digest"].to_pylist(), strict=True))
    assert len(digests) == newest.num_rows == 13
    assert {uri for uri, digest in digests.items() if digest == first} == {deleted}, "rows of deleted scans are kept"
    assert set(digests.values()) == {first, second}
    seen_at = dict(zip(newest["scan_uri"].to_pylist(), newest["seen_at"].to_pylist(), strict=True))
    assert seen_at.pop(deleted) < min(seen_at.values())
    assert len(set(seen_at.values())) == 1
    assert read_predictions(place.output, model=str(place.root / "models")).num_rows == 12
    assert read_predictions(place.output, latest=False).num_rows == 12 + 2 + 12
    (query,) = re.findall(r"```sql run\n(select p\.\*.*?)```", (ROOT / "docs" / "nightly.md").read_text(), re.DOTALL)
    query = query.replace("'out/predictions/", f"'{place.output}/")
    selected = duckdb.sql(query).to_arrow_table().sort_by("scan_uri")
    for name in ("scan_uri", "scan_version", "model_digest", "run_id", "seen_at", "confidence"):
        assert selected[name].to_pylist() == newest[name].to_pylist()


def test_compaction_deletes_old_rows_and_keeps_the_newest_of_each_scan(
    three_nights: ThreeNights, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    shutil.copytree(three_nights.place.output, output)
    newest = read_predictions(output)
    models = three_nights.place.root / "models"
    first, second = (directory.load_model(str(models / name)).digest for name in ("first", "second"))
    parts = len([*Path(output).glob(f"model={first}/*.parquet")])
    assert parts > 2, "the first model has parts of two nights"
    assert compact(CompactConfig(output=output)).models == {first: (parts, 1, 0), second: (1, 1, 0)}
    assert read_predictions(output, latest=False).num_rows == 26
    assert compact(CompactConfig(output=output, keep_models=1)).models == {first: (1, 1, 13), second: (1, 1, 0)}
    assert read_predictions(output).equals(newest)


def test_a_dry_run_forecasts_scans_and_seconds_and_changes_nothing(three_nights: ThreeNights, tmp_path: Path) -> None:
    place, output = three_nights.place, tmp_path / "out"
    forecast = place.run(output=str(output), dry_run=True)
    assert isinstance(forecast, Forecast)
    assert (forecast.planned, forecast.seconds) == ({"new": 12, "changed": 0, "backfill": 0}, None)
    assert not output.exists()
    before = sorted(Path(place.output).rglob("*"))
    forecast = place.run(dry_run=True, full=True)
    assert isinstance(forecast, Forecast)
    assert sum(forecast.planned.values()) == 12
    assert forecast.seconds is not None
    assert sorted(Path(place.output).rglob("*")) == before


def test_a_dry_run_forecasts_from_the_seconds_of_an_earlier_score(place: Place) -> None:
    place.add("glioma", 6)
    flags: dict[str, Any] = {"model": str(place.root / "models"), "input": (str(place.scans),), "output": place.output}
    scored = score(ScoreConfig(**flags, limit=4))
    assert re.search(r"left for the next run +2\n", scored.table())
    forecast = place.run(dry_run=True)
    assert isinstance(forecast, Forecast)
    assert forecast.planned == {"new": 2, "changed": 0, "backfill": 0}
    assert forecast.seconds == pytest.approx(2 * scored.seconds / 4, rel=0.01)
    assert "by one earlier run of this model" in forecast.table()
    place.current("second")
    assert "by one earlier run of other models" in place.run(dry_run=True).table()


def test_a_full_night_replaces_the_old_rows(three_nights: ThreeNights, tmp_path: Path) -> None:
    place, output = three_nights.place, tmp_path / "out"
    shutil.copytree(place.output, output)
    before = read_predictions(str(output), latest=False)
    done = place.night(output=str(output), full=True)
    assert done.scored.planned == 12
    after = read_predictions(str(output), latest=False)
    assert after["scan_uri"].to_pylist() == before["scan_uri"].to_pylist(), "each scan once, the vanished one too"
    assert after["run_id"].to_pylist().count(done.scored.run_id) == 12


def test_two_nights_with_different_inputs_share_an_output_and_report_only_their_own_vanished_scans(
    place: Place,
) -> None:
    first, second = place.root / "one", place.root / "two"
    scans = {root: write_scans(root, {"glioma": 3, "notumor": 3}) for root in (first, second)}

    def night(*inputs: Path, **changes: Any) -> Done:
        return place.night(input=tuple(map(str, inputs)), **changes)

    for root in (first, second):
        assert night(root).scored.planned == 6
    for root in (first, second, first):
        assert night(root).night.tally.vanished == 0
    Path(scans[first][0]).unlink()
    assert night(second).night.tally.vanished == 0, "the scan of the other input"
    assert night(first, exclude=("glioma",)).night.tally.vanished == 0, "excluded"
    assert night(first, limit=1).night.tally.vanished == 1
    assert night(first).night.tally.vanished == 0, "reported once"
    Path(scans[first][1]).unlink()
    Path(scans[second][1]).unlink()
    assert night(first / "notumor" / "*").night.tally.vanished == 0, "a glob that does not match it"
    assert night(first, second).night.tally.vanished == 2
    rows = mribatch.read_predictions(place.output)
    assert rows.num_rows == 12
    kept = rows.filter(pc.is_in(rows["scan_uri"], pa.array(scans[second][2:])))
    assert len(set(kept["seen_at"].to_pylist())) == 1


def test_a_night_works_on_s3(bucket: str, place: Place) -> None:
    for path in (place.root / "models").rglob("*"):
        if path.is_file():
            uris.put(f"{bucket}/models/{path.relative_to(place.root / 'models')}", path.read_bytes())
    write_scans(f"{bucket}/scans", {"glioma": 4})
    config = NightlyConfig(model=f"{bucket}/models", input=(f"{bucket}/scans",), output=f"{bucket}/out")
    done = nightly(config)
    assert isinstance(done, Done)
    assert done.scored.planned == 4
    assert uris.read(done.report).startswith(b"<!doctype html>")
    again = nightly(config)
    assert isinstance(again, Done)
    assert again.scored.planned == 0
    assert pa.compute.all(pa.compute.is_valid(read_predictions(f"{bucket}/out")["seen_at"])).as_py()
