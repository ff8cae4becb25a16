"""Local files through `uris`: complete listings, atomic writes, exclusive creates."""

import errno
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mribatch.errors import (
    ConfigError,
    InputError,
    MribatchError,
    ScanChanged,
    ScanVanished,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageMissing,
)
from mribatch.stores import uris

STRANGE = [
    "a b",
    "ü-腦-🧠",
    "50%",
    "a%20b",
    "a+b",
    "#1",
    "who?",
    "x*",
    "[1]",
    "-rf",
    "a\\b",
    "'\"",
    "a\nb",
    "a:b",
    "s3:",
    "x=1",
]
NOBODY = 65534


def fill(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def below(root: Path, uri: str | None = None) -> list[str]:
    """Return the sorted names, relative to the root, that a URI lists."""
    return sorted(uris.relative(entry.uri, str(root)) for entry in uris.walk(uri or str(root)))


@pytest.fixture
def no_root() -> Iterator[Path]:
    """Return a folder in which permissions count, as root's privileges are dropped for the test."""
    folder = Path(tempfile.mkdtemp(prefix="mribatch-test-"))
    folder.chmod(0o777)
    me = os.geteuid()
    if me == 0:
        os.seteuid(NOBODY)
    yield folder
    if me == 0:
        os.seteuid(0)
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


# Names


def test_a_relative_path_is_spelled_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert uris.absolute("scans/../a.jpg") == uris.absolute(f"{tmp_path}//a.jpg") == f"{tmp_path}/a.jpg"


@pytest.mark.parametrize(
    ("uri", "spelling"),
    [
        ("/data/", "/data"),
        ("file:///data/a%20b", "/data/a b"),
        ("file://localhost/data", "/data"),
        ("/data/a%20b", "/data/a%20b"),
        ("file:///data/%ff", "file:///data/%FF"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a%20b+c/", "s3://bucket/a%20b+c"),
        ("s3://bucket/a//b", "s3://bucket/a//b"),
    ],
)
def test_a_uri_has_one_spelling(uri: str, spelling: str) -> None:
    assert uris.absolute(uri) == spelling
    assert uris.absolute(spelling) == spelling


NO_SCHEMES = ["", "gs://bucket/x", "S3://bucket", "http://x/y", "file://", "file://host/x", "/a\0b"]
NO_BUCKETS = ["s3://", "s3:///key", "s3://b?x=1/k", "s3://a b/k", "s3://bucket/\udcff"]


@pytest.mark.parametrize("uri", [*NO_SCHEMES, *NO_BUCKETS])
def test_what_is_no_path_and_no_s3_uri_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"expected|UTF-8"):
        uris.absolute(uri)


@pytest.mark.parametrize(
    ("folder", "joined"),
    [
        ("/", "/a/b c"),
        ("/x", "/x/a/b c"),
        ("/x/", "/x/a/b c"),
        ("s3://bucket", "s3://bucket/a/b c"),
        ("s3://bucket/x/", "s3://bucket/x/a/b c"),
        ("file:///%ff", "file:///%FF/a/b%20c"),
    ],
)
def test_join_and_parent_undo_each_other(folder: str, joined: str) -> None:
    assert uris.join(folder, "a", "b c") == joined
    assert uris.parent(uris.parent(joined)) == uris.absolute(folder)
    assert uris.relative(joined, folder) == "a/b c"


def test_the_root_and_a_bucket_are_their_own_parents() -> None:
    assert uris.parent("/") == "/"
    assert uris.parent("s3://bucket") == "s3://bucket"
    assert uris.parent("file:///%ff") == "/"


def test_joining_to_nothing_is_refused_and_never_means_the_root() -> None:
    with pytest.raises(ConfigError, match="got nothing"):
        uris.join("", "x")


def test_a_neighbour_with_a_like_name_is_not_below_a_folder() -> None:
    assert uris.is_below("/data/a/x.jpg", "/data/a")
    assert not uris.is_below("/data/ab/x.jpg", "/data/a")
    assert not uris.is_below("/data/a", "/data/a")
    assert uris.is_below("file:///data/%FF", "/data")


# Listing


def test_a_folder_lists_every_file_below_it_but_hidden_ones(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b/c.png", "b/d/e/f", ".hidden", "b/.DS_Store", ".git/x.jpg")
    (tmp_path / "empty").mkdir()
    assert below(tmp_path) == ["a.jpg", "b/c.png", "b/d/e/f"]
    assert below(tmp_path, f"{tmp_path}/b/") == ["b/c.png", "b/d/e/f"]


def test_a_file_lists_itself_also_a_hidden_one(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", ".b.jpg")
    assert below(tmp_path, f"{tmp_path}/a.jpg") == ["a.jpg"]
    assert below(tmp_path, f"{tmp_path}/.b.jpg") == [".b.jpg"]


def test_an_entry_tells_size_and_a_version_that_a_rewrite_changes(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (before,) = uris.walk(str(tmp_path))
    assert before.size == 5
    assert uris.size(before.uri, before.version) == 5
    assert list(uris.walk(str(tmp_path))) == [before]
    stat = (tmp_path / "a.jpg").stat()
    os.utime(tmp_path / "a.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    (after,) = uris.walk(str(tmp_path))
    assert after.version != before.version


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_is_listed_read_and_written_as_it_is(tmp_path: Path, name: str) -> None:
    folder = uris.join(str(tmp_path), name)
    uris.put(uris.join(folder, name), b"data")
    (entry,) = uris.walk(folder)
    assert Path(entry.uri) == tmp_path / name / name
    assert uris.read_version(entry.uri, entry.version) == b"data"
    assert uris.names(folder) == uris.folders(str(tmp_path)) == [name]


def test_a_name_that_is_not_utf8_is_listed_globbed_and_read(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/g\xe9n\xe9ral %41"
    os.mkdir(raw)
    Path(os.fsdecode(raw + b"/\xff.jpg")).write_bytes(b"data")
    (entry,) = uris.walk(str(tmp_path))
    entry.uri.encode()  # can be written to Parquet and the screen
    assert entry.uri.startswith("file:///")
    assert uris.read(entry.uri) == uris.read_version(entry.uri, entry.version) == b"data"
    assert list(uris.walk(entry.uri)) == list(uris.walk(f"{tmp_path}/*/*.jpg")) == [entry]
    assert uris.join(uris.parent(entry.uri), *uris.names(uris.parent(entry.uri))) == entry.uri
    uris.delete(entry.uri)
    assert uris.names(uris.parent(entry.uri)) == []


def test_a_missing_path_says_which(tmp_path: Path) -> None:
    with pytest.raises(StorageMissing, match="absent"):
        list(uris.walk(f"{tmp_path}/absent"))


def test_a_link_to_nothing_is_listed_and_vanishes_when_read(tmp_path: Path) -> None:
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    entries = list(uris.walk(str(tmp_path)))
    assert len(entries) == 2
    for entry in entries:
        with pytest.raises(ScanVanished):
            uris.read_version(entry.uri, entry.version)


def test_links_that_lead_back_up_end(tmp_path: Path) -> None:
    fill(tmp_path, "a/x.jpg", "b/y.jpg")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    assert below(tmp_path) == ["a/b/y.jpg", "a/x.jpg", "b/a/x.jpg", "b/y.jpg"]


def test_a_linked_folder_is_listed_under_each_of_its_names(tmp_path: Path) -> None:
    fill(tmp_path, "archive/2024/x.jpg")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to("archive/2024")
    assert below(tmp_path) == ["archive/2024/x.jpg", "one/x.jpg", "two/x.jpg"]


def test_pipes_and_sockets_are_passed_over_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert below(tmp_path) == ["a.jpg"]
    with pytest.raises(InputError, match=r"pipe\.jpg"):
        list(uris.walk("pipe.jpg"))


def test_what_disappears_while_it_is_listed_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{i}.jpg" for i in range(20)), *(f"folder{i}/x.jpg" for i in range(5)))
    listing = uris.walk(str(tmp_path))
    first = next(listing)
    for path in tmp_path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    assert {entry.uri for entry in listing} <= {first.uri}


def test_folders_that_disappear_before_their_turn_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, *(f"folder{i}/x.jpg" for i in range(5)))
    listing = uris.walk(str(tmp_path))
    first = next(listing)
    for path in tmp_path.iterdir():
        if path != Path(first.uri).parent:
            shutil.rmtree(path)
            path.touch()
    assert list(listing) == []


def test_an_unreadable_folder_ends_the_listing_with_its_name(no_root: Path) -> None:
    fill(no_root, "good/x.jpg", "closed/y.jpg")
    (no_root / "closed").chmod(0)
    with pytest.raises(StorageDenied, match=f"{no_root}/closed"):
        list(uris.walk(str(no_root)))


def test_a_glob_does_not_stumble_over_a_closed_folder_that_cannot_fit(no_root: Path) -> None:
    fill(no_root, "x.jpg", "a/y.jpg", "lost+found/z.jpg")
    (no_root / "lost+found").chmod(0)
    assert below(no_root, f"{no_root}/*.jpg") == ["x.jpg"]
    assert below(no_root, f"{no_root}/[a-b]/*") == ["a/y.jpg"]


def test_an_unreadable_file_is_denied_not_missing(no_root: Path) -> None:
    fill(no_root, "x.jpg")
    (entry,) = uris.walk(str(no_root))
    (no_root / "x.jpg").chmod(0)
    with pytest.raises(StorageDenied, match=r"x\.jpg"):
        uris.read_version(entry.uri, entry.version)


def test_find_gives_the_files_that_are_there(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b/.hidden.jpg", "c/d.jpg")
    wanted = [f"{tmp_path}/{name}" for name in ("a.jpg", "b/.hidden.jpg", "c", "a.jpg/x", "absent")]
    assert {entry.uri for entry in uris.find(wanted)} == set(wanted[:2])
    (entry,) = uris.find(wanted[:1])
    assert [entry] == list(uris.walk(wanted[0]))


# Globs

TREE = (
    "a.jpg",
    "b.JPG",
    "c.png",
    "x/a.jpg",
    "x/y/a.jpg",
    "x/y/b.png",
    "p1/s.jpg",
    "p2/s.jpg",
    "pq/s.jpg",
    ".h/a.jpg",
    "x/.h.jpg",
)


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*.jpg", ["a.jpg"]),
        ("*.[jJ][pP][gG]", ["a.jpg", "b.JPG"]),
        ("**/*.jpg", ["a.jpg", "p1/s.jpg", "p2/s.jpg", "pq/s.jpg", "x/a.jpg", "x/y/a.jpg"]),
        ("x/**", ["x/a.jpg", "x/y/a.jpg", "x/y/b.png"]),
        ("x/**/a.jpg", ["x/a.jpg", "x/y/a.jpg"]),
        ("?.jpg", ["a.jpg"]),
        ("p[0-9]/*", ["p1/s.jpg", "p2/s.jpg"]),
        ("p[!0-9]", ["pq/s.jpg"]),
        ("p?", ["p1/s.jpg", "p2/s.jpg", "pq/s.jpg"]),
        ("x*", ["x/a.jpg", "x/y/a.jpg", "x/y/b.png"]),
        ("*/y/", ["x/y/a.jpg", "x/y/b.png"]),
        ("[xp]*/a.jpg", ["x/a.jpg"]),
    ],
)
def test_a_glob_lists_what_fits_and_all_below_a_folder_that_fits(tmp_path: Path, glob: str, names: list[str]) -> None:
    fill(tmp_path, *TREE)
    assert below(tmp_path, f"{tmp_path}/{glob}") == names


@pytest.mark.parametrize("glob", ["*.dcm", "z*/**", "[z-a].jpg", ".*", "*/.h.jpg", "a.jpg/*"])
def test_a_glob_that_fits_nothing_says_so(tmp_path: Path, glob: str) -> None:
    fill(tmp_path, *TREE)
    with pytest.raises(InputError, match="no file matches"):
        list(uris.walk(f"{tmp_path}/{glob}"))


def test_a_name_that_exists_as_it_stands_is_no_glob(tmp_path: Path) -> None:
    fill(tmp_path, "scan[1].jpg", "scan1.jpg", "[anon]/a.jpg", "[anon]/b.png", "a/x.jpg")
    assert below(tmp_path, f"{tmp_path}/scan[1].jpg") == ["scan[1].jpg"]
    assert below(tmp_path, f"{tmp_path}/[anon]") == ["[anon]/a.jpg", "[anon]/b.png"]
    assert below(tmp_path, f"{tmp_path}/[anon]/*.jpg") == ["[anon]/a.jpg"]
    assert below(tmp_path, f"{tmp_path}/scan[12].jpg") == ["scan1.jpg"]


@pytest.mark.parametrize("name", ["a[1", "a]", "a[]", "a[!]"])
def test_a_bracket_that_opens_no_set_is_a_letter(tmp_path: Path, name: str) -> None:
    fill(tmp_path, f"{name}.jpg", "a1.jpg")
    assert below(tmp_path, f"{tmp_path}/{name}.*") == [f"{name}.jpg"]


def test_a_glob_follows_no_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageMissing, match="absent"):
        list(uris.walk(f"{tmp_path}/absent/*.jpg"))


# What is left out


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["x"], ["a.jpg", "b.JPG", "c.png", "p1/s.jpg", "p2/s.jpg", "pq/s.jpg"]),
        (["x/"], ["a.jpg", "b.JPG", "c.png", "p1/s.jpg", "p2/s.jpg", "pq/s.jpg"]),
        (["x/y", "p*"], ["a.jpg", "b.JPG", "c.png", "x/a.jpg"]),
        (["*.jpg"], ["b.JPG", "c.png", "p1/s.jpg", "p2/s.jpg", "pq/s.jpg", "x/a.jpg", "x/y/a.jpg", "x/y/b.png"]),
        (["**/*.jpg", "*.JPG"], ["c.png", "x/y/b.png"]),
        (["**/y"], ["a.jpg", "b.JPG", "c.png", "p1/s.jpg", "p2/s.jpg", "pq/s.jpg", "x/a.jpg"]),
        (["**"], []),
    ],
)
def test_what_is_excluded_is_not_listed(tmp_path: Path, exclude: list[str], left: list[str]) -> None:
    fill(tmp_path, *TREE)
    entries = uris.walk(str(tmp_path), uris.Exclusion(exclude))
    assert sorted(uris.relative(entry.uri, str(tmp_path)) for entry in entries) == left


def test_an_exclusion_is_relative_to_the_input_or_to_the_first_folder_of_its_glob(tmp_path: Path) -> None:
    fill(tmp_path, *TREE)
    for uri, exclude, left in (
        (f"{tmp_path}/x", "y", ["x/a.jpg"]),
        (f"{tmp_path}/x/*", "y/a.jpg", ["x/a.jpg", "x/y/b.png"]),
        (f"{tmp_path}/p?/*", "p1", ["p2/s.jpg", "pq/s.jpg"]),
        (f"{tmp_path}/a.jpg", "*.jpg", []),
        (f"{tmp_path}/a.jpg", "*.png", ["a.jpg"]),
    ):
        entries = uris.walk(uri, uris.Exclusion([exclude]))
        assert sorted(uris.relative(entry.uri, str(tmp_path)) for entry in entries) == left


def test_an_exclusion_knows_which_of_its_globs_matched_nothing(tmp_path: Path) -> None:
    fill(tmp_path, *TREE)
    exclusion = uris.Exclusion(["x", "nothing", "**/*.png"])
    list(uris.walk(str(tmp_path), exclusion))
    assert exclusion.unused == ["nothing"]


@pytest.mark.parametrize("uri", ["", "/x", "/*.jpg", "/**/*.png", "/a.jpg", "/p[0-9]"])
def test_a_scope_covers_exactly_what_is_listed(tmp_path: Path, uri: str) -> None:
    fill(tmp_path, *TREE, "scan[1].jpg")
    visible = {f"{tmp_path}/{name}" for name in (*TREE, "scan[1].jpg") if "/." not in f"/{name}"}
    scope = uris.scope(f"{tmp_path}{uri}")
    assert {path for path in visible if scope.covers(path)} == {entry.uri for entry in uris.walk(f"{tmp_path}{uri}")}
    assert not scope.covers(f"{tmp_path}-neighbour/a.jpg")


# Reading what was listed


def test_reading_another_version_than_was_listed_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (entry,) = uris.walk(str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"other")
    os.utime(tmp_path / "a.jpg", ns=(0, 1))
    with pytest.raises(ScanChanged):
        uris.read_version(entry.uri, entry.version)


def test_what_grew_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (entry,) = uris.walk(str(tmp_path))
    os.truncate(tmp_path / "a.jpg", 1 << 43)  # sparse: 8 TiB, too much for any memory
    with pytest.raises(ScanChanged):
        uris.read_version(entry.uri, entry.version)


def test_what_changes_while_it_is_read_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jpg")
    (entry,) = uris.walk(str(tmp_path))
    fstat = os.fstat

    def then_overwritten(handle: int) -> os.stat_result:
        status = fstat(handle)
        (tmp_path / "a.jpg").write_bytes(b"another scan")
        return status

    monkeypatch.setattr(os, "fstat", then_overwritten)
    with pytest.raises(ScanChanged):
        uris.read_version(entry.uri, entry.version)


def test_reading_what_was_deleted_or_became_a_folder_is_an_error_of_the_scan(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b.jpg", "c/d.jpg")
    entries = {uris.relative(e.uri, str(tmp_path)): e for e in uris.walk(str(tmp_path))}
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "b.jpg").mkdir()
    shutil.rmtree(tmp_path / "c")
    (tmp_path / "c").write_bytes(b"now a file")
    errors: dict[str, type[MribatchError]] = {"a.jpg": ScanVanished, "b.jpg": ScanChanged, "c/d.jpg": ScanVanished}
    for name, error in errors.items():
        with pytest.raises(error):
            uris.read_version(entries[name].uri, entries[name].version)


def test_reading_a_folder_as_a_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageMissing, match="is a folder"):
        uris.read(str(tmp_path))


# Writing


def test_put_makes_folders_and_replaces_the_whole_file(tmp_path: Path) -> None:
    uri = f"{tmp_path}/new/folders/a"
    uris.put(uri, b"a longer first one")
    uris.put(uri, b"second")
    assert uris.read(uri) == b"second"
    assert os.listdir(tmp_path / "new/folders") == ["a"]


def test_a_reader_sees_the_old_file_or_the_new_one_whole(tmp_path: Path) -> None:
    uri = f"{tmp_path}/a"
    sides = [bytes([n]) * 300_000 for n in (1, 2)]
    uris.put(uri, sides[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(40):
            uris.put(uri, sides[turn % 2])
        done.set()

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        while not done.is_set() and not writing.done():
            assert uris.read(uri) in sides
        writing.result()


@pytest.mark.parametrize("write", [uris.put, uris.create])
def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    assert callable(write)
    uris.put(f"{tmp_path}/old", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(StorageFull, match=r"disk at /.* MiB free") as caught:
        patch.setattr(os, "fsync", full)
        write(f"{tmp_path}/new", b"data")
    assert f"{tmp_path}/new" in str(caught.value)
    with monkeypatch.context() as patch, pytest.raises(StorageFull):
        patch.setattr(os, "fsync", full)
        uris.put(f"{tmp_path}/old", b"data")
    assert os.listdir(tmp_path) == ["old"]
    assert uris.read(f"{tmp_path}/old") == b"old"


def test_a_quota_and_a_read_only_disk_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, error, words in (
        (errno.EDQUOT, StorageFull, "quota"),
        (errno.EROFS, StorageDenied, "read-only"),
        (errno.EIO, StorageError, "Input/output"),
    ):

        def fail(_: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch, pytest.raises(error, match=words):
            patch.setattr(os, "fsync", fail)
            uris.put(f"{tmp_path}/new", b"data")


@pytest.mark.parametrize("call", [lambda uri: uris.put(uri, b""), lambda uri: uris.create(uri, b""), uris.names])
def test_an_output_that_is_a_file_is_named_with_exit_code_2(tmp_path: Path, call: object) -> None:
    assert callable(call)
    fill(tmp_path, "out")
    with pytest.raises(StorageMissing, match=f"expected a folder at {tmp_path}/out, but it is a file") as caught:
        call(f"{tmp_path}/out/_runs/x")
    assert caught.value.exit_code == 2


def test_a_folder_in_the_place_of_a_file_is_not_replaced(tmp_path: Path) -> None:
    fill(tmp_path, "a/x")
    with pytest.raises(StorageMissing, match="is a folder"):
        uris.put(f"{tmp_path}/a", b"")
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_without_write_permission_is_denied(no_root: Path) -> None:
    (no_root / "a").mkdir()
    (no_root / "a").chmod(0o500)
    with pytest.raises(StorageDenied, match="a/x"):
        uris.put(f"{no_root}/a/x", b"")


def test_delete_is_content_with_what_is_gone(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    uris.delete(f"{tmp_path}/a")
    uris.delete(f"{tmp_path}/a")
    assert os.listdir(tmp_path) == []


def test_names_lists_files_folders_and_hidden_ones_that_begin_alike(tmp_path: Path) -> None:
    fill(tmp_path, "part-1", "part-2/x", ".part-3", "other")
    assert uris.names(str(tmp_path)) == [".part-3", "other", "part-1", "part-2"]
    assert uris.names(str(tmp_path), "part-") == ["part-1", "part-2"]
    assert uris.names(f"{tmp_path}/absent") == []


# Exclusive create


def test_create_writes_once(tmp_path: Path) -> None:
    uri = f"{tmp_path}/new/lock"
    assert uris.create(uri, b"first")
    assert not uris.create(uri, b"second")
    assert not uris.create(uri, b"first")  # not even with equal bytes
    assert uris.read(uri) == b"first"
    assert os.listdir(tmp_path / "new") == ["lock"]


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_four_creators_at_once_exactly_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not hard_links:
        monkeypatch.setattr(os, "link", no_links)
    with ThreadPoolExecutor(4) as threads:
        for turn in range(20):
            start = threading.Barrier(4, timeout=60)

            def create(_: int, uri: str = f"{tmp_path}/{turn}", start: threading.Barrier = start) -> bool:
                start.wait()
                return uris.create(uri, b"same bytes")

            assert sorted(threads.map(create, range(4))) == [False, False, False, True]
    assert len(os.listdir(tmp_path)) == 20


def test_a_created_file_is_never_seen_half_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visible: list[list[str]] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        visible.append([name for name in os.listdir(tmp_path) if not name.startswith(".")])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    uris.create(f"{tmp_path}/lock", b"data")
    assert visible[0] == []  # the bytes were flushed before the name appeared


def test_a_create_whose_answer_was_lost_knows_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def lost(source: str, target: str) -> None:  # as on NFS when a reply is lost and the client retries
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", lost)
    assert uris.create(f"{tmp_path}/lock", b"mine")
    assert not uris.create(f"{tmp_path}/lock", b"other")
    assert os.listdir(tmp_path) == ["lock"]


# What is handed to other libraries


def test_a_path_that_is_not_utf8_is_refused_where_a_library_needs_one() -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        uris.filesystem("file:///tmp/%ff")


def test_the_arrow_filesystem_reads_what_was_put(tmp_path: Path) -> None:
    uris.put(f"{tmp_path}/a b%20c", b"data")
    filesystem, path = uris.filesystem(f"{tmp_path}/a b%20c")
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"data"


def test_a_probe_is_a_file_in_a_folder_that_can_be_written_and_goes(tmp_path: Path) -> None:
    with uris.probe(f"{tmp_path}/new/folder") as place:
        assert [entry.uri for entry in uris.find([place])] == [place]
        assert uris.parent(place) == f"{tmp_path}/new/folder"
        assert list(uris.walk(f"{tmp_path}/new/folder")) == [], "no listing takes it for a scan"
    assert os.listdir(tmp_path / "new/folder") == []


def test_a_probe_tells_what_a_write_would_tell(no_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(no_root, "file")
    (no_root / "closed").mkdir(mode=0o500)
    for folder, error in (("file", StorageMissing), ("file/below", StorageMissing), ("closed", StorageDenied)):
        with pytest.raises(error, match=f"{no_root}/{folder.partition('/')[0]}"), uris.probe(f"{no_root}/{folder}"):
            pytest.fail("it was no folder to write to")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="no space left"), uris.probe(f"{no_root}/full"):
        pytest.fail("its disk was full")
    assert os.listdir(no_root / "full") == []


def test_a_disk_shows_that_it_creates_exclusively_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    uris.check_exclusive(str(tmp_path / "out" / "_runs"))
    assert os.listdir(tmp_path / "out" / "_runs") == []


def test_a_mount_that_replaces_what_it_should_refuse_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", shutil.copy)
    with pytest.raises(ConfigError, match=f"the mount of {tmp_path} .*give an --output on a local disk"):
        uris.check_exclusive(str(tmp_path))
    assert os.listdir(tmp_path) == []
