"""Lock, ledger, labels, manifests and decoding on a real S3 server."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mribatch.cluster import decoding
from mribatch.errors import InputError, OutputHeld
from mribatch.predictions import ledger, lock
from mribatch.scans.limits import ImageSpec
from mribatch.schema import Reason
from mribatch.sources.labels import labelled
from mribatch.sources.listing import list_scans
from mribatch.stores import uris
from tests.conftest import write_scans
from tests.integration.conftest import fill
from tests.unit.test_ledger import DIGEST, listing, part
from tests.unit.test_lock import Clock, race

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def test_the_lock_is_taken_over_from_a_dead_run_and_not_from_a_living_one(bucket: str) -> None:
    with lock.held(bucket, DIGEST, "one", lease_s=30) as first:
        clock = Clock()
        with lock.held(bucket, DIGEST, "two", lease_s=30, clock=clock, sleep=clock.sleep) as second:
            assert (second.generation, clock.now >= 30) == (2, True)
            with pytest.raises(OutputHeld, match="run one lost"):
                first.check()
            second.check()
            alive = Clock(lambda: uris.put(f"{bucket}/_runs/{DIGEST}.lock-2", b'{"run_id": "two", "beat": 9}'))
            with (
                pytest.raises(OutputHeld, match="run two"),
                lock.held(bucket, DIGEST, "three", lease_s=30, clock=alive, sleep=alive.sleep),
            ):
                pass
    clock = Clock()
    with lock.held(bucket, DIGEST, "four", lease_s=30, clock=clock, sleep=clock.sleep) as fourth:
        assert (fourth.generation, clock.now) == (3, 0)
    assert uris.names(f"{bucket}/_runs") == [f"{DIGEST}.lock-2", f"{DIGEST}.lock-3"]


def test_exactly_one_of_four_simultaneous_runs_gets_the_lock(bucket: str) -> None:
    for turn in range(5):
        assert sorted(race(f"{bucket}/{turn}", winner=1)) == [False, False, False, True]


@pytest.mark.parametrize("folder", ["out", "a b/50%41/ü+#?=[1]"])
def test_a_plan_leaves_out_written_scans_and_verification_removes_stray_parts(bucket: str, folder: str) -> None:
    output, scans = f"{bucket}/{folder}", listing("a", "b", "c")
    assert ledger.plan(scans, output, DIGEST).todo.num_rows == 3
    part(output, "part-1-1.parquet", ["a"])
    planned = ledger.plan(scans, output, DIGEST)
    assert planned.todo["scan_uri"].to_pylist() == ["b", "c"]
    written = part(output, "part-2-2.parquet", ["b", "c"])
    part(output, "part-sleeper-1.parquet", ["c"])
    ledger.verify(planned, output, DIGEST, [written])
    assert ledger.part_names(output, DIGEST) == ["part-1-1.parquet", "part-2-2.parquet"]
    assert ledger.predictions(output, DIGEST, ["scan_uri"])["scan_uri"].to_pylist() == ["a", "b", "c"]
    again = ledger.plan(scans, output, DIGEST)
    assert (again.done, again.todo.num_rows) == (3, 0)
    place = ledger.write_record(output, "run", {"run_id": "run"})
    assert json.loads(uris.read(place)) == {"run_id": "run"}


def test_class_folders_are_labels_and_an_empty_one_is_an_error(bucket: str, s3_client: "S3Client") -> None:
    write_scans(f"{bucket}/data", {"glioma": 2, "no tumor": 2})
    fill(bucket, "data/README.md", "database/x.jpg")
    rows = labelled(f"{bucket}/data/").to_pylist()
    assert [(uris.relative(row["scan_uri"], f"{bucket}/data"), row["label"]) for row in rows] == [
        ("glioma/glioma_0000.png", "glioma"),
        ("glioma/glioma_0001.jpg", "glioma"),
        ("no tumor/no tumor_0000.png", "no tumor"),
        ("no tumor/no tumor_0001.jpg", "no tumor"),
    ]
    s3_client.put_object(Bucket=bucket.removeprefix("s3://"), Key="data/pituitary/")
    with pytest.raises(InputError, match="data/pituitary"):
        labelled(f"{bucket}/data")


def test_a_manifest_lists_relative_and_absolute_uris(bucket: str, tmp_path: Path) -> None:
    fill(bucket, "lists/a.jpg", "scans/b c.jpg", "scans/c.jpg")
    (tmp_path / "d.jpg").write_bytes(b"d")
    rows = f"uri,label\n./a.jpg,x\n../scans/b c.jpg,y\n{bucket}/scans/c.jpg,y\n{tmp_path}/d.jpg,x\n"
    uris.put(f"{bucket}/lists/m.csv", rows.encode())
    listed = labelled(f"{bucket}/lists/m.csv")["scan_uri"].to_pylist()
    names = ("lists/a.jpg", "scans/b c.jpg", "scans/c.jpg")
    assert listed == [f"{tmp_path}/d.jpg", *(f"{bucket}/{name}" for name in names)]


def test_scans_are_decoded_or_rejected_with_their_reason(bucket: str) -> None:
    good, changed, deleted = write_scans(bucket, {"a": 3})
    table = list_scans([bucket])
    uris.put(changed, b"other")
    uris.delete(deleted)
    rows = decoding.decode_table(table, spec=ImageSpec(side_px=16)).to_pylist()
    reasons = {row["scan_uri"]: row["reason"] for row in rows}
    assert reasons == {good: None, changed: Reason.CHANGED, deleted: Reason.VANISHED}
