"""Runs on S3 stores that differ from AWS, and with credentials that expire: exact rows, or an error that says why."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mribatch.models.format import Model
from mribatch.stores import uris
from tests.conftest import as_flags, write_scans
from tests.faults import standard
from tests.faults.conftest import Archive, Behind, Start, Tell
from tests.faults.odd_stores import (
    Asked,
    BillsReaders,
    Both,
    IgnoresConditions,
    OtherChecksums,
    RefusesChunks,
    Store,
    StoresChunks,
    denies,
    expired,
)
from tests.faults.processes import Job, score_flags

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


@pytest.fixture(scope="module")
def scans(s3_client: "S3Client", tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """80 scans on S3, and the output of an undisturbed run on them."""
    place = tmp_path_factory.mktemp("undisturbed")
    s3_client.create_bucket(Bucket="other-stores")
    names = write_scans("s3://other-stores/scans", {"glioma": 40, "notumor": 40}, side_px=48)
    job = Job("score", *score_flags(tiny_model.uri, "s3://other-stores/scans", place / "out"), log=place / "log")
    assert job.end() == 0, (place / "log").read_text()
    return Archive(folder=Path("s3://other-stores/scans"), uris=names, undisturbed=place / "out")


def last_line(job: Job) -> str:
    return job.log.read_text().splitlines()[-1]


SLOW_STORES = [pytest.param(store, marks=pytest.mark.slow) for store in (RefusesChunks, OtherChecksums)]


@pytest.mark.parametrize("store", [StoresChunks, *SLOW_STORES])
def test_a_run_over_https_on_a_store_without_the_newer_checksums_has_exact_rows(
    bucket: str, behind: Behind, scans: Archive, tiny_model: Model, start: Start, tell: Tell, store: Callable[[], Store]
) -> None:
    """The bucket is requester-pays, too, and the certificate is of a private authority."""
    behind(Both(store(), BillsReaders()))
    flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out", "--requester-pays")
    job = start("score", *flags)
    assert job.end() == 0, job.log.read_text()
    with uris.paying(True):
        standard.check(f"{bucket}/out", scans.uris, str(scans.undisturbed))
    fault = f"S3 over https of a private authority: {store.__name__}, requester pays"
    tell(fault, "each request", "80 rows, in one run")


@pytest.mark.slow
def test_credentials_that_expire_during_a_run_end_it_and_the_same_command_completes_it(
    bucket: str, behind: Behind, scans: Archive, tiny_model: Model, start: Start, tell: Tell
) -> None:
    closed = scans.uris[-1].removeprefix("s3:/")
    reads: list[str] = []

    def late(asked: Asked) -> bool:
        reads.extend([asked.path] if asked.method == "GET" and "/scans/" in asked.path else [])
        return len(reads) > 50

    expiring, closing = expired(late), denies(lambda asked: asked.path == closed)
    closing.on = False
    behind(Both(expiring, closing), plain=True)
    flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out")
    job = start("score", *flags)
    assert job.end() == 2, job.log.read_text()
    assert last_line(job).startswith("error: the storage refused the credentials for s3://"), job.log.read_text()
    assert "access key …ting (env)" in last_line(job)
    assert "Traceback" not in job.log.read_text()
    expiring.on, closing.on = False, True
    assert standard.records(f"{bucket}/out") == []
    job = start("score", *flags)
    assert job.end() == 0, job.log.read_text()
    assert "access denied (AccessDenied)" in job.log.read_text()
    assert f"failed: access denied (AccessDenied): {scans.uris[-1]}" in job.log.read_text()
    (record,) = standard.records(f"{bucket}/out")
    assert record["failed_by_cause"] == {"access denied (AccessDenied)": 1}
    closing.on = False
    job = start("score", *flags)
    assert job.end() == 0, job.log.read_text()
    standard.check(f"{bucket}/out", scans.uris, str(scans.undisturbed))
    fault = "S3 refuses the credentials from the 51st read on; then one scan is closed"
    tell(fault, "once each", "80 rows, after two reruns")


@pytest.mark.slow
def test_a_policy_that_denies_everything_during_a_run_ends_it(
    bucket: str, behind: Behind, scans: Archive, tiny_model: Model, start: Start, tell: Tell
) -> None:
    reads: list[str] = []

    def late(asked: Asked) -> bool:
        reads.extend([asked.path] if "/scans/" in asked.path else [])
        return "/scans/" in asked.path and len(reads) > 40

    store = denies(late)
    behind(store, plain=True)
    flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out")
    job = start("score", *flags)
    assert job.end() == 2, job.log.read_text()
    assert "sampled from the whole input" in last_line(job)
    assert "Traceback" not in job.log.read_text()
    store.on = False
    job = start("score", *flags)
    assert job.end() == 0, job.log.read_text()
    standard.check(f"{bucket}/out", scans.uris, str(scans.undisturbed))
    tell("S3 denies every read from the 41st on", "once", "80 rows, after a rerun")


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_two_runs_on_one_output_of_a_store_that_ignores_conditions_are_both_refused(
    bucket: str, behind: Behind, tiny_model: Model, start: Start, tell: Tell, rounds: int
) -> None:
    proxy = behind(IgnoresConditions(), plain=True)
    for _ in range(rounds):
        flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out")
        for job in [start("score", *flags), start("score", *flags)]:
            assert job.end() == 2, job.log.read_text()
            assert last_line(job).startswith(f"error: the store {proxy.address} ignores `If-None-Match")
        assert uris.names(bucket) == []
    fault, dose = (
        "S3 ignores If-None-Match: two runs at once on one output",
        "once" if rounds == 1 else f"{rounds} times",
    )
    tell(fault, dose, "both refused, nothing written")


@pytest.mark.slow
def test_a_training_over_https_of_a_private_authority_writes_its_checkpoints(
    bucket: str, behind: Behind, start: Start, tell: Tell
) -> None:
    behind(Both(RefusesChunks(), OtherChecksums(), BillsReaders()))
    with uris.paying(True):
        write_scans(f"{bucket}/data", {"glioma": 24, "notumor": 24})
    places = as_flags(data=f"{bucket}/data", output=f"{bucket}/models/tiny")
    sizes = as_flags(backbone="cnn", image_side=32, epochs=2, batch_size=8)
    job = start("train", *places, *sizes, "--requester-pays")
    assert job.end() == 0, job.log.read_text()
    with uris.paying(True):
        assert "model.json" in uris.names(f"{bucket}/models/tiny")
        (run,) = uris.folders(f"{bucket}/models/_training")
        assert [name for name in uris.folders(f"{bucket}/models/_training/{run}") if name.startswith("checkpoint_")]
    fault = "training on S3 over https of a private authority, requester pays"
    tell(fault, "each request", "a model and its checkpoints")


@pytest.mark.slow
def test_nodes_of_a_running_cluster_pay_too(
    bucket: str, behind: Behind, scans: Archive, tiny_model: Model, start: Start
) -> None:
    from ray.cluster_utils import Cluster

    behind(BillsReaders(), plain=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=2, object_store_memory=200 << 20)
        flags = score_flags(tiny_model.uri, "s3://other-stores/scans", f"{bucket}/out", "--requester-pays")
        job = start("score", *flags, environment={"RAY_ADDRESS": str(cluster.address)})
        assert job.end() == 0, job.log.read_text()
    finally:
        cluster.shutdown()
    with uris.paying(True):
        standard.check(f"{bucket}/out", scans.uris, str(scans.undisturbed))
