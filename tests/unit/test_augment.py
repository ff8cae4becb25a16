"""Strong augmentation hides where a scan comes from, keeps what is in it, and is the same each time for the same key."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from mribatch.errors import InputError
from mribatch.schema import Status
from mribatch.sources.lesions import lesion_boxes
from mribatch.training import augment, augment_geometry, augment_intensity, augment_lesions
from mribatch.training.feed import Feed

SIDE = 96


def head(size: float, background: int = 0, *, seed: int = 0) -> NDArray[np.uint8]:
    """Return a grey ellipse, `size` of the frame high, with a bright lesion and smooth tissue in it, (SIDE, SIDE)."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j] / size
    coarse = np.random.default_rng(seed).uniform(60, 140, (6, 6)).astype(np.float32)
    tissue = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    tissue = np.where((x - 0.3) ** 2 + (y - 0.2) ** 2 < 0.04, 230, tissue)
    return np.where((x / 0.8) ** 2 + y**2 < 1, tissue, background).astype(np.uint8)


def colour(*greys: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(np.stack(greys)[..., None], 3, axis=-1)


def keys(count: int, epoch: int = 0) -> list[tuple[int, ...]]:
    return [(0, epoch, row) for row in range(count)]


def border(scans: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean grey level of each scan's outermost pixels, (N,)."""
    ring = np.ones((SIDE, SIDE), bool)
    ring[4:-4, 4:-4] = False
    means: NDArray[np.float64] = scans[:, ring, 0].mean(axis=1)
    return means


def told_apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the share of pairs in which the second group has the larger value: 0.5 if the groups are alike."""
    return float(np.mean(np.sign(second[None] - first[:, None]) / 2 + 0.5))


def test_the_same_key_gives_the_same_scan_and_another_epoch_another_one() -> None:
    scans = colour(*(head(0.8, seed=seed) for seed in range(8)))
    first = augment.strong(scans, keys(8))
    np.testing.assert_array_equal(first, augment.strong(scans, keys(8)))
    other = augment.strong(scans, keys(8, epoch=1))
    assert all((one != two).any() for one, two in zip(first, other, strict=True))
    assert (first.shape, first.dtype) == (scans.shape, np.uint8)


def test_the_changes_of_a_scan_do_not_depend_on_its_place_in_the_batch() -> None:
    one, two = head(0.8), head(0.7, seed=1)
    pair = augment.strong(colour(one, two), [(0, 3, 7), (0, 3, 4)])
    swapped = augment.strong(colour(two, one), [(0, 3, 4), (0, 3, 7)])
    np.testing.assert_array_equal(pair, swapped[::-1])


def test_the_border_no_longer_says_which_source_a_scan_is_from() -> None:
    black, grey = (colour(*(head(0.8, level, seed=seed) for seed in range(60))) for level in (0, 40))
    assert told_apart(border(black), border(grey)) == 1
    order = np.random.default_rng(0).permutation(120)
    changed = augment.strong(np.concatenate([black, grey])[order], keys(120))[np.argsort(order)]
    assert 0.35 < told_apart(border(changed[:60]), border(changed[60:])) < 0.65


def test_heads_of_all_sizes_become_the_same_sizes() -> None:
    def sizes(size: float) -> NDArray[np.float64]:
        scan = head(size)
        place = augment_geometry.head_of(scan)
        moved = [augment_geometry.placement(place, np.random.default_rng(n)).applied(scan, SIDE) for n in range(60)]
        return np.array([(one > 20).mean() for one in moved])

    small, large = sizes(0.45), sizes(0.95)
    assert abs(small.mean() - large.mean()) < 0.05
    assert large.max() > 1.5 * large.min(), "and they vary"


def test_about_a_fifth_of_the_scans_keep_their_grey_levels_and_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_intensity, "stored", lambda grey, _: np.full_like(grey, 255))
    changed = augment.strong(colour(*[head(0.8)] * 200), keys(200))
    kept = (changed.min(axis=(1, 2, 3)) < 255).mean()
    assert 0.1 < kept < 0.3


def test_the_outline_of_a_head_is_where_the_head_is() -> None:
    place = augment_geometry.head_of(head(0.6))
    np.testing.assert_allclose(place.box, (0.26, 0.2, 0.74, 0.8), atol=0.05)
    assert place.background == 0
    blank = augment_geometry.head_of(np.full((SIDE, SIDE), 90, np.uint8))
    assert blank.box == (0.0, 0.0, 1.0, 1.0), "without an outline, all of the frame counts as head"


def test_tissue_keeps_its_structure() -> None:
    """After all changes of grey levels, most scans still correlate with the original, some of them inverted."""
    scan = head(0.8)
    inside = head(0.8, background=0) > 0
    kept = []
    for number in range(100):
        rng = np.random.default_rng(number)
        changed = augment_intensity.recurved(scan, inside, scan[inside][::-1], rng)
        changed = augment_intensity.contrasted(changed, rng)
        changed = augment_intensity.stored(augment_intensity.acquired(changed, rng), rng)
        kept.append(abs(np.corrcoef(scan[inside], changed[inside])[0, 1]))
    assert np.mean(np.array(kept) > 0.3) > 0.85


def test_local_equalization_raises_faint_contrast_and_is_the_identity_without_room_for_it() -> None:
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8), (256, 1))
    same = augment_intensity.equalized_locally(ramp, tiles=1, clip=1.0)
    assert np.abs(same.astype(int) - ramp).max() <= 2
    faint = (100 + head(0.8) // 16).astype(np.uint8)
    stronger = augment_intensity.equalized_locally(faint, clip=4.0)
    assert stronger.std() > 1.5 * faint.std()


class Decoded:
    """Stand in for a Ray Dataset of decoded rows, which would need a session."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def map_batches(self, change: Any, **_: object) -> "Decoded":
        blocks = [change(self.table.slice(at, 4)) for at in range(0, self.table.num_rows, 4)]
        return Decoded(pa.concat_tables(blocks))

    def iter_batches(self, batch_size: int, **_: object) -> Iterator[pa.Table]:
        yield from (self.table.slice(at, batch_size) for at in range(0, self.table.num_rows, batch_size))


def decoded(table: pa.Table, _: object) -> Decoded:
    scans = [colour(head(0.8, seed=int(uri)))[0].tobytes() for uri in table["scan_uri"].to_pylist()]
    pixels = pa.array(scans, pa.binary(SIDE * SIDE * 3))
    return Decoded(
        table.append_column("pixels", pixels).append_column("status", pa.array([Status.OK] * len(scans), pa.string()))
    )


@pytest.fixture
def feed() -> Feed:
    scans = pa.table({"scan_uri": [str(number) for number in range(8)], "class_number": list(range(8))})
    return Feed(
        training=scans,
        validation=scans,
        side_px=SIDE,
        batch_scans=4,
        workers=1,
        rank=0,
        seed=5,
        restart_flag="--run-name",
        decode=decoded,
        augment=augment.strong,
    )


def test_an_epoch_that_begins_again_sees_the_same_changed_scans(feed: Feed) -> None:
    (first, second), again, later = list(feed.train(2)), list(feed.train(2)), list(feed.train(3))
    for batch, repeated in zip((first, second), again, strict=True):
        np.testing.assert_array_equal(batch[0], repeated[0])
    assert sorted([*first[1], *second[1]]) == list(range(8)), "each scan keeps its class"
    assert all((batch[0] != repeated[0]).any() for batch, repeated in zip((first, second), later, strict=True))


def test_scans_to_validate_on_are_not_changed(feed: Feed) -> None:
    plain = replace(feed, augment=None)
    for changed, batch in zip(feed.validate(), plain.validate(), strict=True):
        np.testing.assert_array_equal(changed[0], batch[0])
    assert all((changed[0] != batch[0]).any() for changed, batch in zip(feed.train(0), plain.train(0), strict=True))


BOX = (0.55, 0.5, 0.75, 0.7)  # of the bright lesion in `head`


def bright(scans: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the number of pixels as bright as the lesion in each scan, (N,)."""
    count: NDArray[np.int64] = (scans[..., 0] > 200).sum(axis=(1, 2))
    return count


def test_a_scan_that_loses_its_lesion_has_none_and_the_others_keep_theirs() -> None:
    scans = colour(*[head(0.8)] * 200)
    changed, lost = augment_lesions.painted(scans, [BOX] * 200, np.zeros(200, bool), keys(200))
    assert 10 < lost.sum() < 40
    assert bright(changed)[lost].max() < 0.1 * bright(scans)[0]
    assert bright(changed)[~lost].min() > 0.9 * bright(scans)[0]
    elsewhere = (changed[~lost] != scans[0]).any(axis=(1, 2, 3))
    assert 10 < elsewhere.sum() < 40, "paint without loss is as frequent, so that paint says nothing"


def test_a_lesion_too_small_to_paint_is_not_lost() -> None:
    scans = colour(*[head(0.8)] * 100)
    dot = (0.6, 0.6, 0.61, 0.61)
    changed, lost = augment_lesions.painted(scans, [dot] * 100, np.zeros(100, bool), keys(100))
    assert (changed == scans).all(), "or this test shows nothing"
    assert not lost.any()


def test_scans_without_a_known_lesion_are_painted_over_only_if_they_have_none() -> None:
    scans = colour(*[head(0.8)] * 100)
    healthy = np.arange(100) < 50
    changed, lost = augment_lesions.painted(scans, [None] * 100, healthy, keys(100))
    differs = (changed != scans).any(axis=(1, 2, 3))
    assert not lost.any()
    assert 4 < differs[:50].sum() < 25
    assert not differs[50:].any()


def test_a_painted_out_tumour_is_trained_on_as_a_scan_without_one(feed: Feed) -> None:
    scans = feed.training.set_column(1, "class_number", pa.array([1] * 8))
    boxes = pa.array([list(BOX)] * 8, pa.list_(pa.float64()))
    painting = replace(feed, training=scans.append_column("lesion", boxes), no_tumour=3)
    classes = np.concatenate([batch[1] for epoch in range(20) for batch in painting.train(epoch)])
    assert set(classes.tolist()) == {1, 3}
    assert 0.04 < (classes == 3).mean() < 0.25


def test_boxes_are_found_by_the_path_below_the_data_and_bad_ones_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("scan,x0,y0,x1,y1\nglioma/a.jpg,0.1,0.2,0.3,0.4\n")
    expected = {f"{tmp_path}/scans/glioma/a.jpg": (0.1, 0.2, 0.3, 0.4)}
    assert lesion_boxes(str(file), f"{tmp_path}/scans") == expected
    assert lesion_boxes(str(file), f"{tmp_path}/scans/labels.csv") == expected
    for text, sentence in (("scan,x0\na,0\n", "no column y0, x1, y1"), ("scan,x0,y0,x1,y1\na,0.5,0,0.4,1\n", "a box")):
        file.write_text(text)
        with pytest.raises(InputError, match=sentence):
            lesion_boxes(str(file), str(tmp_path))


def test_a_scan_with_two_boxes_is_refused_and_names_of_digits_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("scan,x0,y0,x1,y1\n0010,0.1,0.2,0.3,0.4\n")
    assert lesion_boxes(str(file), "/scans") == {"/scans/0010": (0.1, 0.2, 0.3, 0.4)}
    file.write_text("scan,x0,y0,x1,y1\na.png,0.1,0.2,0.3,0.4\na.png,0.5,0.6,0.7,0.8\n")
    with pytest.raises(InputError, match=r"several boxes for 1 scans, the first is a\.png: .* leave these scans out"):
        lesion_boxes(str(file), "/scans")
