"""An audit on a real Ray session: planted copies, a leak, a picture under two labels, a scan that cannot be read."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mribatch.commands.audit import Audited, audit
from mribatch.errors import InputError
from mribatch.models.format import Model
from mribatch.settings.audit import AuditConfig
from mribatch.sources.labels import labelled
from tests.pictures import ALTERATIONS, head

pytestmark = pytest.mark.usefixtures("ray_session")

CLASSES = ("glioma", "notumor")
SCANS = 12  # of each class, in training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of 24 patients; of four, an altered copy stands in the test split, and of one under the other label."""
    root = tmp_path_factory.mktemp("audited") / "data"
    for number, label in enumerate(CLASSES):
        for split in ("Training", "Testing"):
            (root / split / label).mkdir(parents=True)
        for patient in range(SCANS):
            head(SCANS * number + patient).save(root / "Training" / label / f"{patient:02d}.png")
        for patient in range(100, 104):
            head(SCANS * number + patient).save(root / "Testing" / label / f"{patient:02d}.png")
    testing = root / "Testing" / "glioma"
    for patient, name in enumerate(("mirrored", "20% darker", "cropped by 3% on all sides")):
        ALTERATIONS[name](head(patient)).save(testing / f"copy{patient}.png")
    (testing / "copy3.png").write_bytes((root / "Training" / "glioma" / "03.png").read_bytes())
    ALTERATIONS["recompressed"](head(5)).save(root / "Training" / "notumor" / "copy5.png")
    (root / "Training" / "notumor" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    return root


@pytest.fixture(scope="module")
def output(data: Path) -> Path:
    return data.parent / "out"


@pytest.fixture(scope="module")
def audited(ray_session: None, data: Path, output: Path) -> Audited:  # noqa: ARG001
    return audit(AuditConfig(data=str(data), output=str(output)))


def test_planted_copies_leaks_and_conflicts_are_in_the_numbers(audited: Audited) -> None:
    numbers = audited.numbers
    assert (numbers["scans"], numbers["distinct_pictures"]) == (37, 32)
    assert numbers["pairs"] == {"copy": 1, "mirrored": 1, "altered": 3, "neighbour": 0}
    (leak,) = numbers["leaks"]
    assert (leak["split"], leak["scans"], leak["leaking"]) == ("test", 12, 4)
    assert numbers["two_labels"] == {"pictures": 1, "pairs": 1, "neighbours": 0}
    assert sum(numbers["unreadable"].values()) == 1
    assert audited.exit_code == 0
    assert "test: 4 of 12 scans have a near copy" in audited.table()


def test_the_clusters_name_every_scan_once_and_keep_copies_together(audited: Audited, data: Path, output: Path) -> None:
    assert audited.report == str(output / "audit.html")
    rows = pq.read_table(output / "clusters.parquet").to_pylist()
    cluster = {Path(row["scan_uri"]).relative_to(data).as_posix(): row["cluster"] for row in rows}
    assert len(cluster) == len(rows) == 37
    assert cluster["Training/glioma/00.png"] == cluster["Testing/glioma/copy0.png"]
    assert cluster["Training/glioma/05.png"] == cluster["Training/notumor/copy5.png"]
    pairs = pq.read_table(output / "pairs.parquet").to_pylist()
    ways = {("copy", "upright"), ("mirrored", "left-right"), ("altered", "upright")}
    assert {(pair["kind"], pair["orientation"]) for pair in pairs} == ways
    assert {"scan_uri", "label", "suggested_label"} <= {*pq.read_schema(output / "suspects.parquet").names}
    assert json.loads((output / "audit.json").read_text())["settings"]["data"] == str(data)


def test_the_page_shows_pictures_and_nothing_in_it_is_taken_for_a_scan(audited: Audited, output: Path) -> None:
    page = Path(audited.report).read_text()
    assert page.count("data:image/png;base64,") > 20
    assert "Leaking into test" in page
    assert "built-in method" not in page
    with pytest.raises(InputError):
        labelled(str(output))


def test_a_model_gives_the_features_and_the_page_says_which(tiny_model: Model, data: Path, tmp_path: Path) -> None:
    audited = audit(AuditConfig(data=str(data), output=str(tmp_path), model=tiny_model.uri, max_reject_rate=0.0))
    assert audited.numbers["suspects"]["features"] == f"features of model {tiny_model.digest}"
    assert audited.numbers["distinct_pictures"] >= 32
    assert audited.exit_code == 3, "one scan cannot be read"


def test_scans_that_cannot_be_read_at_all_end_the_run_in_a_sentence(tmp_path: Path) -> None:
    for label in CLASSES:
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "scan.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    config: dict[str, Any] = {"data": str(tmp_path / "data"), "output": str(tmp_path / "out")}
    with pytest.raises(InputError, match="none of the 2 scans"):
        audit(AuditConfig(**config))
