"""An odd file costs one row and never the run: odd times, names, kinds and permissions, and unforeseen errors."""

import io
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mribatch import schema
from mribatch.causes import cause
from mribatch.cluster import decoding, nodes
from mribatch.cluster.guarded import WatchedPredictor
from mribatch.errors import InputError, RunFailed, StorageDenied, StorageError
from mribatch.predictions import ledger
from mribatch.scans import sandbox
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import Reading
from mribatch.scans.sandbox import Decoder
from mribatch.schema import Reason, Status
from mribatch.sources.listing import content_digests, list_scans
from mribatch.stores import uris
from tests.frames import decode

SPEC = ImageSpec(side_px=16)
NOBODY = 65534
YEAR_S = 365 * 86400


def scan(shade: int = 128) -> bytes:
    data = io.BytesIO()
    Image.new("L", (20, 20), shade).save(data, "PNG")
    return data.getvalue()


def rows_below(root: Path | str) -> dict[str, dict[str, Any]]:
    """Return the row of each scan below a folder, by URI."""
    rows = decoding.decode_table(list_scans([str(root)], ()), spec=SPEC).to_pylist()
    assert len({row["scan_uri"] for row in rows}) == len(rows)
    return {row["scan_uri"]: row for row in rows}


def outcome(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str | None]]:
    return {uri.rpartition("/")[2]: (row["status"], row["reason"]) for uri, row in rows.items()}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in this process, where a test can replace parts and raise errors."""

    class Here(Decoder):
        def pieces(self, data: bytes) -> Any:
            yield [decode(data, SPEC)]

    monkeypatch.setattr(decoding, "decoder", lambda *_: Here(SPEC))


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Return a folder in which permissions count, even for tests that run as root."""
    folder = Path(tempfile.mkdtemp(prefix="mribatch-test-"))
    folder.chmod(0o777)
    me = os.geteuid()
    if me == 0:
        os.seteuid(NOBODY)
    yield folder
    if me == 0:
        os.seteuid(0)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


# Times


@pytest.mark.usefixtures("in_process")
def test_a_scan_of_any_age_is_a_row_like_any_other_and_stays_done(tmp_path: Path) -> None:
    times_ns = {
        "before-1970": -5 * 10**9,
        "a-nanosecond-before": -1,
        "1901": -(2**31) * 10**9,
        "epoch": 0,
        "ordinary": 1_700_000_000_123_456_789,
        "2106": 2**32 * 10**9,
        "2400": 430 * YEAR_S * 10**9,  # too many nanoseconds for 64 bits
    }
    for number, (name, at) in enumerate(times_ns.items()):
        (tmp_path / name).write_bytes(scan(number))
        os.utime(tmp_path / name, ns=(at, at))
    (tmp_path / "empty").write_bytes(b"")
    os.utime(tmp_path / "empty", ns=(-1, -1))
    listing = list_scans([str(tmp_path)])
    sizes = {uri: uris.size(uri, version) for uri, version in zip(*listing.to_pydict().values(), strict=True)}
    assert sizes == {str(path): path.stat().st_size for path in tmp_path.iterdir()}
    expected = dict.fromkeys(times_ns, (Status.OK, None)) | {"empty": (Status.REJECTED, Reason.EMPTY)}
    assert outcome(rows_below(tmp_path)) == expected
    (before,) = (entry for entry in uris.walk(str(tmp_path)) if entry.uri.endswith("a-nanosecond-before"))
    assert uris.read_version(before.uri, before.version) == scan(1)


@pytest.mark.parametrize(
    ("uri", "version", "size"),
    [
        ("/a", "123-1700000000000000000", 123),
        ("/a", "123--5000000000", 123),
        ("/a", "0--1", 0),
        ("file:///%FF", "7-0", 7),
        ("s3://b/a", "d41d8cd98f00b204e9800998ecf8427e-0", 0),
        ("s3://b/a", "9b2cf535f27731c974343645a3985328-12-8388608", 8388608),
        ("s3://b/a", "-5", 5),
    ],
)
def test_the_size_is_read_from_every_version_that_was_ever_written(uri: str, version: str, size: int) -> None:
    assert uris.size(uri, version) == size


# Names


def odd_names(count: int) -> list[bytes]:
    """Return file names of any bytes but / and NUL, half of them of characters with a meaning to some program."""
    draw = random.Random(16)
    special = [os.fsencode(c) for c in "%#?*[]{}()!$&;|<>~`'\"\\:=+,@^ \n\r\t\x01\x7f\x85\u2028\ufeff\U0001f9e0éaZ0-._"]
    special += [b"%2F", b"://", b"s3:", b"file:", b"..", b"%00", b"\xff", b"\xed\xa0\x80", b"nul", b"\\0"]
    names = {
        b" leading",
        b"trailing ",
        b"\xff\xfe",
        b"s3:",
        b"file:",
        b"x" * 255,
        "ü".encode() * 127,
        b"-rf",
        b"a\nb",
        b"~",
        b"C:",
    }
    names.add(b"model=1")
    while len(names) < count:
        letters = special if draw.random() < 0.5 else [bytes([code]) for code in range(1, 256) if code != ord("/")]
        name = b"".join(draw.choices(letters, k=draw.randint(1, 30))).replace(b"/", b"")
        if name and not name.startswith(b"."):
            names.add(name)
    return sorted(names)


@pytest.mark.usefixtures("in_process")
def test_a_folder_of_odd_names_gives_one_row_each(tmp_path: Path) -> None:
    names = odd_names(300)
    for number, name in enumerate(names):
        path = os.fsencode(tmp_path) + b"/" + name
        if number % 3 == 0:  # folders may have such names too
            os.mkdir(path)
            path += b"/" + name
        Path(os.fsdecode(path)).write_bytes(scan(number % 256))
    rows = rows_below(tmp_path)
    assert len(rows) == len(names)
    assert {row["status"] for row in rows.values()} == {Status.OK}
    table = pa.Table.from_pylist(
        [{name: row[name] for name in schema.PLAN.names} for row in rows.values()], schema=schema.PLAN
    )
    assert ledger.pending(table, str(tmp_path / "out"), "0123456789ab").num_rows == len(names)
    for uri in rows:
        assert uris.absolute(uri) == uri
        assert next(iter(uris.find([uri]))).uri == uri
        assert uris.is_below(uri, str(tmp_path))


# Kinds


@pytest.mark.usefixtures("in_process")
def test_odd_kinds_of_files_get_their_row_or_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.png").write_bytes(scan())
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "inside.png").write_bytes(scan())
    (tmp_path / "linked.png").symlink_to("good.png")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    (tmp_path / "loop-a.png").symlink_to("loop-b.png")
    (tmp_path / "loop-b.png").symlink_to("loop-a.png")
    (tmp_path / "through-a-file.png").symlink_to("good.png/x")
    (tmp_path / "up").symlink_to(".")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "piped.png").symlink_to("pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(1 << 42)
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        statuses = outcome(rows_below(tmp_path))
    assert statuses == {
        "good.png": (Status.OK, None),
        "inside.png": (Status.OK, None),
        "linked.png": (Status.OK, None),
        "dangling.png": (Status.REJECTED, Reason.VANISHED),
        "loop-a.png": (Status.REJECTED, Reason.VANISHED),
        "loop-b.png": (Status.REJECTED, Reason.VANISHED),
        "through-a-file.png": (Status.REJECTED, Reason.VANISHED),
        "sparse.png": (Status.REJECTED, Reason.TOO_LARGE),
    }


@pytest.mark.usefixtures("in_process")
def test_a_pipe_that_takes_the_place_of_a_scan_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(scan())
    listing = list_scans([str(tmp_path)])
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    (row,) = decoding.decode_table(listing, spec=SPEC).to_pylist()
    assert (row["status"], row["reason"]) == (Status.REJECTED, Reason.CHANGED)


# Permissions


@pytest.mark.usefixtures("in_process")
def test_a_closed_file_is_one_failed_scan(as_nobody: Path) -> None:
    for name in ("closed.png", "good.png", "dark/x.png", "vault/y.png"):
        (as_nobody / name).parent.mkdir(exist_ok=True)
        (as_nobody / name).write_bytes(scan())
    (as_nobody / "closed.png").chmod(0)
    (as_nobody / "link.png").symlink_to(as_nobody / "vault" / "y.png")
    (as_nobody / "dark").chmod(0o444)  # its names can be listed, but its files have no status
    shutil.move(as_nobody / "vault", f"{as_nobody}-vault")
    (as_nobody / "link.png").unlink()
    (as_nobody / "link.png").symlink_to(f"{as_nobody}-vault/y.png")
    Path(f"{as_nobody}-vault").chmod(0)
    try:
        statuses = outcome(rows_below(as_nobody))
    finally:
        Path(f"{as_nobody}-vault").chmod(0o700)
        shutil.rmtree(f"{as_nobody}-vault")
    failed = (Status.FAILED, Reason.UNREADABLE)
    assert statuses == {"good.png": (Status.OK, None), "closed.png": failed, "link.png": failed, "x.png": failed}


def test_a_closed_folder_is_named_with_what_to_do_and_can_be_excluded(as_nobody: Path) -> None:
    for name in ("good.png", "a [1]/closed/x.png", "lost+found/y.png"):
        (as_nobody / name).parent.mkdir(exist_ok=True, parents=True)
        (as_nobody / name).write_bytes(scan())
    closed = as_nobody / "a [1]" / "closed"
    for folder in (closed, as_nobody / "lost+found"):
        folder.chmod(0)
    with pytest.raises(StorageDenied) as caught:
        list_scans([str(as_nobody)], ())
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        f"the folder {closed} cannot be listed (permission denied): make it readable for this user, or leave it out with "
        "--exclude 'a [[]1]/closed'"
    )
    (scan_uri,) = list_scans([str(as_nobody)], ["a [[]1]/closed"])["scan_uri"].to_pylist()
    assert scan_uri == f"{as_nobody}/good.png"
    with pytest.raises(StorageDenied, match=r"make it readable for this user$"):
        list_scans([str(as_nobody)])  # as for a command without --exclude


def test_a_folder_with_a_disk_error_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad").mkdir()
    scandir = os.scandir

    def broken(folder: str) -> Any:
        if folder.endswith("/bad"):
            raise OSError(5, os.strerror(5))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(StorageError, match=r"bad cannot be listed \(input/output error\): .* --exclude bad$"):
        list_scans([str(tmp_path)], ())


def test_a_first_scan_that_cannot_be_looked_at_does_not_end_the_run(as_nobody: Path) -> None:
    (as_nobody / "closed").mkdir()
    (as_nobody / "closed" / "x.png").write_bytes(scan())
    (as_nobody / "closed").chmod(0)
    odd = f"{as_nobody}/closed/x.png"
    assert nodes._unseen({odd: "1-1"}) == [odd]
    nodes._check_answer("10.0.0.2", {odd: "1-1"}, lambda: [odd])


# Unforeseen errors


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("error", [ValueError, OverflowError, KeyError, RecursionError, AssertionError, UnicodeError])
@pytest.mark.parametrize("place", ["read_version", "size"])
def test_an_unforeseen_error_is_that_scans_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], place: str
) -> None:
    for name in ("a.png", "odd.png", "z.png"):
        (tmp_path / name).write_bytes(scan())
    real = getattr(uris, place)

    def odd(uri: str, version: str) -> Any:
        if uri.endswith("odd.png"):
            raise error("JOHN^DOE in /secret/place")
        return real(uri, version)

    monkeypatch.setattr(uris, place, odd)
    rows = rows_below(tmp_path)
    assert outcome(rows)["a.png"] == outcome(rows)["z.png"] == (Status.OK, None)
    row = rows[f"{tmp_path}/odd.png"]
    assert (row["status"], row["reason"]) == (Status.FAILED, Reason.UNFORESEEN)
    assert row["detail"].startswith(f"{error.__name__} in cluster/decoding.py, line ")
    assert "JOHN" not in row["detail"]
    assert "secret" not in row["detail"]


@pytest.mark.parametrize(
    "change", [{"pixels": np.zeros((4, 4, 3), np.uint8)}, {"width_px": 2**40}, {"detail": "\udcff"}]
)
def test_a_row_that_does_not_fit_its_columns_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    class Odd(Decoder):
        def pieces(self, data: bytes) -> Any:
            frame = decode(data, SPEC)
            yield [replace(frame, **change) if data == scan(1) else frame]

    monkeypatch.setattr(decoding, "decoder", lambda *_: Odd(SPEC))
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(scan(number))
    statuses = outcome(rows_below(tmp_path))
    assert statuses == {"0.png": ("ok", None), "1.png": ("failed", "unforeseen"), "2.png": ("ok", None)}


@pytest.mark.parametrize("where", ["opened", "frames"])
def test_what_decoding_should_never_raise_fails_the_scan_and_keeps_the_decoder(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise LookupError("JOHN^DOE")

    def broken_later(*_: Any) -> Any:
        return sandbox.Opened((), lambda _: iter([map(broken, [1])]))

    monkeypatch.setattr(sandbox, "opened", broken if where == "opened" else broken_later)
    file = sandbox._opened(scan(), SPEC, Reading())
    (answer,) = [frame for frames in file.scans(0) for frame in sandbox._guarded(frames, file.names, 0)]
    assert (answer.status, answer.reason) == (Status.FAILED, Reason.UNFORESEEN)
    assert str(answer.detail).startswith("LookupError in scans/sandbox.py, line ")


def test_a_cause_tells_the_type_and_the_place_and_no_more() -> None:
    try:
        uris.size("/x", "JOHN^DOE")
    except ValueError as err:
        assert cause(err).startswith("ValueError in stores/uris.py, line ")
        assert cause(err).endswith(", size")
    assert cause(OSError(28, "JOHN^DOE")) == "OSError (No space left on device)"
    assert cause(ValueError("JOHN^DOE")) == "ValueError"


def test_copies_are_recognized_though_some_scans_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(scan(number))
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(1 << 42)
    real = uris.read

    def odd(uri: str) -> bytes:
        if uri.endswith("1.png"):
            raise OverflowError
        return real(uri)

    monkeypatch.setattr(uris, "read", odd)
    listing = list_scans([str(tmp_path)])
    expected = {decode(scan(number), SPEC).content_sha256 for number in (0, 2)}
    caplog.clear()
    assert content_digests(listing) == expected
    assert caplog.messages == ["1 of 3 scans could not be read (OverflowError): copies of them are not recognized"]
    with pytest.raises(InputError, match=r"none of the 1 scans to compare with can be read \(OverflowError\)"):
        content_digests(listing.slice(1, 1))


# A predictor that raises


class Model:
    digest = "0123456789ab"
    image_spec = SPEC


class Raising:
    """A predictor that raises for some scans and counts its calls."""

    model = Model()

    def __init__(self, raises: Callable[[str], bool], error: Exception) -> None:
        self._raises, self._error, self.calls = raises, error, 0

    def __call__(self, table: pa.Table) -> pa.Table:
        self.calls += 1
        good = zip(table["scan_uri"].to_pylist(), table["status"].to_pylist(), strict=True)
        if any(status == Status.OK and self._raises(uri) for uri, status in good):
            raise self._error
        return table.drop_columns(["pixels"])


class Uncounted(WatchedPredictor):
    """A guard without Ray, as nothing dies here."""

    def __init__(self, predict: Raising) -> None:
        self._predict = predict  # type: ignore[assignment]
        self._timeout_s, self._timed, self._node, self._threads = 60.0, False, "here", 2

    def _begin(self, work: str) -> tuple[int, bool]:  # noqa: ARG002
        return 0, False

    def _end(self, work: str, scored: int = 0, rejected: int = 0) -> None:
        pass


def decoded(*names: str) -> pa.Table:
    size = 16 * 16 * 3
    rows = [
        {"scan_uri": name, "scan_version": "1-1", "frame": 0, "status": Status.OK, "pixels": bytes(size)}
        for name in names
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([*schema.PLAN, *schema.decoded_fields(16)]))


def test_scans_that_make_the_predictor_raise_fail_and_the_others_are_scored() -> None:
    predict = Raising(lambda uri: uri.startswith("odd"), ZeroDivisionError("JOHN^DOE"))
    rows = Uncounted(predict)(decoded("a", "odd1", "b", "odd2", "c")).to_pylist()
    statuses = {row["scan_uri"]: row["status"] for row in rows}
    assert list(statuses) == ["a", "odd1", "b", "odd2", "c"]
    assert statuses == {"a": "ok", "odd1": "failed", "b": "ok", "odd2": "failed", "c": "ok"}
    assert {(row["reason"], row["detail"].partition(" in ")[0]) for row in rows if row["status"] == "failed"} == {
        ("unforeseen", "scoring it: ZeroDivisionError")
    }


def test_a_batch_of_odd_scans_only_fails_them_all_and_not_the_run() -> None:
    predict = Raising(lambda uri: uri.startswith("odd"), ValueError())
    assert Uncounted(predict)(decoded("odd1", "odd2"))["status"].to_pylist() == ["failed", "failed"]
    assert Uncounted(predict)(decoded("odd1"))["status"].to_pylist() == ["failed"]


def test_a_model_that_scores_nothing_any_more_ends_the_run_in_one_sentence() -> None:
    predict = Raising(lambda _: True, ValueError("JOHN^DOE"))
    with pytest.raises(
        RunFailed, match=r"model 0123456789ab can no longer score any scan \(ValueError in .*\): check"
    ) as caught:
        Uncounted(predict)(decoded(*map(str, range(32))))
    assert "JOHN" not in str(caught.value)
    assert predict.calls < 5, "it is found out at the first scan"
    ours = Raising(lambda _: True, RunFailed("model 0123456789ab gives no finite probabilities: train it again"))
    with pytest.raises(RunFailed, match="no finite probabilities"):
        Uncounted(ours)(decoded("a"))


def test_a_machine_that_lacks_memory_for_a_batch_scores_its_scans_alone() -> None:
    class Small(Raising):
        def __call__(self, table: pa.Table) -> pa.Table:
            if table.num_rows > 1:
                raise MemoryError
            return super().__call__(table)

    rows = Uncounted(Small(lambda _: False, ValueError()))(decoded("a", "b"))
    assert rows["status"].to_pylist() == ["ok", "ok"]
    assert np.all(rows["predictor_peak_bytes"].to_numpy() > 0)
