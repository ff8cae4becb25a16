"""Zip, tar and tar.gz: members are scans, read as streams; bombs, links and names do no harm."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mribatch.scans.archive import open_archive
from mribatch.scans.decode import decode
from mribatch.scans.formats import RejectionError
from mribatch.scans.frames import Frame
from mribatch.scans.limits import ImageSpec
from mribatch.scans.reading import ONE_FRAME, Reading
from mribatch.scans.survey import survey
from mribatch.schema import Reason, Status
from tests.frames import only
from tests.unit.dicom_files import clean, written
from tests.unit.volume_files import as_tar, as_zip, nifti

SPEC = ImageSpec(side_px=32)
CANARY = "ZZCANARY^JOHN"


def png(seed: int = 0) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24), np.uint8)).save(data, "PNG")
    return data.getvalue()


MEMBERS = {"a.png": png(), "sub/b.dcm": written(clean()), "v.nii": nifti(), "v.nii.gz": gzip.compress(nifti())}
KINDS: list[Callable[[dict[str, bytes]], bytes]] = [
    as_zip,
    as_tar,
    lambda members: as_tar(members, "w:"),
    lambda members: as_zip(members, zipfile.ZIP_STORED),
]


def frames(data: bytes, spec: ImageSpec = SPEC, **reading: object) -> list[Frame]:
    return decode(data, spec, Reading(**reading))  # type: ignore[arg-type]


def reasons(data: bytes, spec: ImageSpec = SPEC) -> dict[str | None, str | None]:
    return {frame.name: frame.reason for frame in frames(data, spec)}


@pytest.mark.parametrize("pack", KINDS)
def test_members_are_scans_with_all_their_frames(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    packed = frames(pack(MEMBERS))
    for number, (name, content) in enumerate(MEMBERS.items()):
        expected = [replace(frame, name=name, member=number, members=4) for frame in frames(content)]
        assert [frame for frame in packed if frame.name == name] == expected
    assert [frame.member for frame in packed] == [0, 1, *[2] * 12, *[3] * 12]


@pytest.mark.parametrize("pack", KINDS)
def test_reading_can_begin_at_any_member(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    data = pack(MEMBERS)
    name = {b"PK": "ZIP", b"\x1f\x8b": "gzip"}.get(data[:2], "TAR")
    archive = open_archive(data, name, SPEC)
    for start in range(5):
        assert [content() for content in archive.contents(start)] == list(MEMBERS.values())[start:]


def test_gzip_of_one_scan_is_that_scan() -> None:
    packed, plain = only(frames(gzip.compress(png()))), only(frames(png()))
    assert (packed.name, packed.members, packed.pixels_sha256) == (None, None, plain.pixels_sha256)
    assert only(frames(gzip.compress(png()) + gzip.compress(b""))).status is Status.OK
    assert only(frames(gzip.compress(png()[:40]) + gzip.compress(png()[40:]))).status is Status.OK


def test_folders_links_devices_and_hidden_files_are_no_members() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as file:
        for name, kind in (
            ("l", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("d", tarfile.CHRTYPE),
            ("f", tarfile.DIRTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            file.addfile(entry)
        for name in ("./a.png", ".hidden/b.png", "__MACOSX/c.png", "x/Thumbs.db"):
            entry = tarfile.TarInfo(name)
            entry.size = len(png())
            file.addfile(entry, io.BytesIO(png()))
    assert reasons(data.getvalue()) == {"a.png": None}
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
        zipped.writestr("folder/", b"")
        zipped.writestr("a.png", png())
    assert reasons(data.getvalue()) == {"a.png": None}


@pytest.mark.parametrize("pack", KINDS)
def test_names_write_nothing_and_are_names_only(
    pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = ["../up.png", str(tmp_path / "root.png"), f"{CANARY}/1.png", "a\nb\x07.png", "q!r.png"]
    packed = frames(pack({name: png() for name in names}))
    assert [frame.name for frame in packed] == [*names[:3], "a%0ab%07.png", "q!r.png"]
    assert all(CANARY not in repr(replace(frame, name=None)) for frame in packed)
    assert [*os.walk(tmp_path)] == [(str(tmp_path), ["here"], []), (str(tmp_path / "here"), [], [])]


def test_names_are_unique_cut_and_text() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", encoding="utf-8") as file:
        for name in ("a.png", "a.png", "a.png#2", "\udcff.png", "x" * 5000):
            entry = tarfile.TarInfo(name)
            entry.size = len(png())
            file.addfile(entry, io.BytesIO(png()))
    names = [frame.name for frame in frames(data.getvalue())]
    assert names == ["a.png", "a.png#2", "a.png#2#2", "%ff.png", "x" * 1000]
    for name in names:
        assert name is not None
        name.encode()


def test_a_bad_member_costs_only_itself() -> None:
    data = bytearray(as_zip({"a.png": png(1), "b.png": png(2), "c.txt": b"hello", "d.png": b""}, zipfile.ZIP_STORED))
    data[data.index(png(2)) + 60] ^= 1
    assert reasons(bytes(data)) == {"a.png": None, "b.png": "corrupt", "c.txt": "not_an_image", "d.png": "empty"}


def test_encrypted_members_are_rejected() -> None:
    data = bytearray(as_zip({"a.png": png(1), "b.png": png(2)}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert reasons(bytes(data)) == {"a.png": "encrypted", "b.png": None}


def test_archives_in_archives_and_other_compressions_are_refused() -> None:
    inner = as_zip({"a.png": png()})
    nested = {
        "z.zip": inner,
        "t.tar": as_tar(MEMBERS, "w:"),
        "t.tgz": as_tar(MEMBERS),
        "g.gz.gz": gzip.compress(gzip.compress(png())),
    }
    for pack in KINDS:
        assert set(reasons(pack(nested)).values()) == {"unsupported_format"}
    assert only(frames(gzip.compress(inner))).reason is Reason.UNSUPPORTED_FORMAT
    assert reasons(as_zip({"a.png": png()}, zipfile.ZIP_LZMA)) == {"a.png": "unsupported_format"}
    assert only(frames(as_tar(MEMBERS, "w:bz2"))).reason is Reason.UNSUPPORTED_FORMAT
    assert only(frames(as_tar(MEMBERS, "w:xz"))).reason is Reason.UNSUPPORTED_FORMAT
    assert only(frames(as_zip({"[Content_Types].xml": b"", "word/document.xml": b""}))).reason == "unsupported_format"


BOMB = bytes(70_000_000)


def test_bombs_are_refused_by_their_ratio_and_cost_only_themselves() -> None:
    assert reasons(as_zip({"a.png": png(), "bomb": BOMB, "c.png": png()})) == {
        "a.png": None,
        "bomb": "too_large",
        "c.png": None,
    }
    assert only(frames(gzip.compress(BOMB))).reason is Reason.TOO_LARGE
    assert only(frames(as_tar({"a.png": png(), "bomb": BOMB}))).reason is Reason.TOO_LARGE


def zip_of_one_body(members: int, content: bytes) -> bytes:
    """Return a zip whose members all lie at one place of the file (Fifield, WOOT 2019)."""
    single = as_zip({"a": content})
    entry, end = single.index(b"PK\x01\x02"), single.index(b"PK\x05\x06")
    directory = single[entry:end] * members
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, members, members, len(directory), entry, 0)
    return single[:entry] + directory + tail


def test_many_members_that_are_small_bombs_each_are_one_large_bomb() -> None:
    frame = only(frames(zip_of_one_body(30, bytes(40_000_000))))
    assert (frame.reason, frame.name) == (Reason.TOO_LARGE, None)
    masks = frames(zip_of_one_body(3, bytes(2_000_000)))
    assert {mask.reason for mask in masks} == {Reason.NOT_AN_IMAGE}, "a small archive may have any ratio"


def test_a_member_without_a_name_costs_only_itself() -> None:
    data = as_zip({"N": png(), "b.png": png()}, zipfile.ZIP_STORED)
    entry, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    directory = bytearray(data[entry:end])
    directory[28:30] = b"\0\0"  # the length of the first name
    del directory[46]
    tail = bytearray(data[end:])
    tail[12:16] = len(directory).to_bytes(4, "little")
    assert reasons(data[:entry] + directory + tail) == {"b.png": None}


def test_an_archive_that_lacks_its_last_byte_is_truncated() -> None:
    for pack in (as_zip, as_tar):
        assert only(frames(pack(MEMBERS)[:-1])).reason is Reason.TRUNCATED


def test_names_cannot_turn_the_direction_of_a_page() -> None:
    (frame,) = frames(as_zip({"a\u202egnp.exe": png()}))
    assert frame.name == "a%e2%80%aegnp.exe"


def test_a_member_that_lies_about_its_size_gets_no_more_than_it_claimed() -> None:
    data = bytearray(as_zip({"bomb": BOMB[:50_000_000]}))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")
    assert reasons(bytes(data)) == {"bomb": "corrupt"}


def test_caps_on_entries_and_sizes_reject_the_archive_or_the_member() -> None:
    few, small = replace(SPEC, max_members=3), replace(SPEC, max_bytes=40_000)
    total = replace(SPEC, max_unpacked_bytes=60_000)
    for pack in KINDS:
        assert only(decode(pack(MEMBERS), few)).reason is Reason.TOO_LARGE
        assert only(decode(pack(MEMBERS), total)).reason is Reason.TOO_LARGE
    assert reasons(as_zip(MEMBERS), small)["v.nii"] == "too_large"
    assert reasons(as_zip(MEMBERS), small)["a.png"] is None


@pytest.mark.parametrize("pack", KINDS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cut_archives_are_truncated(pack: Callable[[dict[str, bytes]], bytes], share: float) -> None:
    data = pack({f"{number}.png": png(number) for number in range(30)})
    frame = only(frames(data[: int(len(data) * share)]))
    assert (frame.status, frame.reason, frame.name) == (Status.REJECTED, Reason.TRUNCATED, None)


def test_an_archive_without_files_is_empty() -> None:
    for pack in KINDS:
        frame = only(frames(pack({})))
        assert frame.reason in (Reason.EMPTY, Reason.NOT_AN_IMAGE)  # a tar without entries has no magic
    assert only(frames(as_zip({"folder/": b""}))).reason is Reason.EMPTY


@pytest.mark.parametrize("pack", KINDS)
def test_damaged_archives_never_raise(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    random, good = np.random.default_rng(3), pack({"a.png": png(1), "b.dcm": written(clean())})
    for _ in range(100):
        data = bytearray(good)
        for at in random.integers(0, len(data), 8):
            data[at] = random.integers(256)
        assert decode(bytes(data), SPEC)


def test_a_header_larger_than_any_real_one_is_refused() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", format=tarfile.PAX_FORMAT) as file:
        entry = tarfile.TarInfo("a.png")
        entry.pax_headers = {"comment": "x" * 2_000_000}
        file.addfile(entry)
    assert only(frames(data.getvalue())).reason is Reason.TOO_LARGE


def test_a_tar_whose_sizes_are_negative_is_damaged_and_is_not_read_again_and_again() -> None:
    header = bytearray(tarfile.TarInfo("b.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-1536).to_bytes(12, "big", signed=True)  # jumps back to before the second member
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    tar = as_tar({"0.png": b"x" * 512, "a.png": b"x" * 512}, "w")
    data = tar[:2048] + bytes(header) + tar[2048:]
    assert only(frames(data)).reason is Reason.CORRUPT


def test_a_tar_in_several_gzip_streams_is_an_archive() -> None:
    tar = as_tar({"a.png": png()}, "w")
    data = gzip.compress(tar[:100]) + gzip.compress(tar[100:])
    assert [frame.status for frame in frames(data)] == [Status.OK]
    assert only(frames(data)).member == frames(as_tar({"a.png": png()}))[0].member


def test_labelled_archives_are_rejected_in_training() -> None:
    assert only(decode(as_zip(MEMBERS), SPEC, ONE_FRAME)).reason is Reason.MULTIPLE_FRAMES
    assert only(decode(gzip.compress(png()), SPEC, ONE_FRAME)).status is Status.OK


def test_inspection_says_of_each_member_what_scoring_does_with_it() -> None:
    data = as_zip(MEMBERS | {"notes.txt": b"hello", "cut.nii": nifti()[:-9]})
    known = [(scan.name, scan.status, scan.frames, scan.reason) for scan in survey(data, SPEC, Reading())]
    assert known == [
        ("a.png", "ok", 1, None),
        ("sub/b.dcm", "ok", 1, None),
        ("v.nii", "ok", 12, None),
        ("v.nii.gz", "ok", 12, None),
        ("notes.txt", "rejected", 1, "not_an_image"),
        ("cut.nii", "rejected", 1, "truncated"),
    ]


def test_errors_are_of_this_room() -> None:
    with pytest.raises(RejectionError):
        open_archive(b"PK\x03\x04", "ZIP", SPEC)
