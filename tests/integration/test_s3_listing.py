"""Listing on a real S3 server: prefixes, hidden names, junk, strange keys, globs and exclusions."""

from pathlib import Path
from typing import TYPE_CHECKING

import moto.core
import moto.s3
import pytest

from mribatch.errors import InputError, StorageMissing
from mribatch.sources.labels import labelled
from mribatch.sources.listing import archive
from mribatch.stores import uris
from tests.integration.conftest import below, fill
from tests.unit.test_uris import STRANGE, TREE

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def test_a_prefix_is_a_folder_and_its_neighbours_are_not_in_it(bucket: str) -> None:
    fill(bucket, "scans/a.jpg", "scans/x/b.jpg", "scans-old/c.jpg", "scans.txt", "scans!", "d.jpg")
    for uri in (f"{bucket}/scans", f"{bucket}/scans/"):
        assert below(bucket, uri) == ["scans/a.jpg", "scans/x/b.jpg"]
    assert below(bucket, f"{bucket}/scans/a.jpg") == ["scans/a.jpg"]
    assert below(bucket, bucket) == below(bucket, f"{bucket}/")
    assert len(below(bucket, bucket)) == 6
    with pytest.raises(StorageMissing, match=r"no object at or below .*/scan:"):
        below(bucket, f"{bucket}/scan")


def test_a_key_may_be_both_an_object_and_a_folder(bucket: str) -> None:
    fill(bucket, "a", "a/b", "a0")
    assert below(bucket, f"{bucket}/a") == ["a", "a/b"]


def test_hidden_names_and_folder_markers_are_not_listed(bucket: str, s3_client: "S3Client") -> None:
    fill(bucket, "a/x.jpg", "a/.hidden", "a/.git/y.jpg", ".top/z.jpg")
    for marker in ("a/", "b/", "a/c/"):
        s3_client.put_object(Bucket=bucket.removeprefix("s3://"), Key=marker)
    assert below(bucket, bucket) == ["a/x.jpg"]
    assert below(bucket, f"{bucket}/b") == []  # an empty folder
    assert below(bucket, f"{bucket}/.top") == [".top/z.jpg"]  # asked for by name
    assert below(bucket, f"{bucket}/a/.git/y.jpg") == ["a/.git/y.jpg"]
    assert uris.folders(bucket) == ["a", "b"]
    assert uris.names(bucket) == [".top", "a", "b"]
    assert uris.names(f"{bucket}/a") == [".git", ".hidden", "c", "x.jpg"]
    assert uris.names(f"{bucket}/a", ".h") == [".hidden"]
    assert uris.names(f"{bucket}/absent") == []


def test_junk_is_not_listed(bucket: str) -> None:
    junk = ["@eaDir/x.jpg", "__MACOSX/._x.jpg", "Thumbs.db", "glioma_$folder$", "_SUCCESS", "lost+found/x.jpg"]
    fill(bucket, *junk, *(f"glioma/{name}" for name in junk), "glioma/a.jpg", "train.zip", "notumor/a.jpg")
    assert below(bucket, bucket) == ["glioma/a.jpg", "notumor/a.jpg", "train.zip"]
    assert below(bucket, f"{bucket}/*/*") == ["glioma/a.jpg", "notumor/a.jpg"]
    assert uris.folders(bucket) == ["glioma", "notumor"]
    assert labelled(bucket)["label"].to_pylist() == ["glioma", "notumor"]


def test_an_empty_bucket_is_an_empty_folder(bucket: str) -> None:
    assert list(uris.walk(bucket)) == []
    assert uris.names(bucket) == []


@pytest.mark.parametrize("name", [name for name in STRANGE if "\n" not in name])  # moto's server cannot route these
def test_a_strange_key_is_listed_read_and_written_unchanged(bucket: str, s3_client: "S3Client", name: str) -> None:
    uri = uris.join(bucket, name, name)
    uris.put(uri, b"data")
    (stored,) = s3_client.list_objects_v2(Bucket=bucket.removeprefix("s3://"))["Contents"]
    assert stored["Key"] == f"{name}/{name}"
    (entry,) = uris.walk(uris.join(bucket, name))
    assert entry.uri == uri
    assert uris.read_version(entry.uri, entry.version) == b"data"
    assert uris.names(uris.join(bucket, name)) == uris.folders(bucket) == [name]
    assert list(uris.find([uri])) == list(uris.walk(uri)) == [entry]
    assert not uris.create(uri, b"")
    uris.delete(uri)
    assert list(uris.walk(bucket)) == []


def test_a_listing_continues_beyond_a_thousand_objects(bucket: str) -> None:
    names = [f"{number % 2}/{number:04d}.jpg" for number in range(2100)]
    store = moto.s3.s3_backends[moto.core.DEFAULT_ACCOUNT_ID]["aws"]  # the server's own: over HTTP it takes 10 s
    for name in names:
        store.put_object(bucket.removeprefix("s3://"), name, b"")
    assert below(bucket, bucket) == sorted(names)
    assert below(bucket, f"{bucket}/*/1*.jpg") == sorted(name for name in names if name.split("/")[1].startswith("1"))
    assert len(uris.names(f"{bucket}/1")) == 1050
    assert len(list(uris.find(f"{bucket}/{name}" for name in names[::7]))) == 300


ANYWHERE = ["**/*.jpg", "x/**", "x/**/a.jpg"]
IN_A_FOLDER = ["*.jpg", "*.[jJ][pP][gG]", "?.jpg", "p[!0-9]", "p?", "x*", "x", "*.dcm", "[z-a].jpg", ".*"]
DEEPER = ["p[0-9]/*", "*/y/", "[xp]*/a.jpg", "*/.h.jpg", "a.jpg/*"]


@pytest.mark.parametrize("glob", [*ANYWHERE, *IN_A_FOLDER, *DEEPER])
def test_a_glob_means_on_s3_what_it_means_on_disk(bucket: str, tmp_path: Path, glob: str) -> None:
    for root in (bucket, str(tmp_path)):
        for name in TREE:
            uris.put(uris.join(root, name), b"")

    def listed(root: str) -> list[str] | str:
        try:
            return below(root, f"{root}/{glob}")
        except InputError as err:
            return str(err).removeprefix(f"no file matches {root}")

    assert listed(bucket) == listed(str(tmp_path))


@pytest.mark.parametrize(
    ("uri", "exclude"),
    [
        ("", ["x", "nothing"]),
        ("", ["**/*.jpg", "p?/"]),
        ("", ["**"]),
        ("/x", ["y"]),
        ("/p?/*", ["p1"]),
        ("/a.jpg", ["a.*"]),
        ("/a.jpg", ["b.*"]),
    ],
)
def test_an_exclusion_means_on_s3_what_it_means_on_disk(
    bucket: str, tmp_path: Path, uri: str, exclude: list[str]
) -> None:
    results = []
    for root in (bucket, str(tmp_path)):
        for name in TREE:
            uris.put(uris.join(root, name), b"")
        exclusion = uris.Exclusion(exclude)
        names = sorted(uris.relative(entry.uri, root) for entry in uris.walk(f"{root}{uri}", exclusion))
        results.append((names, exclusion.unused))
    assert results[0] == results[1]


def test_own_outputs_are_not_listed_and_an_archive_knows_which_uris_it_covers(bucket: str) -> None:
    run = "20250101T000000Z-abc123"
    fill(bucket, "a.jpg", "b/c.jpg", "skip/d.jpg")
    fill(bucket, "out/_runs/0123456789ab.lock-1", f"out/_nights/{run}/nightly.json")
    fill(bucket, "b/model=0123456789ab/part-1.parquet", "eval/metrics.json", "eval/report.html", "eval/scans.png")
    table, covers = archive([bucket], ["skip"])
    assert table["scan_uri"].to_pylist() == [f"{bucket}/a.jpg", f"{bucket}/b/c.jpg"]
    assert covers(f"{bucket}/b/gone.jpg")
    assert not covers(f"{bucket}/skip/gone.jpg")
    assert not covers(f"{bucket}/eval/scans.png")
    assert not covers("s3://another-bucket/a.jpg")


def test_a_name_that_exists_is_not_read_as_a_glob(bucket: str) -> None:
    fill(bucket, "scan[1].jpg", "scan1.jpg", "[anon]/a.jpg", "[anon]/b.png", "[anon]!", "a/x.jpg")
    assert below(bucket, f"{bucket}/scan[1].jpg") == ["scan[1].jpg"]
    assert below(bucket, f"{bucket}/[anon]") == ["[anon]/a.jpg", "[anon]/b.png"]
    assert below(bucket, f"{bucket}/[anon]/*.jpg") == ["[anon]/a.jpg"]
    assert below(bucket, f"{bucket}/scan[12].jpg") == ["scan1.jpg"]


def test_find_returns_the_objects_that_exist(bucket: str) -> None:
    fill(bucket, "a/1.jpg", "a/.2.jpg", "a/b/3.jpg", "4.jpg")
    objects = {f"{bucket}/{name}" for name in ("a/1.jpg", "a/.2.jpg", "4.jpg")}
    absent = [f"{bucket}/{name}" for name in ("a", "a/b", "c/5.jpg")]
    assert {entry.uri for entry in uris.find([*objects, *absent])} == objects
