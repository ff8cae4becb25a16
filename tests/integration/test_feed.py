"""The batches of a training worker on a real Ray session: the right pixels with the right class, in order."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mribatch.cluster import streaming
from mribatch.cluster.session import session
from mribatch.errors import RunFailed
from mribatch.scans.limits import ImageSpec
from mribatch.sources.listing import list_scans
from mribatch.training import augment
from mribatch.training.feed import Feed
from tests.frames import decode

pytestmark = pytest.mark.usefixtures("ray_session")

ScanFolder = Callable[..., list[str]]
SIDE = 32


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, scan_folder: ScanFolder) -> pa.Table:
    """List 90 scans, so that an epoch has several blocks. Each has its own number in place of a class."""
    folder = tmp_path_factory.mktemp("feed")
    scan_folder(folder, {"glioma": 90})
    listed = list_scans([str(folder)])
    return listed.append_column("class_number", pa.array(range(90), pa.int64()))


def feed(training: pa.Table, validation: pa.Table, rank: int = 0) -> Feed:
    return Feed(
        decode=streaming.decoded,
        training=training,
        validation=validation,
        side_px=SIDE,
        batch_scans=8,
        workers=2,
        rank=rank,
        seed=0,
        restart_flag="--run-name",
    )


def test_batches_hold_the_pixels_of_their_scans_in_the_order_of_the_epoch(scans: pa.Table) -> None:
    fed = feed(scans, scans.slice(0, 1))
    batches = list(fed.train(epoch=1))
    assert [len(classes) for _, classes, _ in batches] == [8] * 5
    assert np.concatenate([classes for _, classes, _ in batches]).tolist() == fed.training_rows(1).tolist()
    uris = scans["scan_uri"].to_pylist()
    for pixels, classes, weights in batches:
        assert weights.tolist() == [1.0] * 8
        for image, number in zip(pixels, classes, strict=True):
            expected = decode(Path(uris[number]).read_bytes(), ImageSpec(side_px=SIDE)).pixels
            assert np.array_equal(image, expected)


def test_changed_scans_keep_their_classes_and_are_the_same_when_the_epoch_begins_again(scans: pa.Table) -> None:
    fed = replace(feed(scans, scans.slice(0, 1)), augment=augment.strong)
    plain, first, again = list(feed(scans, scans).train(2)), list(fed.train(2)), list(fed.train(2))
    for one, two, unchanged in zip(first, again, plain, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1].tolist() == two[1].tolist() == unchanged[1].tolist()
        assert (one[0] != unchanged[0]).any()


def test_validation_counts_each_scan_once_and_padding_has_no_weight(scans: pa.Table) -> None:
    ranks = [list(feed(scans, scans.slice(0, 11), rank).validate()) for rank in (0, 1)]
    assert [sum(len(classes) for _, classes, _ in batches) for batches in ranks] == [6, 6]
    weighed = [
        (int(number), float(weight))
        for batches in ranks
        for _, classes, weights in batches
        for number, weight in zip(classes, weights, strict=True)
    ]
    assert sorted(number for number, weight in weighed if weight == 1.0) == list(range(11))
    assert [weight for _, weight in weighed].count(0.0) == 1


def test_a_scan_deleted_after_the_survey_ends_the_epoch_with_one_sentence(
    tmp_path: Path, scan_folder: ScanFolder
) -> None:
    scan_folder(tmp_path, {"glioma": 16})
    listed = list_scans([str(tmp_path)])
    Path(listed["scan_uri"][3].as_py()).unlink()
    table = listed.append_column("class_number", pa.array([0] * 16, pa.int64()))
    with pytest.raises(RunFailed, match="1 training scans changed, vanished"), session():
        list(feed(table, table).train(epoch=0))
